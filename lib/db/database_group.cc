// Database on a primary: a transaction over several databases (ATTACH) in rollback modes.
//
// SQLite commits it by unlinking the super-journal, which each member's journal names. Before that takes effect each
// member's record is written to its log whole but for the entry's envelope, which is written last (change_log.h), and
// then all envelopes are: until then nothing is visible, and an error takes everything back. A death between the
// envelopes leaves some members with the record and others without: the journals are hot then and their super-journal
// is there, so the next start takes the record out of all logs (Store::settle_groups), and the journals roll back.
//
// A member in which nothing changed is not of the group.
#include <algorithm>

#include "db/database.h"
#include "sqlite/journal.h"

namespace litefs {

// The members' mutexes, in the order of names: nobody else holds two.
class Database::Together {
 public:
  struct Member {
    Database* database;
    std::unique_ptr<FileChanges> changes;
  };

  explicit Together(std::vector<std::shared_ptr<Database>> all) NO_THREAD_SAFETY_ANALYSIS : all_(std::move(all)) {
    std::sort(all_.begin(), all_.end(), [](const auto& a, const auto& b) { return a->name() < b->name(); });
    for (const std::shared_ptr<Database>& database : all_) database->mutex_.lock();
  }
  ~Together() NO_THREAD_SAFETY_ANALYSIS {
    for (const std::shared_ptr<Database>& database : all_) database->mutex_.unlock();
  }
  Together(const Together&) = delete;
  Together& operator=(const Together&) = delete;

  Status capture(uint64_t group);

 private:
  Status find_changed();
  Status write_records(uint64_t group);
  Status end_records();

  std::vector<std::shared_ptr<Database>> all_;
  std::vector<Member> changed_;  // in the order of ids
  bool any_ended_ = false;
};

Status Database::Together::find_changed() NO_THREAD_SAFETY_ANALYSIS {
  for (const std::shared_ptr<Database>& database : all_) {
    TRY(database->usable());
    if (database->is_replica_ || database->in_wal_mode()) continue;
    database->begin_batch();
    std::unique_ptr<FileChanges> changes = TRY(database->file_changes());
    if (!changes || !TRY(database->differs(changes->pages))) continue;
    database->give_id();
    changed_.push_back({database.get(), std::move(changes)});
  }
  std::sort(changed_.begin(), changed_.end(), [](const Member& a, const Member& b) NO_THREAD_SAFETY_ANALYSIS {
    return a.database->control_->state().id.value < b.database->control_->state().id.value;
  });
  return {};
}

Status Database::Together::write_records(uint64_t group) NO_THREAD_SAFETY_ANALYSIS {
  std::vector<DatabaseId> ids;
  for (const Member& member : changed_) ids.push_back(member.database->control_->state().id);
  for (Member& member : changed_) {
    member.database->group_ = Group{group, ids};
    Status written = member.database->record_changes(member.changes->pages, WalAnchor());
    if (!written.ok()) return written.error().with_context("'" + member.database->name() + "'");
  }
  return {};
}

Status Database::Together::end_records() NO_THREAD_SAFETY_ANALYSIS {
  for (Member& member : changed_) {
    CHECK(member.database->group_.end.has_value());
    TRY(member.database->log_->commit_large(*member.database->group_.end));
    any_ended_ = true;
  }
  for (Member& member : changed_) {
    member.database->group_ = Group();
    TRY(member.database->settle_batch());
    member.database->note_file_at_rest();
  }
  for (Member& member : changed_) TRY(member.database->end_transaction());
  return {};
}

Status Database::Together::capture(uint64_t group) NO_THREAD_SAFETY_ANALYSIS {
  TRY(find_changed());
  if (changed_.empty()) return {};
  if (changed_.size() == 1) {
    Database& database = *changed_.front().database;
    TRY(database.forget_batch(database.record_file(changed_.front().changes->pages)));
    return database.end_transaction();
  }
  Status captured = write_records(group);
  if (captured.ok()) captured = end_records();
  if (captured.ok()) return captured;
  for (Member& member : changed_) {
    member.database->group_ = Group();
    // Where some have their record and some may not, only a start, which sees what the disk has, can tell.
    static_cast<void>(any_ended_ ? member.database->stop_with(captured.error())
                                 : member.database->forget_batch(captured).error());
  }
  return captured;
}

Status Database::capture_together(std::vector<std::shared_ptr<Database>> members, uint64_t group) {
  return Together(std::move(members)).capture(group);
}

// Whether the captured state and the file are not the same.
Result<bool> Database::differs(NewPages& pages) {
  if (pages.replaces || pages.size_after != batch_.size_pages) return true;
  page_.resize(pages.page_size);
  for (size_t i = 0; i < pages.pgnos.size(); ++i) {
    const Pgno pgno = pages.pgnos[i];
    if (pgno == lock_page(pages.page_size)) continue;
    TRY(pages.read(i, page_));
    if (!read_page_agrees(pgno)) return true;
  }
  return false;
}

// A super-journal that is not here could come and go without our knowing whether its transaction was committed.
Status Database::check_super_journal(uint64_t offset_bytes) {
  std::unique_ptr<File> journal = TRY(env_.files.open_if_there(paths_.journal(), OpenMode::kReadOnly));
  if (!journal) return {};
  return check_super_is_here(TRY(super_name_before(*journal, offset_bytes)));
}

Status Database::check_super_is_here(const std::string& super) {
  if (super.empty() || TRY(find_super_journal(super))) return {};
  return Error(ErrorCode::kInvalid, "a transaction over '" + name() +
                                        "' and databases elsewhere cannot be captured: its super-journal " + super +
                                        " is not on this mount. Open the database here as the main one and attach the "
                                        "others, or commit in each by itself");
}

Result<std::optional<Database::OpenGroup>> Database::open_group() {
  MutexLock lock(mutex_);
  if (!log_ || !log_->last() || control_->state().applied_last) return std::optional<OpenGroup>();
  if (TRY(super_journal()).empty() || TRY(committed_with_others())) return std::optional<OpenGroup>();
  std::unique_ptr<LogCursor> cursor = TRY(last_entry());
  const RecordHeader header = TRY(RecordReader::open(cursor->record())).header();
  if (header.group == 0) return std::optional<OpenGroup>();
  return std::optional<OpenGroup>(OpenGroup{header.group, header.group_members});
}

Result<bool> Database::has_group(uint64_t group) {
  MutexLock lock(mutex_);
  if (!log_) return false;
  if (TRY(super_journal()).empty() || TRY(committed_with_others())) return true;
  // What a death in its recovery may have left behind the record.
  std::optional<Position> oldest = TRY(log_->oldest_before());
  if (!oldest) return false;
  std::unique_ptr<LogCursor> cursor = TRY(log_->read_after(*oldest));
  while (TRY(cursor->next())) {
    if (TRY(RecordReader::open(cursor->record())).header().group == group) return true;
  }
  return false;
}

Status Database::cut_group() {
  MutexLock lock(mutex_);
  const LogEntryInfo last = *log_->last();
  std::unique_ptr<LogCursor> cursor = TRY(last_entry());
  RecordReader reader = TRY(RecordReader::open(cursor->record()));
  ControlState state = control_->state();
  const Position before{last.before_epoch, TxId{last.txid_first.value - 1}, last.before};
  if (!(state.current.position == before)) {
    state.current.position = before;
    if (reader.header().flags & RecordHeader::kCreate) {
      state.current.size_pages = 0;
    } else if (state.current.size_pages == 0) {
      state.current.size_pages = reader.header().size_after;  // control is from before; the content decides
    }
    state.boot = 0;  // the page sums are those of the record: the content decides
    control_->store(state);
  }
  TRY(log_->cut_after(state.current.position));
  env_.log
      .warning("a transaction over several databases that was interrupted before it was in all of them is taken back")
      .kv("database", name())
      .kv("txid", last.position.txid);
  publish_status();
  return {};
}

}  // namespace litefs
