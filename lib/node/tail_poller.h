// Wakes the capture of a primary's databases (FUSE.md section 3, rule 5).
//
// A database whose commits nobody tells of is polled each 60 µs while transactions come, and its WAL is watched while
// none do (0 % CPU). Where a front end tells of each commit (signal()) no file is watched, nor looked at before it
// does: its telling costs a system call only when the thread sleeps, and after a capture the thread stays awake for a
// moment, so that a burst of commits wakes it once.
//
// Its thread does the capturing. A database whose poll fails is looked at again after a pause; the failure is logged
// once. Thread rule: everything from any thread; a signal may outlive the poller.
#pragma once

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"
#include "db/database.h"
#include "env/clock.h"
#include "env/write_watch.h"

namespace litefs {

// One database's commits, told by whoever sees them.
class CommitSignal {
 public:
  // A transaction may have been committed. Never waits.
  void committed();

 private:
  friend class TailPoller;
  // What the poller's thread sleeps on.
  struct Sleep {
    std::unique_ptr<WriteWatch> watch;
    std::atomic<bool> asleep{false};
  };
  explicit CommitSignal(std::shared_ptr<Sleep> sleep) : sleep_(std::move(sleep)) {}

  const std::shared_ptr<Sleep> sleep_;
  std::atomic<bool> pending_{false};
};

class TailPoller {
 public:
  static Result<std::unique_ptr<TailPoller>> start(Clock& clock, const Log& log);
  ~TailPoller();

  // Something may have happened to this database: its WAL was opened or written. Begins to follow it.
  void touch(std::shared_ptr<Database> database);
  // From here on the database's commits are told of through this. (One that a front end cannot tell of, it touches.)
  std::shared_ptr<CommitSignal> signal(std::shared_ptr<Database> database);
  // From here on somebody else may commit, too, who tells nothing: the files' writes are watched.
  void watch(std::shared_ptr<Database> database);
  void stop();

 private:
  struct Followed;

  TailPoller(Clock& clock, const Log& log, std::unique_ptr<WriteWatch> watch);
  void run();
  Followed& followed(const std::shared_ptr<Database>& database);
  void take_touched();
  bool poll(Followed& followed);
  bool poll_active();
  bool poll_told();
  bool still_active(Followed& followed);
  void sleep();
  void arm(Followed& followed);
  void disarm(Followed& followed);

  Clock& clock_;
  Log log_;
  const std::shared_ptr<CommitSignal::Sleep> sleep_;
  std::vector<std::unique_ptr<Followed>> followed_;  // the thread's own

  Mutex mutex_;
  std::set<std::shared_ptr<Database>> touched_ GUARDED_BY(mutex_);
  std::set<std::shared_ptr<Database>> watched_ GUARDED_BY(mutex_);
  std::vector<std::pair<std::shared_ptr<Database>, std::shared_ptr<CommitSignal>>> signals_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace litefs
