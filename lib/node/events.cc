#include "node/events.h"

#include "env/worker_pool.h"

namespace litefs {

Events::Events() : thread_([this] { run(); }) {}

Events::~Events() { stop(); }

void Events::stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    wake_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Events::wait_called() {
  while (calling_ && !is_calling()) called_.wait(mutex_);
}

void Events::on_role(std::function<void()> told) {
  MutexLock lock(mutex_);
  role_ = std::move(told);
  role_pending_ = role_ != nullptr;
  wake_.notify_all();
  wait_called();
}

void Events::on_position(std::function<void(const std::string& name)> told) {
  MutexLock lock(mutex_);
  position_ = std::move(told);
  moved_.clear();
  wait_called();
}

void Events::role_changed() {
  MutexLock lock(mutex_);
  role_pending_ = role_ != nullptr;
  wake_.notify_all();
}

void Events::position_moved(const std::string& name) {
  MutexLock lock(mutex_);
  if (!position_ || !moved_.insert(name).second) return;
  wake_.notify_all();
}

void Events::run() {
  name_thread("events");
  MutexLock lock(mutex_);
  for (;;) {
    while (!stopping_ && !role_pending_ && moved_.empty()) wake_.wait(mutex_);
    if (stopping_) return;
    std::function<void()> call;
    if (role_pending_) {
      role_pending_ = false;
      call = role_;
    } else {
      call = [told = position_, name = moved_.extract(moved_.begin()).value()] { told(name); };
    }
    calling_ = true;
    mutex_.unlock();
    call();
    mutex_.lock();
    calling_ = false;
    called_.notify_all();
  }
}

}  // namespace litefs
