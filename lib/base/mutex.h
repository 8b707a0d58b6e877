// std::mutex and std::condition_variable_any with clang's thread-safety annotations
// (-Wthread-safety). Waits always have a deadline or a predicate that a stop can meet.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define LITEFS_TSA(x) __attribute__((x))
#else
#define LITEFS_TSA(x)
#endif
#define CAPABILITY(x) LITEFS_TSA(capability(x))
#define SCOPED_CAPABILITY LITEFS_TSA(scoped_lockable)
#define GUARDED_BY(x) LITEFS_TSA(guarded_by(x))
#define PT_GUARDED_BY(x) LITEFS_TSA(pt_guarded_by(x))
#define REQUIRES(...) LITEFS_TSA(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) LITEFS_TSA(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) LITEFS_TSA(acquire_capability(__VA_ARGS__))
#define RELEASE(...) LITEFS_TSA(release_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...) LITEFS_TSA(try_acquire_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS LITEFS_TSA(no_thread_safety_analysis)

namespace litefs {

class CAPABILITY("mutex") Mutex {
 public:
  void lock() ACQUIRE() { mutex_.lock(); }
  void unlock() RELEASE() { mutex_.unlock(); }
  bool try_lock() TRY_ACQUIRE(true) { return mutex_.try_lock(); }

 private:
  std::mutex mutex_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

class CondVar {
 public:
  void wait(Mutex& mutex) REQUIRES(mutex) NO_THREAD_SAFETY_ANALYSIS { cv_.wait(mutex); }
  // False when the deadline passed first.
  bool wait_until(Mutex& mutex, std::chrono::steady_clock::time_point deadline)
      REQUIRES(mutex) NO_THREAD_SAFETY_ANALYSIS {
    return cv_.wait_until(mutex, deadline) == std::cv_status::no_timeout;
  }
  void notify_one() { cv_.notify_one(); }
  void notify_all() { cv_.notify_all(); }

 private:
  std::condition_variable_any cv_;
};

}  // namespace litefs
