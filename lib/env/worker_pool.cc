#include "env/worker_pool.h"

#include <pthread.h>

#include <future>

namespace litefs {

void name_thread(const std::string& name) { pthread_setname_np(pthread_self(), name.substr(0, 15).c_str()); }

WorkerPool::WorkerPool(std::string name, size_t threads) : name_(std::move(name)) {
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this, i] { run(i); });
}

WorkerPool::~WorkerPool() { stop(); }

void WorkerPool::post(std::function<void()> job) {
  {
    MutexLock lock(mutex_);
    if (stopping_) return;
    queue_.push_back(std::move(job));
  }
  wake_.notify_one();
}

void WorkerPool::stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& t : threads_) {
    if (t.joinable()) t.join();
  }
}

void WorkerPool::run(size_t index) {
  name_thread(name_ + "-" + std::to_string(index));
  for (;;) {
    std::function<void()> job;
    {
      MutexLock lock(mutex_);
      while (queue_.empty() && !stopping_) wake_.wait(mutex_);
      if (queue_.empty()) return;
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    job();
  }
}

void Strand::post(std::function<void()> job) {
  {
    MutexLock lock(mutex_);
    queue_.push_back(std::move(job));
    if (running_) return;
    running_ = true;
  }
  pool_.post([self = shared_from_this()] { self->run(); });
}

size_t Strand::pending() {
  MutexLock lock(mutex_);
  return queue_.size() + (running_ ? 1 : 0);
}

void Strand::wait_idle() {
  std::promise<void> done;
  post([&done] { done.set_value(); });
  done.get_future().wait();
}

// One job a turn, so that a busy strand does not keep a thread from the others.
void Strand::run() {
  std::function<void()> job;
  {
    MutexLock lock(mutex_);
    if (queue_.empty()) {
      running_ = false;
      return;
    }
    job = std::move(queue_.front());
    queue_.pop_front();
  }
  job();
  job = nullptr;
  {
    MutexLock lock(mutex_);
    if (queue_.empty()) {
      running_ = false;
      return;
    }
  }
  pool_.post([self = shared_from_this()] { self->run(); });
}

}  // namespace litefs
