// Tells the kernel what has changed behind the mount.
//
// The kernel keeps names, missing names, attributes and cached pages for a day (operations.h).
// Whoever creates, removes, resizes or writes a real file other than through the mount must say so
// here: after the change, as the kernel asks again at once. Without a word of ours the change may
// stay unseen until the day is over.
//
// A notification can wait in the kernel for requests that are being served: for the directory's
// lock, which an UNLINK, CREATE or LOOKUP holds, or for a page that a WRITE or READ has locked. So
// it is made by a thread of its own, which holds no lock and serves no request, one after the other
// in order; and a handler or hook may post, but never wait (FUSE.md, section 8).
//
// Thread rule: any thread; the waiting calls on none that serves a request.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/mutex.h"
#include "base/result.h"
#include "fuse/device.h"
#include "fuse/node_table.h"
#include "fuse/quiet_thread.h"

namespace litefs {

inline constexpr size_t kNotificationsMax = 65536;

class Notifier {
 public:
  enum class Change {
    kEntry,       // the name (a path) has been made or removed; for each directory on its way apart
    kAttributes,  // size, times, mode or owner of the file of this name
    kData,        // attributes, and contents: the kernel drops its cached pages
  };

  Notifier(Device& device, NodeTable& nodes) : device_(device), nodes_(nodes) {}

  // After the handshake.
  Status start();
  // Queues a notification; one that is queued already is not queued again. kBusy: the queue is
  // full; kCancelled: the mount is stopping.
  Status post(Change change, const std::string& name);
  // post(), then waits until the kernel has done it. That it knew nothing of the name is success.
  // kTimedOut: not by the deadline; it will still be done.
  Status invalidate(Change change, const std::string& name, Deadline deadline);
  Status invalidate_entry(const std::string& name, Deadline deadline) {
    return invalidate(Change::kEntry, name, deadline);
  }
  Status invalidate_attributes(const std::string& name, Deadline deadline) {
    return invalidate(Change::kAttributes, name, deadline);
  }
  Status invalidate_data(const std::string& name, Deadline deadline) {
    return invalidate(Change::kData, name, deadline);
  }

  // Drops what is queued. After the connection has ended; false: the thread still runs at the
  // deadline, and is abandoned.
  bool stop(Deadline deadline);

 private:
  struct Item {
    Change change;
    std::string name;
    std::optional<Status> result;  // once done
  };
  using Key = std::pair<Change, std::string>;

  Result<std::shared_ptr<Item>> enqueue(Change change, const std::string& name);
  void run(int device);
  Status tell_kernel(int device, Change change, const std::string& name);

  Device& device_;
  NodeTable& nodes_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<std::shared_ptr<Item>> queue_ GUARDED_BY(mutex_);
  std::map<Key, std::shared_ptr<Item>> queued_ GUARDED_BY(mutex_);  // the same, by what they say
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::optional<Status> started_ GUARDED_BY(mutex_);
  std::unique_ptr<QuietThread> thread_;
};

}  // namespace litefs
