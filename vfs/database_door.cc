#include "vfs/database_door.h"

#include "env/file.h"

namespace litefs {
namespace {

// A replica's database that is on its way is waited for.
constexpr std::chrono::milliseconds kReadableMax{10'000};

}  // namespace

DatabaseDoor::DatabaseDoor(InProcessNode& node, std::string name) : node_(node), name_(std::move(name)) {}

std::shared_ptr<Database> DatabaseDoor::database() {
  MutexLock lock(mutex_);
  return database_ ? database_ : node_.node().store().find(name_);
}

std::shared_ptr<CommitSignal> DatabaseDoor::signal() {
  MutexLock lock(mutex_);
  return signal_;
}

Status DatabaseDoor::may_write() {
  if (!is_primary()) return read_only();
  if (database()->state() != DatabaseState::kStopped) return {};
  return Error(ErrorCode::kIo, "it is stopped: " + database()->info().detail);
}

Error DatabaseDoor::read_only() const {
  const std::string host = node_.node().primary_host_name();
  const std::string url = "http://" + node_.node().options().primary.text();
  return Error(ErrorCode::kReadOnly,
               "this node is a replica; the primary is " + (host.empty() ? url : host + " (" + url + ")"));
}

// ---- opening ----

Status DatabaseDoor::open(bool create) {
  std::shared_ptr<Database> database;
  if (is_primary()) {
    TRY(may_open_on_primary(create));
    database = node_.node().store().find(name_);
  } else {
    Result<std::shared_ptr<Database>> readable = node_.wait_readable(name_, kReadableMax);
    if (!readable.ok()) {
      const bool makes = create && readable.error().code() == ErrorCode::kNotFound;
      return makes ? read_only() : readable.error();
    }
    database = readable.value();
  }
  MutexLock lock(mutex_);
  if (!signal_ && is_primary()) signal_ = node_.node().commit_signal(database);
  database_ = std::move(database);
  return {};
}

Status DatabaseDoor::may_open_on_primary(bool create) {
  Node& node = node_.node();
  if (node.store().is_foreign(name_)) return Error(ErrorCode::kInvalid, "it is no SQLite database");
  std::shared_ptr<Database> database = node.store().find(name_);
  if (create && (!database || database->info().state == DatabaseState::kOpening)) {
    TRY(node_.late_closing().make_directories(directory_of(node_.root() + "/" + name_)));
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
Status DatabaseDoor::wal_opened() {
  if (!is_primary()) return {};
  std::shared_ptr<Database> database = this->database();
  MutexLock lock(index_mutex_);
  if (index_users_ == 0) database->note_index_unused(database->index_opens());
  TRY(database->tail_opened(false));
  signal()->committed();  // a recovery may find more than was captured
  return {};
}

Status DatabaseDoor::index_mapped() {
  if (!is_primary()) return {};
  std::shared_ptr<Database> database = this->database();
  MutexLock lock(index_mutex_);
  TRY(database->tail_opened(true));
  ++index_users_;
  return {};
}

void DatabaseDoor::index_unmapped() {
  if (!is_primary()) return;
  std::shared_ptr<Database> database = this->database();
  MutexLock lock(index_mutex_);
  if (--index_users_ == 0) database->index_closed();
}

Status DatabaseDoor::before_index_unlink() { return is_primary() ? database()->drain(true) : Status(); }

void DatabaseDoor::write_unlocked() {
  write_locked_ = false;
  if (is_primary()) signal()->committed();
}

// Under locking_mode=EXCLUSIVE SQLite asks for no lock, so that nothing tells when the commit that these bytes belong
// to is published: it is looked for for a while.
void DatabaseDoor::commit_frame_written() {
  if (!write_locked_ && is_primary()) node_.node().follow_tail(database());
}

// ---- changing ----

Status DatabaseDoor::before_write(FileKind kind, uint64_t offset_bytes, ByteView data) {
  if (!is_primary()) return {};
  if (kind == FileKind::kJournal) return database()->before_journal_write(offset_bytes, data);
  return kind == FileKind::kDatabase ? database()->before_database_write(offset_bytes, data) : Status();
}

Status DatabaseDoor::before_resize(FileKind kind, uint64_t size_bytes) {
  if (!is_primary()) return {};
  switch (kind) {
    case FileKind::kDatabase: return database()->before_database_resize(size_bytes);
    case FileKind::kWal: return database()->drain(true);
    case FileKind::kJournal: return size_bytes == 0 ? database()->capture_file() : Status();
    case FileKind::kShm:
    case FileKind::kSuperJournal: return {};
  }
  return {};
}

void DatabaseDoor::resized(FileKind kind, uint64_t size_bytes) {
  if (is_primary() && kind == FileKind::kJournal && size_bytes == 0) database()->journal_cut();
}

Status DatabaseDoor::before_sync(FileKind kind) {
  if (!is_primary() || kind == FileKind::kSuperJournal) return {};
  std::shared_ptr<Database> database = this->database();
  database->note_application_sync();
  if (kind == FileKind::kWal) database->wal_sync_begins();
  return kind == FileKind::kDatabase ? database->before_database_sync() : Status();
}

void DatabaseDoor::synced(FileKind kind, const Status& synced) {
  if (is_primary() && kind == FileKind::kWal) database()->wal_sync_ended(synced);
}

Status DatabaseDoor::before_unlink(const FileName& file) {
  if (!is_primary()) return read_only();
  std::shared_ptr<Database> database = this->database();
  if (!database && file.kind != FileKind::kSuperJournal) return Error(ErrorCode::kNotFound, "it is no database's");
  switch (file.kind) {
    case FileKind::kJournal: return database->capture_file();
    case FileKind::kWal: return database->before_wal_unlink();
    case FileKind::kSuperJournal: return node_.node().store().capture_group(file.text());
    case FileKind::kDatabase:
    case FileKind::kShm: return Error(ErrorCode::kReadOnly, "SQLite does not remove it");
  }
  return {};
}

void DatabaseDoor::unlinked(FileKind kind) {
  if (kind == FileKind::kJournal) database()->journal_unlinked();
  if (kind == FileKind::kWal) database()->tail_unlinked();
}

}  // namespace litefs
