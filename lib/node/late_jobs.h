// Runs jobs a moment after they are posted, with all that were posted in that moment: for what may wait as long, and
// costs less the less often it is done (syncs).
//
// Thread rule: post from any thread; jobs may do disk I/O. What was posted before stop() is run by it, at once.
#pragma once

#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace litefs {

class LateJobs {
 public:
  // So long a job waits, and for those that are running then.
  static constexpr std::chrono::milliseconds kPause{50};

  LateJobs();
  ~LateJobs();
  LateJobs(const LateJobs&) = delete;
  LateJobs& operator=(const LateJobs&) = delete;

  void post(std::function<void()> job);
  // Idempotent. What is posted afterwards is dropped.
  void stop();

 private:
  void run();

  Mutex mutex_;
  CondVar wake_;
  std::vector<std::function<void()>> jobs_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace litefs
