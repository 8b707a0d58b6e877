#include "fuse/notifier.h"

#include <cerrno>

#include "env/file.h"

namespace litefs {

namespace {

Error stopping_error() { return Error(ErrorCode::kCancelled, "the mount is stopping"); }

}  // namespace

void Notifier::start() {
  thread_ = std::make_unique<QuietThread>("litefs-notify", [this] { run(); });
}

Result<std::shared_ptr<Notifier::Item>> Notifier::enqueue(Change change, const std::string& name) {
  MutexLock lock(mutex_);
  if (stopping_) return stopping_error();
  Key key(change, name);
  auto it = queued_.find(key);
  // Not begun yet, so it will tell of this change too.
  if (it != queued_.end()) return it->second;
  if (queue_.size() >= kNotificationsMax) {
    return Error(ErrorCode::kBusy, "too many notifications to the kernel are waiting");
  }
  auto item = std::make_shared<Item>(Item{change, name, std::nullopt});
  queue_.push_back(item);
  queued_.emplace(std::move(key), item);
  changed_.notify_all();
  return item;
}

Status Notifier::post(Change change, const std::string& name) {
  TRY(enqueue(change, name));
  return {};
}

Status Notifier::invalidate(Change change, const std::string& name, Deadline deadline) {
  std::shared_ptr<Item> item = TRY(enqueue(change, name));
  MutexLock lock(mutex_);
  while (!item->result && !stopping_) {
    if (!changed_.wait_until(mutex_, deadline) && !item->result && !stopping_) {
      return Error(ErrorCode::kTimedOut, "telling the kernel of a change of " + name +
                                             ": requests for it are still being served");
    }
  }
  return item->result ? *item->result : Status(stopping_error());
}

void Notifier::run() {
  for (;;) {
    std::shared_ptr<Item> item;
    {
      MutexLock lock(mutex_);
      while (queue_.empty() && !stopping_) changed_.wait(mutex_);
      if (stopping_) return;
      item = queue_.front();
      queue_.pop_front();
      queued_.erase(Key(item->change, item->name));
    }
    Status result = tell_kernel(item->change, item->name);
    MutexLock lock(mutex_);
    item->result = std::move(result);
    changed_.notify_all();
  }
}

Status Notifier::tell_kernel(Change change, const std::string& name) {
  int error = 0;
  if (change == Change::kEntry) {
    error = device_.invalidate_entry(name);
    // The directory's times, and by them what a listing shows; the kernel drops them only if it
    // knew the name.
    int root_error = device_.invalidate_inode(kRootNode, false);
    if (error == -ENOENT || error == 0) error = root_error;
  } else if (uint64_t id = nodes_.id_of(name); id != 0) {
    error = device_.invalidate_inode(id, change == Change::kData);
  }
  if (error == 0 || error == -ENOENT) return {};
  return errno_error(-error, "telling the kernel of a change of " + name);
}

bool Notifier::stop(Deadline deadline) {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (!thread_ || thread_->join_until(deadline)) return true;
  thread_->abandon();
  return false;
}

}  // namespace litefs
