#include "node/late_jobs.h"

#include "env/worker_pool.h"

namespace litefs {

LateJobs::LateJobs() : thread_([this] { run(); }) {}

LateJobs::~LateJobs() { stop(); }

void LateJobs::post(std::function<void()> job) {
  bool sleeps;
  {
    MutexLock lock(mutex_);
    if (stopping_) return;
    sleeps = jobs_.empty();
    jobs_.push_back(std::move(job));
  }
  if (sleeps) wake_.notify_one();
}

void LateJobs::stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void LateJobs::run() {
  name_thread("late jobs");
  for (;;) {
    std::vector<std::function<void()>> jobs;
    {
      MutexLock lock(mutex_);
      while (jobs_.empty() && !stopping_) wake_.wait(mutex_);
      const auto until = std::chrono::steady_clock::now() + kPause;
      while (!stopping_ && wake_.wait_until(mutex_, until)) {
      }
      if (jobs_.empty()) return;
      jobs.swap(jobs_);
    }
    for (const std::function<void()>& job : jobs) job();
  }
}

}  // namespace litefs
