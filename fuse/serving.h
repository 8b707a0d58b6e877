// The threads that read requests from the device and serve them.
//
// Two at rest, the fastest loop on two cores. A handler may block on a disk, or in a hook on a
// database's mutex; whenever the last idle thread takes a request that may, another thread is
// started, up to kServingThreadsMax. When that many handlers block at once the mount waits until
// one of them is done. Threads beyond two leave after kLinger without need for more.
//
// Thread rule: the owner's thread.
#pragma once

#include <atomic>
#include <functional>
#include <list>

#include "base/log.h"
#include "base/mutex.h"
#include "fuse/device.h"
#include "fuse/quiet_thread.h"

namespace litefs {

inline constexpr size_t kServingThreadsAtRest = 2;
inline constexpr size_t kServingThreadsMax = 32;

class ServingThreads {
 public:
  // `ended` is called on the last thread when the kernel has ended the connection without drain().
  ServingThreads(Device& device, const Log& log, std::function<void()> ended);

  void start();
  // Serves nothing more than the requests already begun (an idle thread takes one more); false when
  // some still run at the deadline.
  bool drain(Deadline deadline);
  // After the connection has ended. False when a handler still runs at the deadline; its thread is
  // abandoned.
  bool join_until(Deadline deadline);
  size_t threads();

 private:
  static constexpr std::chrono::milliseconds kLinger{1000};

  void serve();
  bool go_idle(bool first) EXCLUDES(mutex_);
  void go_busy(bool blocking) EXCLUDES(mutex_);
  void grow() REQUIRES(mutex_);

  Device& device_;
  Log log_;
  std::function<void()> ended_;
  Mutex mutex_;
  CondVar changed_;
  std::list<QuietThread> threads_ GUARDED_BY(mutex_);
  size_t running_ GUARDED_BY(mutex_) = 0;  // threads that have not left
  size_t idle_ GUARDED_BY(mutex_) = 0;     // of them, those waiting for a request
  size_t begun_ GUARDED_BY(mutex_) = 0;    // and those that have not come so far yet
  Deadline grown_ GUARDED_BY(mutex_);
  bool draining_ GUARDED_BY(mutex_) = false;
  bool full_logged_ GUARDED_BY(mutex_) = false;
};

}  // namespace litefs
