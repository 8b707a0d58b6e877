// Database on a primary, where SQLite keeps a rollback journal (DELETE, TRUNCATE, PERSIST; also EXCLUSIVE).
//
// A transaction ends when its journal is made final: unlinked, cut to nothing, or its header zeroed. Before that takes
// effect the pages that it may have changed are compared with the captured state, and what differs is a record. These
// are the pages whose writes we saw; or, where the mount passes the database through, the journaled pages, those beyond
// the old size and the leaves of the old free list: SQLite writes no others (DESIGN section 5). The record is in the
// log, and durable where SQLite synced the transaction, before the journal goes: so the log decides after a crash.
//
// The end of a rolled back transaction is looked at in the same way. It may have left other bytes in free pages, which
// are a transaction then.
#include <algorithm>

#include "db/database.h"
#include "sqlite/free_list.h"
#include "sqlite/header.h"

namespace litefs {
namespace {
constexpr uint64_t kPgnoMax = 0xfffffffe;  // of SQLite
constexpr uint64_t kChangeCounterOffset = 24;
constexpr size_t kManyFreeLeaves = 10000;
}  // namespace

bool Database::in_wal_mode() {
  if (!tail_->has_wal()) return false;
  Result<FileInfo> info = tail_->wal()->info();
  return info.ok() && info.value().size_bytes > kWalHeaderBytes && info.value().links > 0;
}

Status Database::before_journal_write(uint64_t offset_bytes, ByteView data) {
  if (ends_super_name(offset_bytes, data)) return check_super_journal(offset_bytes);
  if (offset_bytes != 0 || data.empty()) return {};
  // Else it is magic and count, as the journal is synced.
  const bool header = data.size() >= kJournalHeaderBytes;
  if (header && !journal_is_begun(data)) {
    // A zeroed header is PERSIST's way to make a transaction final.
    unlinks_journal_ = false;
    TRY(capture_file());
  } else if (header && (journal_active_ || (writes_unseen_ && TRY(journal_is_hot_now())))) {
    // Two writers at once, or one who did not roll back what he found: of the pages of the first the journal tells
    // nothing any more.
    env_.log.warning("a journal was begun over one that was not final").kv("database", name());
    MutexLock lock(mutex_);
    compare_all_ = true;
  }
  journal_active_ = journal_is_hot(data);
  return {};
}

Status Database::before_database_write(uint64_t offset_bytes, ByteView data) {
  MutexLock lock(mutex_);
  TRY(usable());
  if (in_wal_mode()) {
    if (env_.skip_drains) return {};
    Result<bool> drained = drain_locked(true);
    return drained.ok() ? Status() : drained.error();
  }
  if (journal_unseen_) {
    TRY(follow_journal());
    // Its syncs ask for it, where there are any.
    if (!transaction_synced_) TRY(check_unseen_super());
  }
  if (TRY(has_active_journal())) {
    note_written(offset_bytes, data.size());
    return {};
  }
  if (offset_bytes == 0 && !DatabaseHeader::parse(data).ok()) {
    return Error(ErrorCode::kInvalid,
                 "'" + name() + "' would be no SQLite database: only databases live on this mount");
  }
  return Error(ErrorCode::kReadOnly, "'" + name() +
                                         "' is written without a rollback journal (journal_mode MEMORY or OFF, or a "
                                         "plain copy), which cannot be captured");
}

// Where the write that was to make the journal final has failed, after it was seen, the journal is played back.
Result<bool> Database::has_active_journal() {
  if (!journal_active_) journal_active_ = TRY(journal_is_hot_now());
  return journal_active_.load();
}

void Database::note_written(uint64_t offset_bytes, uint64_t size_bytes) {
  const uint32_t page_size = control_->state().page_size;
  if (page_size == 0 || size_bytes == 0) return;  // a new database: all of it is captured
  const uint64_t last = (offset_bytes + size_bytes - 1) / page_size;
  for (uint64_t index = offset_bytes / page_size; index <= last && index < kPgnoMax; ++index) {
    written_.add(static_cast<Pgno>(index + 1));
  }
}

Status Database::before_database_resize(uint64_t size_bytes) {
  {
    MutexLock lock(mutex_);
    TRY(usable());
    if (!in_wal_mode()) {
      if (journal_unseen_) TRY(follow_journal());
      // Truncation follows the commit in rollback modes; the record has the new size already.
      uint64_t captured = static_cast<uint64_t>(control_->state().current.size_pages) * control_->state().page_size;
      if (size_bytes >= captured || TRY(has_active_journal())) return {};
      return Error(ErrorCode::kReadOnly, "'" + name() + "' would be cut below its committed size without a journal");
    }
  }
  TRY(drain(true));
  return compare_unchained(size_bytes);
}

Status Database::before_database_sync() {
  {
    MutexLock lock(mutex_);
    if (journal_active_ && !journal_unseen_ && !in_wal_mode()) return {};  // its end will be asked for
  }
  TRY(drain(true));
  return compare_unchained(std::nullopt);
}

Status Database::capture_file(SyncLog sync) {
  MutexLock lock(mutex_);
  if (is_replica_) return {};
  TRY(usable());
  if (in_wal_mode()) {
    Result<bool> drained = drain_locked(true);
    return drained.ok() ? Status() : drained.error();
  }
  begin_batch();
  Status captured = forget_batch(capture_rollback_locked());
  if (captured.ok()) return end_transaction(sync);
  // A commit is refused and SQLite takes it back. What has been taken back already cannot be refused; the pages that it
  // left different are compared again at the next end of a transaction.
  Result<bool> undone = transaction_undone();
  if (!undone.ok() || !undone.value()) return captured;
  if (writes_unseen_) compare_all_ = true;
  env_.log.warning("the end of a rolled back transaction could not be recorded; later")
      .kv("database", name())
      .error(captured.error());
  return {};
}

Result<std::optional<JournalIndex>> Database::open_journal() {
  std::unique_ptr<File> journal = TRY(env_.files.open_if_there(paths_.journal(), OpenMode::kReadOnly));
  return journal ? JournalIndex::read(std::move(journal)) : std::optional<JournalIndex>();
}

// Whether all journaled pages are as the journal has them.
Result<bool> Database::transaction_undone() {
  std::optional<JournalIndex> journal = TRY(open_journal());
  if (!journal) return true;
  if (!file_) TRY(open_file());
  Bytes original(journal->header().page_size), now(journal->header().page_size);
  for (const auto& [pgno, offset] : journal->places()) {
    TRY(journal->original(pgno, original));
    size_t got = TRY(file_->read_at(static_cast<uint64_t>(pgno - 1) * now.size(), now));
    if (got != now.size() || now != original) return false;
  }
  return true;
}

Status Database::read_file_page(Pgno pgno, MutableByteView page) {
  size_t got = TRY(file_->read_at(static_cast<uint64_t>(pgno - 1) * page.size(), page));
  std::memset(page.data() + got, 0, page.size() - got);
  return {};
}

// The pages that the transaction may have changed.
Status Database::add_unseen_writes(const JournalIndex& journal, Pgno size_after, PageSet& pages) {
  for (const auto& [pgno, offset] : journal.places()) pages.add(pgno);
  for (Pgno pgno = journal.header().original_size + 1; pgno <= size_after; ++pgno) pages.add(pgno);
  size_t leaves = 0;
  auto read_old = [&](Pgno pgno, MutableByteView page) NO_THREAD_SAFETY_ANALYSIS -> Status {
    if (TRY(journal.original(pgno, page))) return {};
    return read_file_page(pgno, page);
  };
  TRY(visit_free_leaves(journal.header().page_size, journal.header().original_size, read_old, [&](Pgno leaf) {
    pages.add(leaf);
    ++leaves;
  }));
  if (leaves > kManyFreeLeaves && !warned_of_leaves_) {
    warned_of_leaves_ = true;
    env_.log
        .warning(
            "each transaction compares all free pages, as the database was opened in WAL mode and is passed "
            "through; close all connections once to end this")
        .kv("database", name())
        .kv("pages", leaves);
  }
  return {};
}

// The log has what the transaction changed.
Status Database::end_transaction(SyncLog sync) {
  written_.clear();
  compare_all_ = false;
  note_journal(0);
  capture_succeeded();
  if (transaction_synced_) TRY(sync == SyncLog::kLater && env_.run_later ? sync_log_later() : sync_log());
  transaction_synced_ = false;
  return {};
}

Status Database::sync_log_later() {
  Result<std::shared_ptr<LogSync>> begun = log_->begin_sync();
  if (!begun.ok()) return stop_with(begun.error());
  if (!begun.value()) return {};
  env_.run_later([database = weak_from_this(), sync = std::move(begun).value()] {
    const Status synced = sync->finish();
    if (synced.ok()) return;
    if (std::shared_ptr<Database> lives = database.lock()) lives->stop_for(synced.error());
  });
  return {};
}

Status Database::capture_rollback_locked() {
  std::unique_ptr<FileChanges> changes = TRY(file_changes());
  return changes ? record_file(changes->pages) : Status();
}

// Each transaction raises the change counter by one; in EXCLUSIVE mode only the first does. One of which we saw no end
// can only be of two writers at once, which SQLite 3.40 does not always prevent in EXCLUSIVE mode.
bool Database::missed_transaction(const DatabaseHeader& header) {
  const uint32_t captured = control_->state().change_counter;
  return captured != 0 && header.change_counter - captured > 1;
}

// Whether the file was written since the last capture while no journal told of it.
bool Database::written_unjournaled() {
  if (!were_writes_unseen_ || is_replica_ || journal_active_ || in_wal_mode()) return false;
  const ControlState& state = control_->state();
  if (state.current.size_pages == 0 || state.clean_mtime_ns == 0 || !in_rollback_mode()) return false;
  if (!at_rest_as_noted()) return true;
  if (!writes_unseen_) were_writes_unseen_ = false;
  if (writes_unseen_) were_writes_unseen_ = true;  // since just now
  return false;
}

Result<bool> Database::capture_unjournaled() {
  {
    MutexLock lock(mutex_);
    TRY(usable());
    if (!written_unjournaled()) return false;
    // Its writer, in another process, is on his way to its end.
    if (TRY(journal_is_hot_now())) return false;
  }
  std::unique_ptr<LockDoor> door = TRY(env_.lock_doors.open(name()));
  // With it nobody writes the file, though somebody may be about to.
  HeldLock shared = TRY(take_shared(*door));
  MutexLock lock(mutex_);
  TRY(usable());
  if (!written_unjournaled()) return false;
  // Of a writer that has died: whoever comes next plays it back, and asks us at its end.
  if (TRY(journal_is_hot_now())) return false;
  const TxId before = control_->state().current.position.txid;
  begin_batch();
  TRY(forget_batch(capture_file_locked()));
  if (control_->state().current.position.txid == before) return false;
  env_.log
      .error(
          "the database was written without a rollback journal (journal_mode MEMORY or OFF): all of it was "
          "compared, and what differs is one transaction")
      .kv("database", name());
  return true;
}

// What a transaction may have changed, as the file has it now; null: there is nothing and was nothing.
Result<std::unique_ptr<Database::FileChanges>> Database::file_changes() {
  const Result<FileInfo> opened = open_file();
  if (!opened.ok()) {
    if (opened.error().code() == ErrorCode::kNotFound) return std::unique_ptr<FileChanges>();
    return opened.error();
  }
  std::optional<DatabaseHeader> header = TRY(read_header());
  // Without a header: the transaction that made the database was recorded, and has been taken back all the same.
  if (!header && batch_.size_pages == 0) return std::unique_ptr<FileChanges>();
  auto changes = std::make_unique<FileChanges>();
  NewPages& pages = changes->pages;
  if (header) {
    pages.page_size = header->page_size;
    pages.size_after = header->effective_size(opened.value().size_bytes);
    pages.replaces = batch_.size_pages == 0 || pages.page_size != control_->state().page_size;
    if (were_writes_unseen_ && !pages.replaces && missed_transaction(*header)) {
      env_.log.warning("a transaction passed unseen; comparing all pages").kv("database", name());
      compare_all_ = true;
    }
  }
  if (header && !pages.replaces && !compare_all_) {
    changes->journal = TRY(open_journal());
    PageSet changed = written_;
    // Also where only somebody before this application wrote so: the journal may be his, of a death.
    if (were_writes_unseen_ && changes->journal) TRY(add_unseen_writes(*changes->journal, pages.size_after, changed));
    // SQLite may write none of the pages by which the database grew (sqlite3PagerDontWrite).
    for (Pgno pgno = batch_.size_pages + 1; pgno <= pages.size_after; ++pgno) changed.add(pgno);
    changed.for_each([&](Pgno pgno) {
      if (pgno <= pages.size_after) pages.pgnos.push_back(pgno);
    });
  } else {
    pages.pgnos.resize(pages.size_after);
    for (Pgno p = 1; p <= pages.size_after; ++p) pages.pgnos[p - 1] = p;
  }
  read_from_file(pages, changes->journal ? &*changes->journal : nullptr);
  return changes;
}

Status Database::capture_file_locked() {
  const Result<FileInfo> opened = open_file();
  if (!opened.ok()) return opened.error().code() == ErrorCode::kNotFound ? Status() : opened.error();
  compare_all_ = true;
  Status captured = capture_rollback_locked();
  if (captured.ok()) compare_all_ = false;
  return captured;
}

// Where the images of these pages, and those before them, come from. The file must be at rest: its writer waits for us,
// or nobody has it open.
void Database::read_from_file(NewPages& pages, const JournalIndex* journal) {
  pages.read = [&](size_t index, MutableByteView out)
                   NO_THREAD_SAFETY_ANALYSIS { return read_file_page(pages.pgnos[index], out); };
  if (!journal) return;
  pages.previous = [this, &pages, journal](Pgno pgno, Checksum expected) NO_THREAD_SAFETY_ANALYSIS -> Result<ByteView> {
    previous_.resize(pages.page_size);
    if (!TRY(journal->original(pgno, previous_))) return ByteView();
    if (pgno == 1) mask_local_bytes(previous_);
    return page_hash(pgno, previous_) == expected ? ByteView(previous_) : ByteView();
  };
}

// Records which of these pages of the file differ from the captured state.
Status Database::record_file(NewPages& pages) {
  TRY(record_changes(pages, WalAnchor()));
  TRY(flush_batch());
  note_file_at_rest();
  return {};
}

// Of file_.
std::optional<uint32_t> Database::read_change_counter() {
  uint8_t counter[4];
  Result<size_t> got = file_->read_at(kChangeCounterOffset, counter);
  if (!got.ok() || got.value() != sizeof counter) return std::nullopt;
  return load_be32(counter);
}

// Remembers what the database file looks like while no transaction and no WAL is pending, so that a later start
// can tell that nobody changed it.
void Database::note_file_at_rest() {
  ControlState state = control_->state();
  Result<FileInfo> info = open_file();
  if (!info.ok()) return;
  state.clean_size_bytes = info.value().size_bytes;
  state.clean_mtime_ns = info.value().mtime_ns;
  std::optional<uint32_t> counter = read_change_counter();
  if (counter && *counter != state.change_counter) {
    state.change_counter_before = state.change_counter;
    state.change_counter = *counter;
  }
  control_->store(state);
}

}  // namespace litefs
