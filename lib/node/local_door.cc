#include "node/local_door.h"

#include "env/file.h"
#include "sqlite/locks.h"

namespace litefs {
namespace {

// A replica's database that is on its way is waited for.
constexpr std::chrono::milliseconds kReadableMax{10'000};

}  // namespace

Result<std::shared_ptr<Database>> LocalDoor::database() {
  {
    MutexLock lock(mutex_);
    if (database_) return database_;
  }
  std::shared_ptr<Database> found = node_.node().store().find(name_);
  if (!found) return Error(ErrorCode::kNotFound, "there is no such database");
  return found;
}

std::shared_ptr<CommitSignal> LocalDoor::signal() {
  MutexLock lock(mutex_);
  return signal_;
}

void LocalDoor::tell_commit(const std::shared_ptr<Database>& database) {
  if (std::shared_ptr<CommitSignal> signal = this->signal()) {
    signal->committed();
  } else {
    node_.node().follow_tail(database);
  }
}

Status LocalDoor::may_write() {
  if (!is_primary()) return read_only();
  std::shared_ptr<Database> database = TRY(this->database());
  if (database->state() != DatabaseState::kStopped) return {};
  return Error(ErrorCode::kIo, "it is stopped: " + database->info().detail);
}

Error LocalDoor::read_only() { return node_.read_only(); }

// ---- opening ----

Status LocalDoor::open(bool create) {
  std::shared_ptr<Database> database;
  if (is_primary()) {
    TRY(may_open_on_primary(create));
    database = node_.node().store().find(name_);
  } else {
    Result<std::shared_ptr<Database>> readable = node_.wait_readable(name_, kReadableMax);
    if (!readable.ok()) {
      const bool makes = create && readable.error().code() == ErrorCode::kNotFound;
      return makes ? readable.error().with_context(read_only().message()) : readable.error();
    }
    database = readable.value();
  }
  if (who_ == For::kGuest && is_primary()) {
    database->set_writes_unseen(true);
    node_.node().watch_commits(database);
  }
  MutexLock lock(mutex_);
  if (!signal_ && is_primary() && who_ == For::kThisProcess) signal_ = node_.node().commit_signal(database);
  database_ = std::move(database);
  return {};
}

Status LocalDoor::may_open_on_primary(bool create) {
  Node& node = node_.node();
  if (node.store().is_foreign(name_)) return Error(ErrorCode::kInvalid, "it is no SQLite database");
  std::shared_ptr<Database> database = node.store().find(name_);
  if (create && (!database || database->state() == DatabaseState::kOpening)) {
    TRY(node_.files().make_directories(directory_of(node_.root() + "/" + name_)));
    database = TRY(node.create_database(name_));
  }
  if (!database) return Error(ErrorCode::kNotFound, "there is no such database");
  const DatabaseInfo info = database->info();
  if (info.state == DatabaseState::kReady) return {};
  const ErrorCode code = info.state == DatabaseState::kStopped ? ErrorCode::kIo : ErrorCode::kBusy;
  return Error(code, std::string("it is ") + database_state_name(info.state) + ": " + info.detail);
}

// ---- the WAL and its index ----

// Who opens -wal while nobody uses the index either begins to use it afterwards or never does (locking_mode=EXCLUSIVE).
Status LocalDoor::wal_opened() {
  if (!is_primary()) return {};
  std::shared_ptr<Database> database = TRY(this->database());
  const uint64_t opens = database->index_opens();
  if (!TRY(node_.index_in_use(name_))) database->note_index_unused(opens);
  TRY(database->tail_opened(false));
  tell_commit(database);  // a recovery may find more than was captured
  return {};
}

Status LocalDoor::index_mapped() { return is_primary() ? TRY(database())->tail_opened(true) : Status(); }

Status LocalDoor::index_unmapped() {
  if (!is_primary()) return {};
  std::shared_ptr<Database> database = TRY(this->database());
  const uint64_t opens = database->index_opens();
  if (!TRY(node_.index_in_use(name_))) database->index_unused(opens);
  return {};
}

Status LocalDoor::before_index_unlink() { return is_primary() ? TRY(database())->drain(true) : Status(); }

void LocalDoor::write_unlocked() {
  write_locked_ = false;
  if (!is_primary()) return;
  if (std::shared_ptr<CommitSignal> signal = this->signal()) signal->committed();
}

// Under locking_mode=EXCLUSIVE SQLite asks for no lock, so that nothing tells when the commit that these bytes belong
// to is published: it is looked for for a while.
void LocalDoor::commit_frame_written() {
  if (write_locked_ || !is_primary()) return;
  Result<std::shared_ptr<Database>> database = this->database();
  if (database.ok()) node_.node().follow_tail(database.value());
}

// ---- changing ----

Result<bool> LocalDoor::before_write(FileKind kind, uint64_t offset_bytes, ByteView data) {
  if (!is_primary()) return false;
  if (kind == FileKind::kJournal) TRY(TRY(database())->before_journal_write(offset_bytes, data));
  if (kind == FileKind::kDatabase) TRY(TRY(database())->before_database_write(offset_bytes, data));
  return false;
}

Result<bool> LocalDoor::before_resize(FileKind kind, uint64_t size_bytes) {
  if (!is_primary()) return false;
  switch (kind) {
    case FileKind::kDatabase: TRY(TRY(database())->before_database_resize(size_bytes)); break;
    case FileKind::kWal: TRY(TRY(database())->drain(true)); break;
    case FileKind::kJournal:
      if (size_bytes == 0) TRY(TRY(database())->capture_file());
      break;
    case FileKind::kShm:
    case FileKind::kSuperJournal: break;
  }
  return false;
}

void LocalDoor::resized(FileKind kind, uint64_t size_bytes) {
  if (!is_primary() || kind != FileKind::kJournal || size_bytes != 0) return;
  Result<std::shared_ptr<Database>> database = this->database();
  if (database.ok()) database.value()->journal_cut();
}

Result<bool> LocalDoor::before_sync(FileKind kind) {
  if (!is_primary() || kind == FileKind::kSuperJournal) return false;
  std::shared_ptr<Database> database = TRY(this->database());
  database->note_application_sync();
  if (kind == FileKind::kWal) database->wal_sync_begins();
  if (kind == FileKind::kDatabase) TRY(database->before_database_sync());
  return false;
}

void LocalDoor::synced(FileKind kind, const Status& synced) {
  if (!is_primary() || kind != FileKind::kWal) return;
  Result<std::shared_ptr<Database>> database = this->database();
  if (database.ok()) database.value()->wal_sync_ended(synced);
}

Result<bool> LocalDoor::before_unlink(const FileName& file, bool sync) {
  if (!is_primary()) return read_only();
  TRY(ask_before_unlink(file, sync));
  return false;
}

Status LocalDoor::ask_before_unlink(const FileName& file, bool sync) {
  switch (file.kind) {
    case FileKind::kJournal: {
      const auto log_sync = sync ? Database::SyncLog::kNow : Database::SyncLog::kLater;
      return TRY(database())->capture_file(log_sync);
    }
    case FileKind::kWal: return TRY(database())->before_wal_unlink();
    case FileKind::kSuperJournal: return node_.node().store().capture_group(file.text());
    case FileKind::kDatabase:
    case FileKind::kShm: return Error(ErrorCode::kReadOnly, "SQLite does not remove it");
  }
  return {};
}

void LocalDoor::unlinked(FileKind kind) {
  Result<std::shared_ptr<Database>> database = this->database();
  if (!database.ok()) return;
  if (kind == FileKind::kJournal) database.value()->journal_unlinked();
  if (kind == FileKind::kWal) database.value()->tail_unlinked();
}

}  // namespace litefs
