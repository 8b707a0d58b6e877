// Wakes the capture of a primary's databases: while transactions come it polls each 60 µs, an idle database's WAL is
// watched (0 % CPU). FUSE.md section 3, rule 5.
//
// Its thread does the capturing. A database whose poll fails is looked at again after a pause; the failure is logged
// once. Thread rule: touch() and stop() from any thread.
#pragma once

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

class TailPoller {
 public:
  static Result<std::unique_ptr<TailPoller>> start(Clock& clock, const Log& log);
  ~TailPoller();

  // Something may have happened to this database: its WAL was opened or written. Begins to follow it.
  void touch(std::shared_ptr<Database> database);
  void stop();

 private:
  struct Followed;

  TailPoller(Clock& clock, const Log& log, std::unique_ptr<WriteWatch> watch);
  void run();
  void take_touched();
  bool poll_active();
  void arm(Followed& followed);
  void disarm(Followed& followed);

  Clock& clock_;
  Log log_;
  std::unique_ptr<WriteWatch> watch_;
  std::vector<std::unique_ptr<Followed>> followed_;  // the thread's own

  Mutex mutex_;
  std::set<std::shared_ptr<Database>> touched_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace litefs
