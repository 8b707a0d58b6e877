#include "fuse/database_hooks.h"

namespace litefs {
namespace {

constexpr auto kNotificationMax = std::chrono::seconds(5);
// The same refusal within this time is logged once.
constexpr auto kSameRefusal = std::chrono::seconds(1);
constexpr const char* kPrimaryFile = ".primary";
constexpr const char* kLagFile = ".lag";
constexpr const char* kPositionSuffix = "-pos";

std::string database_of_position_file(const std::string& name) {
  return name.substr(0, name.size() - std::string(kPositionSuffix).size());
}

// What a stopped database had before says nothing of what its files hold.
bool has_position(Database& database) {
  const DatabaseInfo info = database.info();
  return info.size_pages != 0 && info.state != DatabaseState::kStopped;
}

}  // namespace

DatabaseHooks::DatabaseHooks(Node& node, const Log& log)
    : node_(node), log_(log), copies_(node, log, [this](const Opening& opening, CopiesIn::Done done) {
        open_on_primary(opening, std::move(done));
      }) {}

bool DatabaseHooks::replica_is_read_only() const {
  switch (node_.options().fuse_replica_open) {
    case ReplicaOpen::kReadOnly: return true;
    case ReplicaOpen::kWritable: return false;
    case ReplicaOpen::kAuto: break;
  }
  return !node_.options().candidate;
}

// Logs what an application is refused, as all it sees is an errno.
Status DatabaseHooks::refused(const FileName& file, Status status) {
  if (status.ok()) return status;
  {
    // SQLite asks three times, for writing, for reading, and to say what is wrong.
    const std::string what = file.text() + ": " + status.error().message();
    const auto now = std::chrono::steady_clock::now();
    MutexLock lock(mutex_);
    const bool again = what == last_refusal_ && now - last_refused_ < kSameRefusal;
    last_refusal_ = what;
    last_refused_ = now;
    if (again) return status;
  }
  log_.warning("request refused").kv("file", file.text()).error(status.error());
  return status;
}

// ---- opening ----

void DatabaseHooks::before_open(const Opening& opening, std::function<void(Status)> done) {
  if (node_.is_primary()) {
    open_on_primary(opening, std::move(done));
  } else {
    open_on_replica(opening, std::move(done));
  }
}

void DatabaseHooks::open_on_primary(const Opening& opening, std::function<void(Status)> done) {
  if (opening.file.kind == FileKind::kDatabase) {
    if (copies_.before_open(opening, done)) return;
  } else if (opening.write_only) {
    // SQLite opens everything that it writes for reading, too. A file that goes past it could be half of anything.
    Error error(ErrorCode::kReadOnly,
                "only SQLite may write it; to bring in a database with its -wal or -journal use 'litefs import'");
    return done(refused(opening.file, error));
  }
  Status allowed = refused(opening.file, may_open_on_primary(opening));
  const bool begins_wal = opening.file.kind == FileKind::kWal && opening.write;
  if (!allowed.ok() || !begins_wal) return done(allowed);
  open_wal_on_primary(opening, std::move(done));
}

Status DatabaseHooks::may_open_on_primary(const Opening& opening) {
  const std::string& name = opening.file.database;
  std::shared_ptr<Database> database = node_.store().find(name);
  if (opening.file.kind == FileKind::kDatabase && opening.create) {
    if (!database || database->info().state == DatabaseState::kOpening) TRY(node_.create_database(name));
    database = node_.store().find(name);
  }
  if (!database) return Error(ErrorCode::kNotFound, "no database '" + name + "'");
  DatabaseInfo info = database->info();
  if (info.state == DatabaseState::kStopped) return Error(ErrorCode::kIo, "'" + name + "' is stopped: " + info.detail);
  if (info.state == DatabaseState::kReady) return {};
  return Error(ErrorCode::kBusy,
               "'" + name + "' is " + std::string(database_state_name(info.state)) + ": " + info.detail);
}

// Who opens -wal under locking_mode=EXCLUSIVE uses no wal-index. The one that was in use may be a killed process's: the
// kernel tells of its end only some time later, and until then it would be taken for everybody's.
void DatabaseHooks::open_wal_on_primary(const Opening& opening, std::function<void(Status)> done) {
  std::shared_ptr<Database> database = node_.store().find(opening.file.database);
  Mount* mount = mount_;
  if (!database || !mount || !database->index_may_be_in_use()) return done({});
  const uint64_t opens = database->index_opens();
  if (opening.create) {
    // The index of a WAL that is gone. (And the mount must not be asked: the kernel has the directory locked.)
    database->note_index_unused(opens);
    return done({});
  }
  auto answered = [database, opens, done](const Result<bool>& used) {
    if (!used.ok()) return done(used.error());
    if (!used.value()) database->note_index_unused(opens);
    done({});
  };
  mount->client().ask_index_in_use(opening.file.database, answered);
}

void DatabaseHooks::open_on_replica(const Opening& opening, std::function<void(Status)> done) {
  const std::string& name = opening.file.database;
  const FileKind kind = opening.file.kind;
  std::shared_ptr<Database> database = node_.store().find(name);
  auto read_only = [&] {
    return Error(ErrorCode::kReadOnly, "this node is a replica; the primary is " + node_.primary_host_name());
  };
  if (kind == FileKind::kJournal || kind == FileKind::kSuperJournal) return done(read_only());
  // Not even where the mode is writable: a plain write would go past SQLite.
  if (opening.write_only) return done(read_only());
  if (kind == FileKind::kDatabase && (opening.create || (opening.write && replica_is_read_only())))
    return done(read_only());
  if (!database) return done(Error(ErrorCode::kNotFound, "no database '" + name + "'"));
  DatabaseInfo info = database->info();
  if (info.state == DatabaseState::kFenced || info.state == DatabaseState::kStopped) {
    return done(Error(info.state == DatabaseState::kFenced ? ErrorCode::kBusy : ErrorCode::kIo,
                      "'" + name + "' is " + database_state_name(info.state) + ": " + info.detail));
  }
  {
    MutexLock lock(mutex_);
    if (!database->attached()) {
      // It can be read as soon as the node is its WAL's writer; the mount answers EBUSY if that takes too long.
      waiting_[name].push_back(std::move(done));
      return;
    }
  }
  done({});
}

void DatabaseHooks::database_changed(const std::string& name) {
  std::shared_ptr<Database> database = node_.store().find(name);
  if (!database) return;
  std::vector<std::function<void(Status)>> ready;
  Status answer;
  {
    MutexLock lock(mutex_);
    auto it = waiting_.find(name);
    if (it == waiting_.end()) return;
    DatabaseState state = database->info().state;
    if (!database->attached() && state != DatabaseState::kStopped && state != DatabaseState::kFenced) return;
    if (!database->attached()) answer = Error(ErrorCode::kBusy, "'" + name + "' is " + database_state_name(state));
    ready = std::move(it->second);
    waiting_.erase(it);
  }
  for (auto& done : ready) done(answer);
}

void DatabaseHooks::opened(const FileName& file, const HowOpened& how) {
  if (file.kind == FileKind::kDatabase) copies_.opened(file.database);
  if (!node_.is_primary() || file.kind == FileKind::kSuperJournal) return;
  std::shared_ptr<Database> database = node_.store().find(file.database);
  if (!database) return;
  if (file.kind == FileKind::kJournal) {
    static_cast<void>(refused(file, database->journal_opened(how.passed_through)).ok());  // logged
    return;
  }
  if (file.kind == FileKind::kDatabase) return database->set_writes_unseen(how.passed_through);
  if (!how.write) return;
  Status attached = file.kind == FileKind::kShm ? database->index_opened() : database->tail_opened(false);
  if (!attached.ok()) log_.error("cannot follow a WAL").kv("database", file.database).error(attached.error());
  node_.follow_tail(std::move(database));
}

void DatabaseHooks::closed(const FileName& file) {
  if (file.kind == FileKind::kDatabase) copies_.closed(file.database);
  if (!node_.is_primary() || (file.kind != FileKind::kShm && file.kind != FileKind::kJournal)) return;
  std::shared_ptr<Database> database = node_.store().find(file.database);
  if (!database) return;
  if (file.kind == FileKind::kJournal) {
    static_cast<void>(refused(file, database->journal_closed()).ok());  // logged
    return;
  }
  database->index_closed();
  // Whoever had it open may have been killed with a commit that it had not published.
  node_.follow_tail(std::move(database));
}

// ---- changing ----

// The database of a request that changes a file of it, or why it may not.
std::shared_ptr<Database> DatabaseHooks::started(const FileName& file, Status* why) {
  std::shared_ptr<Database> database = node_.store().find(file.database);
  if (!database) {
    *why = Error(ErrorCode::kNotFound, "no database '" + file.database + "'");
    return nullptr;
  }
  DatabaseInfo info = database->info();
  if (info.state == DatabaseState::kFenced || info.state == DatabaseState::kOpening) {
    *why =
        Error(ErrorCode::kBusy, "'" + file.database + "' is " + database_state_name(info.state) + ": " + info.detail);
    return nullptr;
  }
  return database;
}

Status DatabaseHooks::before_write(const FileName& file, uint64_t offset_bytes, ByteView data) {
  Status why;
  std::shared_ptr<Database> database = started(file, &why);
  if (!database) return refused(file, why);
  if (!node_.is_primary()) {
    // Only an application's own checkpoint could get here, and a replica's files are passed through.
    return refused(file, Error(ErrorCode::kReadOnly, "this node is a replica"));
  }
  if (file.kind == FileKind::kJournal) return refused(file, database->before_journal_write(offset_bytes, data));
  if (file.kind == FileKind::kDatabase) {
    if (copies_.has(file.database)) return {};
    return refused(file, database->before_database_write(offset_bytes, data));
  }
  return {};
}

Status DatabaseHooks::before_resize(const FileName& file, uint64_t size_bytes) {
  Status why;
  std::shared_ptr<Database> database = started(file, &why);
  if (!database) return refused(file, why);
  if (file.kind == FileKind::kDatabase && size_bytes == 0 && database->exists()) {
    // SQLite never does: a database keeps its first page. An open with O_TRUNC comes here.
    return refused(file, Error(ErrorCode::kReadOnly, "'" + file.database +
                                                         "' is a database, which cannot be emptied or overwritten by a "
                                                         "plain copy: use 'litefs import'"));
  }
  if (copies_.has(file.database)) return {};
  if (!node_.is_primary()) return {};  // SQLite's own business there: an application's checkpoint
  switch (file.kind) {
    case FileKind::kDatabase: return refused(file, database->before_database_resize(size_bytes));
    case FileKind::kWal: return refused(file, database->drain(true));
    case FileKind::kJournal:
      if (size_bytes != 0) return {};
      TRY(refused(file, database->capture_file()));
      database->journal_cut();
      return {};
    case FileKind::kShm: return refused(file, database->index_begins(size_bytes));
    case FileKind::kSuperJournal: return {};
  }
  return {};
}

Status DatabaseHooks::before_sync(const FileName& file) {
  if (!node_.is_primary()) return {};
  std::shared_ptr<Database> database = node_.store().find(file.database);
  if (!database) return {};
  database->note_application_sync();
  if (file.kind == FileKind::kWal) database->wal_sync_begins();
  if (file.kind == FileKind::kJournal) return refused(file, database->before_journal_sync());
  if (file.kind != FileKind::kDatabase) return {};
  return refused(file, database->before_database_sync());
}

void DatabaseHooks::after_sync(const FileName& file, const Status& synced) {
  if (!node_.is_primary() || file.kind != FileKind::kWal) return;
  if (std::shared_ptr<Database> database = node_.store().find(file.database)) database->wal_sync_ended(synced);
}

Status DatabaseHooks::before_unlink(const FileName& file) {
  Status why;
  std::shared_ptr<Database> database = started(file, &why);
  if (!database) return refused(file, why);
  if (!node_.is_primary()) return refused(file, Error(ErrorCode::kReadOnly, "this node is a replica"));
  switch (file.kind) {
    case FileKind::kDatabase: return refused(file, node_.delete_database(*database));
    case FileKind::kWal: return refused(file, database->before_wal_unlink());
    case FileKind::kShm: return refused(file, database->drain(true));
    case FileKind::kJournal: return refused(file, database->capture_file());
    case FileKind::kSuperJournal: return refused(file, node_.store().capture_group(file.text()));
  }
  return {};
}

void DatabaseHooks::after_unlink(const FileName& file) {
  std::shared_ptr<Database> database = node_.store().find(file.database);
  if (!database || !node_.is_primary()) return;
  if (file.kind == FileKind::kWal) database->tail_unlinked();
  if (file.kind == FileKind::kJournal) database->journal_unlinked();
  if (file.kind == FileKind::kDatabase) {
    database->removed();
    copies_.unlinked(file.database);
  }
}

Status DatabaseHooks::may_rename(const Renaming& renaming) {
  if (!node_.is_primary()) return refused(renaming.from, Error(ErrorCode::kReadOnly, "this node is a replica"));
  const std::string& to = renaming.to.database;
  if (renaming.exists) {
    Error exists(ErrorCode::kExists, "'" + to + "' exists: 'litefs import' replaces a database by another");
    return refused(renaming.from, exists);
  }
  return refused(renaming.from, check_database_name(to));
}

Status DatabaseHooks::before_rename(const Renaming& renaming) { return refused(renaming.from, make_renamed(renaming)); }

// Makes the database under its new name, then drops it under the old one: a crash in between leaves both.
Status DatabaseHooks::make_renamed(const Renaming& renaming) {
  Status why;
  std::shared_ptr<Database> from = started(renaming.from, &why);
  if (!from) return why;
  std::shared_ptr<Database> to = TRY(node_.create_database(renaming.to.database));
  if (!from->exists()) return {};  // an empty file
  TRY(from->drain(true));
  TRY(to->adopt_copy_of(from->paths().database()));
  Status dropped = from->drop();
  if (!dropped.ok()) file_created(renaming.to.database);  // both are there now
  return dropped;
}

void DatabaseHooks::after_rename(const Renaming& renaming) {
  if (std::shared_ptr<Database> from = node_.store().find(renaming.from.database)) from->removed();
  if (std::shared_ptr<Database> to = node_.store().find(renaming.to.database)) to->file_replaced();
}

// ---- names ----

Status DatabaseHooks::before_mkdir(const std::string& name) {
  if (!node_.is_primary()) return refused({name}, Error(ErrorCode::kReadOnly, "this node is a replica"));
  return refused({name}, check_database_name(name));
}

Status DatabaseHooks::before_rmdir(const std::string& name) {
  if (!node_.is_primary()) return refused({name}, Error(ErrorCode::kReadOnly, "this node is a replica"));
  return {};
}

bool DatabaseHooks::is_virtual_name(const std::string& name) {
  return name == kPrimaryFile || name == kLagFile || name.ends_with(kPositionSuffix);
}

Result<std::optional<std::string>> DatabaseHooks::virtual_file(const std::string& name) {
  if (name == kPrimaryFile) {
    std::string host = node_.primary_host_name();
    return host.empty() ? std::optional<std::string>() : std::optional<std::string>(host + "\n");
  }
  if (name == kLagFile) {
    std::optional<int64_t> lag_ms = node_.lag_ms();
    return lag_ms ? std::optional<std::string>(std::to_string(*lag_ms) + "\n") : std::optional<std::string>();
  }
  std::shared_ptr<Database> database = node_.store().find(database_of_position_file(name));
  if (!database || !has_position(*database)) return std::optional<std::string>();
  // Who asks right after a commit gets the position of that commit.
  if (node_.is_primary()) TRY(database->drain(false));
  return std::optional<std::string>(position_text(database->position()) + "\n");
}

std::vector<std::string> DatabaseHooks::virtual_names() {
  std::vector<std::string> names;
  if (!node_.primary_host_name().empty()) names.push_back(kPrimaryFile);
  if (node_.lag_ms()) names.push_back(kLagFile);
  for (const std::shared_ptr<Database>& database : node_.store().all()) {
    const std::string& name = database->name();
    if (name.find('/') == std::string::npos && has_position(*database)) names.push_back(name + kPositionSuffix);
  }
  return names;
}

bool DatabaseHooks::is_visible(const FileName& file) { return !node_.store().is_foreign(file.database); }

bool DatabaseHooks::may_pass_through(const FileName& journal) {
  const std::shared_ptr<Database> database = node_.store().find(journal.database);
  return database && node_.is_primary() && database->journal_may_be_unseen();
}

// Until it is ready the node itself recovers or replaces it.
bool DatabaseHooks::is_settled(const FileName& file) {
  const std::shared_ptr<Database> database = node_.store().find(file.database);
  return !database || database->state() == DatabaseState::kReady;
}

// ---- FrontEnd ----

Result<std::unique_ptr<LockDoor>> DatabaseHooks::lock_door(const std::string& name) {
  Mount* mount = mount_;
  if (!mount) return Error(ErrorCode::kBusy, "the mount does not stand yet");
  // The file may have been made or replaced a moment ago, and the kernel may still know the name as missing, or as
  // another file's. Where it cannot be told in time, opening says what is wrong.
  for (const char* suffix : {"", "-shm"}) {
    Status told =
        mount->notifier().invalidate_entry(name + suffix, std::chrono::steady_clock::now() + kNotificationMax);
    if (!told.ok()) log_.warning("the kernel was not told of a file").kv("file", name + suffix).error(told.error());
  }
  return mount->client().lock_door(name);
}

Status DatabaseHooks::file_resized(const std::string& file_name) {
  Mount* mount = mount_;
  if (!mount) return {};
  return mount->notifier().invalidate_attributes(file_name, std::chrono::steady_clock::now() + kNotificationMax);
}

void DatabaseHooks::file_created(const std::string& file_name) {
  Mount* mount = mount_;
  if (!mount) return;
  Status posted = mount->notifier().post(Notifier::Change::kEntry, file_name);
  if (!posted.ok()) log_.warning("the kernel was not told of a file").kv("file", file_name).error(posted.error());
}

void DatabaseHooks::file_removed(const std::string& file_name) { file_created(file_name); }

}  // namespace litefs
