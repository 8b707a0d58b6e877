#include "fuse/notifier.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "env/file.h"
#include "fuse/protocol.h"

namespace litefs {

namespace {

constexpr std::chrono::milliseconds kStartMax{5000};

Error stopping_error() { return Error(ErrorCode::kCancelled, "the mount is stopping"); }

// Written here and not by libfuse, whose descriptor is not in the notifier's table. 0 or an errno.
template <class Body>
int notify(int device, int code, Body body, const std::string& name) {
  fuse_out_header header = {};
  header.error = code;
  // A name goes with the 0 at its end.
  size_t name_bytes = name.empty() ? 0 : name.size() + 1;
  header.len = static_cast<uint32_t>(sizeof header + sizeof body + name_bytes);
  iovec parts[] = {{&header, sizeof header}, {&body, sizeof body}, {const_cast<char*>(name.c_str()), name_bytes}};
  return writev(device, parts, name.empty() ? 2 : 3) < 0 ? errno : 0;
}

int tell_of_entry(int device, uint64_t parent, const std::string& name) {
  fuse_notify_inval_entry_out body = {};
  body.parent = parent;
  body.namelen = static_cast<uint32_t>(name.size());
  return notify(device, FUSE_NOTIFY_INVAL_ENTRY, body, name);
}

int tell_of_inode(int device, uint64_t id, bool pages) {
  fuse_notify_inval_inode_out body = {};
  body.ino = id;
  // A negative offset leaves the pages alone; length 0 means to the end.
  body.off = pages ? 0 : -1;
  return notify(device, FUSE_NOTIFY_INVAL_INODE, body, "");
}

}  // namespace

Status Notifier::start() {
  // Closed here as soon as the thread has its own.
  Descriptor device = TRY(device_.clone());
  thread_ = std::make_unique<QuietThread>("litefs-notify", [this, fd = device.get()] { run(fd); });
  Deadline deadline = deadline_in(kStartMax);
  MutexLock lock(mutex_);
  while (!started_) {
    if (!changed_.wait_until(mutex_, deadline) && !started_) {
      return Error(ErrorCode::kTimedOut, "the mount's notifier thread does not start");
    }
  }
  return *started_;
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
      return Error(ErrorCode::kTimedOut,
                   "telling the kernel of a change of " + name + ": requests for it are still being served");
    }
  }
  return item->result ? *item->result : Status(stopping_error());
}

void Notifier::run(int device) {
  Result<int> own = take_own_descriptors(device);
  {
    MutexLock lock(mutex_);
    started_ = own ? Status() : Status(own.error());
    changed_.notify_all();
  }
  while (own) {
    std::shared_ptr<Item> item;
    {
      MutexLock lock(mutex_);
      while (queue_.empty() && !stopping_) changed_.wait(mutex_);
      if (stopping_) return;
      item = queue_.front();
      queue_.pop_front();
      queued_.erase(Key(item->change, item->name));
    }
    Status result = tell_kernel(own.value(), item->change, item->name);
    MutexLock lock(mutex_);
    item->result = std::move(result);
    changed_.notify_all();
  }
}

Status Notifier::tell_kernel(int device, Change change, const std::string& name) {
  int error = 0;
  if (change == Change::kEntry) {
    const size_t slash = name.rfind('/');
    const bool in_root = slash == std::string::npos;
    const uint64_t parent = in_root ? kRootNode : nodes_.id_of(name.substr(0, slash));
    // Of a directory that it does not know the kernel knows no names.
    if (parent == 0) return {};
    error = tell_of_entry(device, parent, in_root ? name : name.substr(slash + 1));
    // The directory's times, and by them what a listing shows; the kernel drops them only if it
    // knew the name.
    int directory_error = tell_of_inode(device, parent, false);
    if (error == ENOENT || error == 0) error = directory_error;
  } else if (uint64_t id = nodes_.id_of(name); id != 0) {
    error = tell_of_inode(device, id, change == Change::kData);
  }
  if (error == 0 || error == ENOENT) return {};
  return errno_error(error, "telling the kernel of a change of " + name);
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
