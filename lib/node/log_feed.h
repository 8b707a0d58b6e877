// Reading a database's log and pages for a replica, on the worker pool (repl/doors.h: LogFeed, SnapshotFeed).
// Thread rule: made and used on the loop's thread; the reading happens on workers, one job at a time.
#pragma once

#include <functional>
#include <memory>

#include "db/database.h"
#include "env/loop.h"
#include "env/worker_pool.h"
#include "repl/doors.h"

namespace litefs {

// Where jobs run and their answers go.
struct FeedThreads {
  EventLoop& loop;
  WorkerPool& workers;
};

// As PrimaryHost::open_feed and start_snapshot.
void open_log_feed(const FeedThreads& threads, std::shared_ptr<Database> database, DatabaseId id,
                   const Position& position, PrimaryHost::FeedDone done);
void start_snapshot_feed(const FeedThreads& threads, std::shared_ptr<Database> database, bool compares,
                         PrimaryHost::SnapshotDone done);

}  // namespace litefs
