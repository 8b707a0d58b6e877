// A bounded pool of threads, and strands on it: the jobs of one strand run one at a time, in order.
//
// Jobs may do disk I/O; they never wait for a peer, an application or the event loop. Thread rule: post
// from any thread; a pool is stopped and destroyed by its owner, after which posts are dropped.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace litefs {

class WorkerPool {
 public:
  WorkerPool(std::string name, size_t threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void post(std::function<void()> job);
  // Runs what is queued, then ends the threads. Idempotent.
  void stop();

 private:
  void run(size_t index);

  std::string name_;
  Mutex mutex_;
  CondVar wake_;
  std::deque<std::function<void()>> queue_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

class Strand : public std::enable_shared_from_this<Strand> {
 public:
  static std::shared_ptr<Strand> create(WorkerPool& pool) { return std::shared_ptr<Strand>(new Strand(pool)); }

  void post(std::function<void()> job);
  // Jobs waiting or running.
  size_t pending();
  // Blocks until every job posted before is done. Never from one of the pool's own threads.
  void wait_idle();

 private:
  explicit Strand(WorkerPool& pool) : pool_(pool) {}
  void run();

  WorkerPool& pool_;
  Mutex mutex_;
  std::deque<std::function<void()>> queue_ GUARDED_BY(mutex_);
  bool running_ GUARDED_BY(mutex_) = false;
};

// Names the calling thread, for debuggers and ps.
void name_thread(const std::string& name);

}  // namespace litefs
