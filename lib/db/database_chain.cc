// Database on a primary: whether its WAL is followed by the wal-index or by the chain of frame
// checksums, and what only the latter needs (sqlite/tail.h).
//
// The one user of a WAL without an index has the database's EXCLUSIVE lock from before it opens
// -wal until it has closed it. So a -shm that nobody has locked when -wal is opened is a dead one;
// and one that somebody has locked then stays the index of all. Who opens -shm afterwards holds
// SHARED, so that the other is gone; its first user truncates it, and only then is it an index
// again. In between, after the last close of -shm, its end stays the bound while SQLite's last
// close goes on to unlink -wal; where -shm is left, its users were killed, and whoever comes next
// follows the chain himself.
#include <algorithm>

#include "db/database.h"
#include "env/write_watch.h"
#include "sqlite/header.h"

namespace litefs {
namespace {

constexpr int64_t kHeldCommitMaxNs = ChainTrust::kAcceptedAfterNs * 3 / 2;
constexpr int64_t kHeldPauseUs = 500;

}  // namespace

void Database::set_index_in_use(bool in_use) {
  tail_->set_index_in_use(in_use);
  index_may_be_in_use_ = in_use;
}

Status Database::tail_opened(bool shm) {
  MutexLock lock(mutex_);
  if (is_replica_ || !started_) return {};
  // A name that leads to a new file: the old one was drained when it was unlinked.
  TRY(tail_->refresh());
  if (shm) {
    ++index_opens_;
    set_index_in_use(true);
    return {};
  }
  const bool unused = unused_at_opens_.exchange(UINT64_MAX) == index_opens_;
  if (unused || tail_->index_unlinked()) set_index_in_use(false);
  tail_->new_user();
  return {};
}

Status Database::index_opened() {
  MutexLock lock(mutex_);
  if (is_replica_ || !started_) return {};
  TRY(tail_->refresh());
  ++index_opens_;
  index_may_be_in_use_ = true;
  return {};
}

Status Database::index_begins(uint64_t size_bytes) {
  MutexLock lock(mutex_);
  if (is_replica_ || !started_) return {};
  std::unique_ptr<File> index = TRY(env_.files.open(paths_.shm(), OpenMode::kReadWrite));
  TRY(index->truncate(size_bytes));
  TRY(tail_->refresh());
  // Who was told before this that no process has it locked was told of the time before its user had.
  ++index_opens_;
  set_index_in_use(true);
  return {};
}

void Database::index_closed() {
  MutexLock lock(mutex_);
  if (is_replica_ || !started_ || tail_->index_unlinked()) return;
  set_index_in_use(false);
}

void Database::index_unused(uint64_t opens) {
  MutexLock lock(mutex_);
  if (is_replica_ || !started_ || opens != index_opens_) return;
  set_index_in_use(false);
}

void Database::wal_sync_ended(const Status& synced) {
  --wal_syncs_;
  MutexLock lock(mutex_);
  if (is_replica_ || !usable().ok() || !tail_->follows_chain()) return;
  // Its writer waits for us. A failed sync takes the commit at the chain's end back.
  const ChainEnd end = synced.ok() ? ChainEnd::kSettled : ChainEnd::kRefused;
  Result<bool> drained = drain_with({.patient = true, .chain_end = end, .syncing = false});
  if (!synced.ok()) {
    env_.log.warning("an application could not sync its WAL; its last commit is not captured")
        .kv("database", name())
        .error(synced.error());
  }
  if (!drained.ok()) env_.log.error("capture failed").kv("database", name()).error(drained.error());
}

Status Database::drain_for_reader() {
  const int64_t give_up_ns = env_.clock.monotonic_ns() + kHeldCommitMaxNs;
  for (;;) {
    {
      MutexLock lock(mutex_);
      if (is_replica_) return {};
      TRY(usable());
      Result<bool> drained = drain_with({.patient = true, .chain_end = ChainEnd::kUnknown, .syncing = wal_syncs_ > 0});
      if (!drained.ok()) return drained.error();
      if (!tail_->holds_commit()) return {};
    }
    if (env_.clock.monotonic_ns() >= give_up_ns) return {};
    sleep_us(kHeldPauseUs);
  }
}

// A commit that was captured is none (its sync failed after it had counted), or a killed writer's
// successor found less than was published: where SQLite goes on from becomes the captured state, by
// one transaction.
Status Database::resynchronise(const Error& why) {
  env_.log.error("SQLite goes on from another state than was captured; correcting it by a transaction")
      .kv("database", name())
      .kv("txid", control_->state().current.position.txid)
      .error(why);
  Pgno size_pages = 0;
  tail_->set_anchor(WalAnchor());
  WalTail::Outcome outcome = TRY(tail_->drain(
      [&size_pages](const WalTail::Transaction& transaction) {
        size_pages = transaction.size_after();
        return Status();
      },
      {.patient = true, .chain_end = ChainEnd::kUnknown, .syncing = wal_syncs_ > 0}));
  if (outcome == WalTail::Outcome::kWait) {
    return Error(ErrorCode::kTimedOut, paths_.shm() + " stays without a valid header");
  }
  const FileInfo info = TRY(open_file());
  if (size_pages == 0) {
    size_pages = static_cast<Pgno>(info.size_bytes / control_->state().page_size);
  }
  return compare_live(size_pages);
}

// SQLite before 3.51 commits frames without right checksums when a savepoint takes back spilled
// changes (wal_tail.cc). Without an index nothing tells of them, or of any commit behind them,
// until a checkpoint moves their pages: then the database file has what the captured state has not.
// Called when the file's last write of a checkpoint is behind: at its truncation, and at its sync.
Status Database::compare_unchained(std::optional<uint64_t> new_size_bytes) {
  MutexLock lock(mutex_);
  const ControlState& state = control_->state();
  if (is_replica_ || env_.skip_drains || state.current.size_pages == 0) return {};
  if (!tail_->has_wal() || !tail_->follows_chain()) return {};
  std::vector<Pgno> written;
  TRY(tail_->for_each_unchained_page([&](Pgno pgno) { written.push_back(pgno); }));
  if (written.empty()) return {};
  const FileInfo info = TRY(open_file());
  // A file that is made larger may get its pages only after that; its sync will come.
  if (new_size_bytes && *new_size_bytes > info.size_bytes) return {};
  begin_batch();
  NewPages pages;
  pages.page_size = state.page_size;
  pages.size_after = static_cast<Pgno>(new_size_bytes.value_or(info.size_bytes) / state.page_size);
  pages.read = [&](size_t index, MutableByteView out)
                   NO_THREAD_SAFETY_ANALYSIS { return read_file_page(pages.pgnos[index], out); };
  written.push_back(1);
  for (Pgno pgno = state.current.size_pages + 1; pgno <= pages.size_after; ++pgno) written.push_back(pgno);
  std::sort(written.begin(), written.end());
  written.erase(std::unique(written.begin(), written.end()), written.end());
  page_.resize(state.page_size);
  for (Pgno pgno : written) {
    if (pgno > pages.size_after || pgno == lock_page(state.page_size)) continue;
    TRY(read_file_page(pgno, page_));
    if (!read_page_agrees(pgno)) pages.pgnos.push_back(pgno);
  }
  if (pages.pgnos.empty() && pages.size_after == state.current.size_pages) return {};
  TRY(forget_batch(record_changes(pages, tail_->anchor())));
  TRY(forget_batch(flush_batch()));
  for (Pgno pgno : pages.pgnos) tail_->moved_to_file(pgno);
  env_.log
      .error(
          "SQLite committed frames with wrong checksums under locking_mode=EXCLUSIVE (a savepoint "
          "took back "
          "spilled pages); what a checkpoint made of them is one transaction now")
      .kv("database", name())
      .kv("pages", pages.pgnos.size());
  return {};
}

}  // namespace litefs
