#include "db/database.h"

#include <sys/stat.h>

#include "db/snapshot_load.h"
#include "env/process.h"
#include "sqlite/header.h"

namespace litefs {

const char* database_state_name(DatabaseState state) {
  switch (state) {
    case DatabaseState::kOpening: return "opening";
    case DatabaseState::kFenced: return "fenced";
    case DatabaseState::kReady: return "ready";
    case DatabaseState::kLoading: return "loading";
    case DatabaseState::kStopped: return "stopped";
  }
  return "?";
}

Database::Database(const DatabaseEnvironment& environment, const std::string& name)
    : env_(environment), paths_(environment.data_dir, name), past_(environment.files, paths_.past()) {
  info_.name = name;
  boot_hash_ = boot_hash();
}

Database::~Database() = default;

Result<std::shared_ptr<Database>> Database::open(const DatabaseEnvironment& environment, const std::string& name,
                                                 bool is_new) {
  TRY(check_database_name(name));
  auto database = std::shared_ptr<Database>(new Database(environment, name));
  MutexLock lock(database->mutex_);
  Status opened = database->open_own_files();
  if (!opened.ok() && is_new) {
    database->remove_own_files();
    return opened.error();
  }
  if (!opened.ok()) static_cast<void>(database->stop_with(opened.error()));  // shown, and refuses work
  return database;
}

Status Database::open_own_files() {
  TRY(env_.files.make_directories(paths_.meta()));
  control_ = TRY(Control::open(env_.files, paths_.control()));
  sums_ = TRY(PageSums::open(env_.files, paths_.sums()));
  const ControlState& state = control_->state();
  // What this boot's page cache has is what the process before us wrote.
  std::optional<LogEnd> known_end;
  if (control_->existed() && state.boot == boot_hash_ && state.log_end.offset_bytes != 0) {
    known_end = state.log_end;
  }
  TRY(open_log(known_end));
  TRY(rebuild_control());
  TRY(take_id_from_log());
  tail_ = std::make_unique<WalTail>(env_.files, env_.clock, paths_);
  publish_status();
  return {};
}

// Of a database that could not be made, as far as they have come. What stays is found at the next start.
void Database::remove_own_files() {
  control_.reset();
  sums_.reset();
  log_.reset();
  std::vector<std::string> paths = {paths_.control(), paths_.sums(), paths_.log(), paths_.meta()};
  if (Result<std::vector<std::string>> segments = env_.files.list(paths_.log()); segments.ok()) {
    for (const std::string& segment : segments.value()) paths.insert(paths.begin(), paths_.log() + "/" + segment);
  }
  for (const std::string& path : paths) static_cast<void>(env_.files.remove_if_there(path).ok());
}

uint64_t Database::boot_hash() { return page_hash(0, as_bytes(env_.clock.boot_id())).value; }

DatabaseInfo Database::info() {
  MutexLock lock(status_mutex_);
  return info_;
}

DatabaseState Database::state() {
  MutexLock lock(status_mutex_);
  return info_.state;
}

Position Database::position() { return info().position; }
DatabaseId Database::id() { return info().id; }
bool Database::exists() { return info().size_pages != 0; }

void Database::publish_status() {
  const ControlState& state = control_->state();
  std::optional<LogEntryInfo> last = log_->last();
  MutexLock lock(status_mutex_);
  info_.id = state.id;
  info_.received = last ? last->position : state.current.position;
  info_.page_size = state.page_size;
  info_.size_pages = state.current.size_pages;
  info_.position = state.current.position;
  info_.log_bytes = log_->size_bytes();
}

void Database::set_state(DatabaseState state, const std::string& detail) {
  {
    MutexLock lock(status_mutex_);
    if (info_.state == DatabaseState::kStopped) return;  // until it is opened anew
    if (info_.state == state && info_.detail == detail) return;
    info_.state = state;
    info_.detail = detail;
  }
  env_.observer.changed(name());
}

void Database::set_progress(uint64_t bytes, uint64_t total_bytes) {
  MutexLock lock(status_mutex_);
  if (info_.progress_total_bytes == 0) info_.progress_started_ns = env_.clock.monotonic_ns();
  info_.progress_bytes = bytes;
  info_.progress_total_bytes = total_bytes;
}

void Database::advance(const ControlPoint& point, uint32_t page_size) {
  ControlState state = control_->state();
  if (page_size != 0) state.page_size = page_size;
  state.current = point;
  state.planned_kind = PlannedKind::kNone;
  state.log_end = log_->end();
  state.boot = boot_hash_;
  state.applied_last = is_replica_ || behind_log_;
  state.clean_mtime_ns = 0;
  control_->store(state);
  publish_status();
  env_.observer.moved(name());
}

Status Database::not_stopped() {
  MutexLock lock(status_mutex_);
  if (info_.state != DatabaseState::kStopped) return {};
  return Error(ErrorCode::kIo, "database " + paths_.name() + " is stopped: " + info_.detail);
}

Status Database::usable() {
  TRY(not_stopped());
  if (!started_) return Error(ErrorCode::kBusy, "database " + paths_.name() + " is not open yet");
  return {};
}

Error Database::stop_with(Error error) {
  const char* what = started_
                         ? "database stopped; starting the node again recovers it"
                         : "database stopped: it cannot be opened; put its files right and start the node again, or "
                           "delete it on the primary's mount";
  env_.log.error(what).kv("database", name()).error(error).kv("file", paths_.database()).kv("own_files", paths_.meta());
  set_state(DatabaseState::kStopped, error.message());
  return error;
}

void Database::stop_for(const Error& why) {
  MutexLock lock(mutex_);
  static_cast<void>(stop_with(why));
}

void Database::show_trouble(const std::string& text) {
  {
    MutexLock lock(status_mutex_);
    if (info_.state == DatabaseState::kStopped || info_.detail == text) return;
    info_.detail = text;
  }
  env_.observer.changed(name());
}

Status Database::check_room(uint64_t size_bytes) {
  std::unique_ptr<File> file = TRY(env_.files.open(paths_.room(), OpenMode::kCreate));
  Status allocated = file->allocate(0, size_bytes);
  TRY(env_.files.remove(paths_.room()));
  return allocated;
}

// Answers what is there under the name now.
Result<FileInfo> Database::open_file() {
  Result<FileInfo> there = env_.files.info(paths_.database());
  if (!there.ok()) {
    file_.reset();
    return there;
  }
  if (!S_ISREG(there.value().mode)) {
    // Databases live in a directory of the name that this one had.
    file_.reset();
    return Error(ErrorCode::kNotFound, paths_.database() + " is no file");
  }
  if (file_ && file_at_open_.is_same_file(there.value())) return there;
  file_.reset();
  std::unique_ptr<File> file = TRY(env_.files.open(paths_.database(), OpenMode::kReadOnly));
  file_at_open_ = TRY(file->info());
  file_ = std::move(file);
  return file_at_open_;
}

// Reads the newest image of a page that is captured (primary) or applied (replica), with local bytes as they are.
// False: the database has no bytes there.
Result<bool> Database::read_current_page(Pgno pgno, MutableByteView page) {
  if (writer_) {
    TRY(writer_->read_page(pgno, page));
    return true;
  }
  if (tail_->has_wal() && TRY(tail_->read_delivered(pgno, page))) return true;
  if (!file_) return false;
  size_t n = TRY(file_->read_at(static_cast<uint64_t>(pgno - 1) * page.size(), page));
  return n == page.size();
}

std::vector<ProcessName> Database::left_over() {
  if (!env_.left_over) return {};
  return env_.left_over({name(), name() + "-wal", name() + "-shm", name() + "-journal"});
}

Error Database::held_by(const std::vector<ProcessName>& holders, const std::string& otherwise) {
  Error busy(ErrorCode::kBusy,
             holders.empty() ? otherwise : "open since before this start in " + process_list_text(holders));
  set_state(DatabaseState::kFenced, busy.message());
  return busy;
}

Status Database::fence() {
  MutexLock lock(mutex_);
  TRY(not_stopped());
  if (fenced_off_ || started_) return {};
  Result<std::unique_ptr<File>> shm = env_.files.open(paths_.shm(), OpenMode::kReadWrite);
  if (shm.ok()) {
    // Whoever still maps this index cannot start another statement. A writer in the middle of one may publish
    // over it, which is why the whole fence is tried again until nobody is left.
    std::optional<WalIndexHeader> index = TRY(poison_wal_index(*shm.value()));
    if (index) tail_->set_last_index(index);
  } else if (shm.error().code() != ErrorCode::kNotFound) {
    return shm.error();
  }
  for (const std::string& path : {paths_.database(), paths_.wal(), paths_.journal()}) {
    Result<FileInfo> info = env_.files.info(path);
    if (info.ok() && !S_ISREG(info.value().mode)) continue;
    Result<std::unique_ptr<File>> file = env_.files.open(path, OpenMode::kReadOnly);
    if (!file.ok()) {
      if (file.error().code() == ErrorCode::kNotFound) continue;
      return file.error();
    }
    Status free = file.value()->check_no_writers();
    if (free.ok()) continue;
    if (free.error().code() == ErrorCode::kUnsupported) {
      env_.log.warning("cannot tell whether old processes still write this database").error(free.error());
      continue;
    }
    return held_by(left_over(), free.error().message());
  }
  if (std::vector<ProcessName> holders = left_over(); !holders.empty()) return held_by(holders, "");
  if (shm.ok()) {
    TRY(env_.files.remove(paths_.shm()));
    env_.observer.file_removed(name() + "-shm");
  }
  fenced_off_ = true;
  set_state(DatabaseState::kOpening, "");
  return {};
}

Status Database::stop() {
  MutexLock lock(mutex_);
  if (!started_) return {};
  if (load_) abort_load_locked();
  if (!is_replica_) {
    Result<bool> drained = drain_locked(true);
    if (!drained.ok()) env_.log.warning("last drain failed").kv("database", name()).error(drained.error());
  } else if (writer_) {
    Result<CheckpointOutcome> done = writer_->checkpoint(true);
    if (!done.ok()) env_.log.debug("no checkpoint at stop").kv("database", name()).error(done.error());
    writer_.reset();
    attached_ = false;
  }
  TRY(log_->sync());
  const bool unjournaled = written_unjournaled();
  note_file_at_rest();
  ControlState state = control_->state();
  if (unjournaled) state.clean_mtime_ns = 0;  // so that the next start compares
  state.log_end = log_->end();
  control_->store(state);
  TRY(sums_->sync());
  TRY(control_->sync());
  started_ = false;
  return {};
}

Result<std::unique_ptr<LogCursor>> Database::read_log_after(const Position& position) {
  MutexLock lock(mutex_);
  TRY(usable());
  return log_->read_after(position);
}

Result<std::optional<Position>> Database::oldest_in_log() {
  MutexLock lock(mutex_);
  TRY(usable());
  return log_->oldest_before();
}

Result<bool> Database::was_at(const Position& position) {
  MutexLock lock(mutex_);
  TRY(usable());
  return past_.has(position);
}

bool Database::stood_elsewhere(const Position& position) {
  std::shared_ptr<ChangeLog> log;
  {
    MutexLock lock(status_mutex_);
    log = log_to_read_;
  }
  if (!log) return false;
  // While it is cut or trimmed an entry may be in the way of it.
  const Result<std::optional<LogEntryInfo>> entry = log->find(position.txid);
  return entry.ok() && entry.value() && entry.value()->position.txid == position.txid &&
         entry.value()->position.checksum != position.checksum;
}

// What comes next does not continue this history.
Status Database::clear_log() {
  TRY(past_.clear());
  TRY(log_->clear());
  apply_cursor_.reset();
  return {};
}

void Database::hold_log(uint64_t key, TxId after) {
  MutexLock lock(status_mutex_);
  log_holds_[key] = after;
}

void Database::release_log(uint64_t key) {
  MutexLock lock(status_mutex_);
  log_holds_.erase(key);
}

Status Database::trim_log(int64_t older_than_wall_ms, uint64_t bytes_max) {
  MutexLock lock(mutex_);
  TRY(usable());
  ChangeLog::Retention retention;
  retention.older_than_wall_ms = older_than_wall_ms;
  retention.bytes_max = bytes_max;
  // A replica that reads slowly holds the log, up to twice what it may take.
  retention.bytes_hard_max = bytes_max * 2;
  TxId keep = control_->state().current.position.txid;
  {
    MutexLock holds(status_mutex_);
    for (const auto& [key, after] : log_holds_) keep = std::min(keep, after);
  }
  retention.keep_after = keep;
  retention.retiring = [this](const std::vector<Position>& positions)
                           NO_THREAD_SAFETY_ANALYSIS { return past_.add(positions); };
  size_t removed = TRY(log_->trim(retention));
  if (removed > 0) {
    env_.log.info("log segments retired").kv("database", name()).kv("segments", removed);
    publish_status();
  }
  return {};
}

bool Database::read_page_agrees(Pgno pgno) {
  if (pgno == 1) mask_local_bytes(page_);
  return page_hash(pgno, page_) == sums_->get(pgno);
}

}  // namespace litefs
