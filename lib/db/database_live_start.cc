// Database at a start while other processes, and connections of this one, go on using its files: the process that ran
// the node has been killed, and another one takes over.
//
// What the host of before has promised holds on: no checkpoint has completed, and no WAL has been begun anew, cut or
// unlinked, that was not drained; no journal has been made final that was not captured. So on a primary
// - in WAL mode everything that is committed and not captured lies behind the anchor, as ever. It is drained, once
//   it is known whether an index is in use: by the lock that its users hold (kDmsByte).
// - in a rollback mode the log's end is the last final state of the file, but for one transaction: its record may be in
//   the log while its journal is still there. Its writer asks again, and nothing differs. Where he is dead too, the
//   next reader plays the journal back; the end of that is asked for like any other, and what differs takes the
//   transaction back. What was written before this start was not seen: the journal tells (add_unseen_writes).
//
// A replica's WAL has no writer but the dead host. Its end says which of the two states in control is the published
// one, or, where readers have checkpointed meanwhile, the content does. Readers keep their snapshots. A replacement of
// whole files goes on as it was begun.
//
// Whatever else there may be is left to a start behind the fence (database_recover.cc).
#include <sys/stat.h>

#include "db/database.h"
#include "db/snapshot_load.h"
#include "env/write_watch.h"
#include "sqlite/header.h"
#include "sqlite/journal.h"

namespace litefs {
namespace {

// As a reader waits for a commit that does not count yet (database_chain.cc).
constexpr int64_t kHeldCommitMaxNs = ChainTrust::kAcceptedAfterNs * 3 / 2;
constexpr int64_t kHeldPauseUs = 500;

}  // namespace

// For good: only where nobody else has the files can they be put right.
Error Database::not_live(const std::string& why) {
  Error busy(ErrorCode::kBusy, "'" + name() + "' cannot be taken over while it is in use: " + why +
                                   ". Close it in all processes, then start the node again");
  set_state(DatabaseState::kFenced, busy.message());
  return busy;
}

Error Database::not_live_yet(const Error& why) {
  Error busy(ErrorCode::kBusy, "'" + name() + "' is in use so that it cannot be taken over at once: " + why.message());
  set_state(DatabaseState::kFenced, busy.message());
  return busy;
}

// Whether control, page sums and log are what the dead host had, and it was not about to replace whole files.
Status Database::check_live(bool replica) {
  const ControlState& state = control_->state();
  if (TRY(env_.files.exists(paths_.copying()))) return not_live("a copy was on its way into it");
  const bool planned = state.planned_kind != PlannedKind::kNone;
  if (planned && !replica) return not_live("its files were just being replaced");
  const bool log_ahead = log_->last() && !(log_->last()->position == state.current.position);
  if (state.current.size_pages == 0 && !log_ahead && !planned) return {};
  if (!control_->existed()) return not_live("its control file " + paths_.control() + " was lost");
  if (state.boot != boot_hash_) return not_live("it was last used before this start of the machine");
  if ((state.applied_last != 0) != replica) return not_live("the node was in the other role");
  if (sums_->found_pages() < state.current.size_pages) return not_live("its page sums " + paths_.sums() + " were lost");
  return {};
}

Result<bool> Database::is_open_elsewhere() {
  std::unique_ptr<File> shm = TRY(env_.files.open_if_there(paths_.shm(), OpenMode::kReadOnly));
  if (shm && TRY(shm->is_locked(kDmsByte, 1))) return true;
  for (const std::string& path : {paths_.database(), paths_.wal(), paths_.journal()}) {
    std::unique_ptr<File> file = TRY(env_.files.open_if_there(path, OpenMode::kReadOnly));
    if (file && !file->check_no_writers().ok()) return true;
  }
  return false;
}

// ---- primary ----

Status Database::start_live_primary(Epoch epoch) {
  MutexLock lock(mutex_);
  TRY(not_stopped());
  if (started_) return {};
  is_replica_ = false;
  behind_log_ = false;
  start_epoch_ = epoch;
  TRY(check_live(false));
  epoch_ = last_epoch();
  if (!TRY(sums_follow_log())) return not_live("its change log does not continue the state of its control file");
  started_ = true;
  set_state(DatabaseState::kReady, "");
  const Status tail = take_over_tail();
  const Status journal = take_over_journal();
  if (Status stopped = not_stopped(); !stopped.ok()) {
    started_ = false;
    return stopped;
  }
  // What could not be captured now is tried again with the next drain, or the next end of a transaction; so is an index
  // without a valid header, whose next user recovers it.
  for (const Status& taken : {tail, journal}) {
    if (!taken.ok()) env_.log.warning("not all captured at the start").kv("database", name()).error(taken.error());
  }
  epoch_ = epoch;
  env_.log.info("database taken over")
      .kv("database", name())
      .kv("position", position_text(control_->state().current.position));
  publish_status();
  return {};
}

Status Database::take_over_tail() {
  // What SQLite has synced of the transactions to come it may have synced already.
  application_syncs_ = true;
  TRY(tail_->refresh());
  ControlPoint point = control_->state().current;
  if (!(point.anchor == WalAnchor()) && !TRY(env_.files.exists(paths_.wal()))) {
    // Unlinked, behind a drain.
    point.anchor = WalAnchor();
    advance(point);
  }
  tail_->set_anchor(point.anchor);
  TRY(find_index_user());
  Status drained = drain_committed();
  if (index_may_be_in_use_) return drained;
  // Who has come meanwhile has asked nobody.
  TRY(tail_->refresh());
  TRY(find_index_user());
  return index_may_be_in_use_ ? drain_committed() : drained;
}

Status Database::find_index_user() {
  tail_->set_last_index(std::nullopt);
  std::unique_ptr<File> shm = TRY(env_.files.open_if_there(paths_.shm(), OpenMode::kReadOnly));
  const bool used = shm && TRY(shm->is_locked(kDmsByte, 1));
  if (used) ++index_opens_;
  set_index_in_use(used);
  if (used || !shm) return {};
  // Its users were killed. Who has the WAL open without an index, if anybody, goes on from where its recovery ended.
  if (!open_file().ok() || TRY(file_->is_locked(kPendingByte, kSharedFirst + kSharedSize - kPendingByte))) return {};
  uint8_t bytes[2 * kWalIndexHeaderBytes];
  if (TRY(shm->read_at(0, bytes)) == sizeof bytes) tail_->set_last_index(WalIndexHeader::parse(bytes));
  return {};
}

// Where an index is in use: what is published. Else as a reader drains: the last commit of the chain may be refused by
// its sync for a while.
Status Database::drain_committed() {
  const int64_t give_up_ns = env_.clock.monotonic_ns() + kHeldCommitMaxNs;
  for (;;) {
    Result<bool> drained = drain_with({.patient = true, .chain_end = ChainEnd::kUnknown, .syncing = wal_syncs_ > 0});
    if (!drained.ok()) return drained.error();
    if (!tail_->holds_commit() || env_.clock.monotonic_ns() >= give_up_ns) break;
    sleep_us(kHeldPauseUs);
  }
  tail_->set_last_index(std::nullopt);
  return {};
}

Result<bool> Database::journal_is_hot_now() { return journal_is_hot(env_.files, paths_.journal()); }

Status Database::take_over_journal() {
  set_writes_unseen(true);
  transaction_synced_ = true;  // as far as we know
  if (control_->state().journal_stamp != 0) compare_all_ = true;
  note_journal(0);
  journal_active_ = TRY(journal_is_hot_now());
  return capture_at_rest();
}

// By the promise there is nothing to capture now. A file that is not as it was noted shows that somebody has not kept
// it, or that the host died behind the log's record: then all pages are compared, now or at the next end of a
// transaction.
Status Database::capture_at_rest() {
  Result<FileInfo> there = env_.files.info(paths_.database());
  if (!there.ok() || there.value().size_bytes == 0 || in_wal_mode() || at_rest_as_noted()) return {};
  compare_all_ = true;
  if (journal_active_) return {};
  std::unique_ptr<LockDoor> door = TRY(env_.lock_doors.open(name()));
  Result<HeldLock> shared = take_shared(*door);
  if (!shared.ok()) return shared.error().code() == ErrorCode::kBusy ? Status() : shared.error();
  // Nobody writes the file now, and a journal that is hot is a dead writer's.
  journal_active_ = TRY(journal_is_hot_now());
  if (journal_active_) return {};
  if (!in_rollback_mode()) {
    compare_all_ = false;
    return {};
  }
  begin_batch();
  return forget_batch(capture_file_locked());
}

// ---- replica ----

Status Database::start_live_replica() {
  MutexLock lock(mutex_);
  TRY(not_stopped());
  if (started_) return {};
  is_replica_ = true;
  behind_log_ = false;
  TRY(check_live(true));
  const ControlState& state = control_->state();
  if (log_->last() && !(log_->last()->position == state.current.position) &&
      !log_->read_after(state.current.position).ok()) {
    return not_live("its change log does not continue the state of its control file");
  }
  Status taken = finish_file_change();
  if (taken.ok()) taken = SnapshotLoad::remove_files(env_.files, paths_.load());
  if (taken.ok() && state.current.size_pages != 0) taken = take_over_writer();
  if (!taken.ok()) {
    writer_.reset();
    attached_ = false;
    const ErrorCode code = taken.error().code();
    const bool for_good = code == ErrorCode::kDiverged || code == ErrorCode::kCorrupt || code == ErrorCode::kInvalid;
    return for_good ? not_live(taken.error().message()) : not_live_yet(taken.error());
  }
  if (Result<FileInfo> there = env_.files.info(paths_.database());
      state.current.size_pages == 0 && there.ok() && S_ISREG(there.value().mode) && there.value().size_bytes != 0) {
    return not_live("there is a file of this name that is not the node's");
  }
  tail_->forget();
  file_.reset();
  started_ = true;
  epoch_ = state.current.position.epoch;
  publish_status();
  env_.log.info("database taken over").kv("database", name()).kv("position", position_text(state.current.position));
  Status caught_up = catch_up();
  if (caught_up.ok()) {
    set_state(DatabaseState::kReady, "");
  } else {
    set_state(DatabaseState::kOpening, caught_up.error().message());
  }
  return {};
}

// A replacement or removal of the database's file goes on as its host would have gone on with it: connections on the
// old file get an error at their next statement.
Status Database::finish_file_change() {
  const ControlState state = control_->state();
  if (state.planned_kind == PlannedKind::kRemove) return remove_files(state.planned.position);
  if (state.planned_kind != PlannedKind::kRename) return {};
  if (TRY(env_.files.exists(paths_.load()))) {
    // It was whole and synced before it was planned.
    Result<FileInfo> like = env_.files.info(paths_.database());
    TRY(remove_companions());
    TRY(put_file_in_place(like.ok() ? &like.value() : nullptr));
  }
  writer_ = TRY(open_writer(state.planned_page_size));
  TRY(position_by_content(state.planned_page_size, {state.planned}));
  env_.observer.file_created(name());
  use_writer();
  return {};
}

// Becomes the WAL's writer, and finds out which state is the published one.
Status Database::take_over_writer() {
  if (writer_) return {};
  const ControlState state = control_->state();
  writer_ = TRY(open_writer(state.page_size));
  const WalAnchor end = writer_->end();
  const bool planned = state.planned_kind != PlannedKind::kNone;
  // A generation that has no commit yet leaves the file as the one before it. Who else may have begun one (a checkpoint
  // with TRUNCATE) is only known to have done so after the last commit that control knows of.
  const bool begun = end.frame == 0 && (!planned || end.salts == state.planned.anchor.salts);
  const bool published = state.planned_kind == PlannedKind::kWal && end == state.planned.anchor;
  const bool known = published ? TRY(follow_planned()) : end == state.current.anchor || begun;
  if (!known) TRY(position_by_content(state.page_size, {state.current, state.planned}));
  use_writer();
  return {};
}

// The planned transaction has been published: enters its records' sums. False: the log does not have them.
Result<bool> Database::follow_planned() {
  const ControlState state = control_->state();
  Result<std::unique_ptr<LogCursor>> cursor = log_->read_after(state.current.position);
  if (!cursor.ok()) return false;
  Position at = state.current.position;
  while (!(at == state.planned.position) && TRY(cursor.value()->next())) {
    RecordReader reader = TRY(RecordReader::open(cursor.value()->record()));
    TRY(sums_take(reader));
    at = cursor.value()->info().position;
  }
  if (!(at == state.planned.position)) return false;
  advance(state.planned);
  return true;
}

// Hashes what the database holds, whose only writer we are: it is one of the states that it may be in.
Status Database::position_by_content(uint32_t page_size, const std::vector<ControlPoint>& states) {
  const Pgno size_pages = writer_->size_pages();
  std::vector<Checksum> hashes;
  Checksum sum;
  Bytes page(page_size);
  for (Pgno pgno = 1; pgno <= size_pages; ++pgno) {
    Checksum hash;
    if (pgno != lock_page(page_size)) {
      TRY(writer_->read_page(pgno, page));
      if (pgno == 1) mask_local_bytes(page);
      hash = page_hash(pgno, page);
    }
    sum ^= hash;
    hashes.push_back(hash);
  }
  for (const ControlPoint& found : states) {
    if (found.position.checksum != sum || found.size_pages != size_pages) continue;
    TRY(sums_->reserve(size_pages));
    for (Pgno pgno = 1; pgno <= size_pages; ++pgno) sums_->set(pgno, hashes[pgno - 1]);
    sums_->shrink(size_pages);
    ControlState state = control_->state();
    // What was planned as a copy is in no log, and is another database.
    const bool copied = state.planned_kind == PlannedKind::kLoad || state.planned_kind == PlannedKind::kRename;
    if (copied && found == state.planned) {
      if (state.planned_kind == PlannedKind::kLoad) TRY(clear_log());
      state.id = state.planned_id;
      control_->store(state);
    }
    advance(found, page_size);
    return {};
  }
  return Error(ErrorCode::kDiverged, "its files are in no state that the node knows");
}

}  // namespace litefs
