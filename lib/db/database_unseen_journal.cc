// Database on a primary, where the front end sees the writes to the database but not those to its journal, as the mount
// passes a journal through whose end it expects to see as an unlinking.
//
// What is not seen then is an end by zeros in the header (PERSIST, or EXCLUSIVE, set after the journal had been made).
// It is found by the header itself: SQLite syncs the journal after it, or at the latest writes a new header before the
// next transaction touches the database, whose first write is seen. At both moments the file is at rest: it is the
// transaction's outcome. Such an end cannot be refused any more; it is recorded as a WAL's commits are.
//
// Which transaction has begun to write is kept in control, by its journal's header. A death after an end that nobody
// saw is recognised by a journal of another header: then the start compares the whole file (recover_interrupted).
#include "changelog/page_codec.h"
#include "db/database.h"

namespace litefs {
namespace {
// The header without what is filled in as the journal grows: magic and number of records.
constexpr size_t kStampOffset = 12;
}  // namespace

Result<uint64_t> Database::journal_stamp(File& journal) {
  uint8_t bytes[kJournalHeaderBytes];
  const ByteView header(bytes, TRY(journal.read_at(0, bytes)));
  if (header.size() < kJournalHeaderBytes || !journal_is_hot(header)) return uint64_t{0};
  return page_hash(0, header.subspan(kStampOffset)).value | 1;
}

void Database::note_journal(uint64_t stamp) {
  if (control_->state().journal_stamp == stamp) return;
  ControlState state = control_->state();
  state.journal_stamp = stamp;
  control_->store(state);
}

Status Database::journal_opened(bool unseen) {
  Status ended = capture_unseen_end();
  MutexLock lock(mutex_);
  if (!ended.ok()) return ended;  // it is tried again: the journal still tells
  unseen_journal_.reset();
  journal_unseen_ = unseen;
  return {};
}

Status Database::journal_closed() { return journal_opened(false); }

void Database::journal_cut() {
  MutexLock lock(mutex_);
  journal_active_ = false;
  unlinks_journal_ = false;
}

void Database::journal_unlinked() {
  MutexLock lock(mutex_);
  journal_active_ = false;
  journal_unseen_ = false;
  unseen_journal_.reset();
  unlinks_journal_ = true;
}

Status Database::before_journal_sync() {
  if (!journal_unseen_) return {};
  TRY(capture_unseen_end());
  MutexLock lock(mutex_);
  return check_unseen_super();
}

Status Database::check_unseen_super() {
  if (!unseen_journal_) return {};
  return check_super_is_here(TRY(journal_super_name(*unseen_journal_)));
}

Status Database::capture_unseen_end() {
  if (!journal_unseen_) return {};
  MutexLock lock(mutex_);
  if (is_replica_) return {};
  TRY(usable());
  return in_wal_mode() ? Status() : follow_journal();
}

// Where the last transaction seen to write is not in flight any more, the file is as it left it.
Status Database::follow_journal() {
  if (!unseen_journal_) unseen_journal_ = TRY(env_.files.open_if_there(paths_.journal(), OpenMode::kReadOnly));
  const uint64_t stamp = unseen_journal_ ? TRY(journal_stamp(*unseen_journal_)) : 0;
  const uint64_t known = control_->state().journal_stamp;
  if (known != 0 && known != stamp) {
    unlinks_journal_ = false;
    begin_batch();
    TRY(forget_batch(capture_rollback_locked()));
    TRY(end_transaction());
  }
  journal_active_ = stamp != 0;
  note_journal(stamp);
  return {};
}

}  // namespace litefs
