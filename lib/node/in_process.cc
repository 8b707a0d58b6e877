#include "node/in_process.h"

#include "sqlite/locks.h"

namespace litefs {
namespace {

Error stopped(const DatabaseInfo& info) {
  return Error(ErrorCode::kIo, "'" + info.name + "' is stopped: " + info.detail);
}

Error no_database(const std::string& name) {
  return Error(ErrorCode::kNotFound, "this node has no database '" + name + "'");
}

// Whether a database that is at `now`, not before `wanted`, got there another way: it has content that who asks has not
// seen, and lacks what he has.
bool went_elsewhere(Database& database, const Position& now, const Position& wanted) {
  if (now.txid < wanted.txid) return true;
  if (wanted.checksum.value == 0) return false;
  return now.txid == wanted.txid ? now.checksum != wanted.checksum : database.stood_elsewhere(wanted);
}

}  // namespace

Result<std::unique_ptr<InProcessNode>> InProcessNode::open(const Options& options, const Log& log, Listener& listener,
                                                           const Place& place) {
  auto self = std::unique_ptr<InProcessNode>(new InProcessNode(listener, place.files, options.data_dir + "/db"));
  const NodeEnvironment environment{self->files_, *self->clock_, *self->random_, log};
  self->node_ = TRY(Node::create(environment, options));
  const Others others = TRY(place.taken());
  self->node_->set_front_end(self.get());
  TRY(self->node_->open_databases(others.attend || others.remain));
  if (others.attend && self->node_->is_primary()) self->follow_all();
  TRY(self->node_->serve());
  return self;
}

// Those who have the databases open may commit before they ask for anything.
void InProcessNode::follow_all() {
  for (const std::shared_ptr<Database>& database : node_->store().all()) {
    database->set_writes_unseen(true);
    Result<bool> wal = files_.exists(root_ + "/" + database->name() + "-wal");
    if (!wal.ok() || wal.value()) node_->watch_commits(database);
  }
}

InProcessNode::~InProcessNode() {
  if (!node_) return;
  node_->stop();
  node_->set_front_end(nullptr);
}

void InProcessNode::cancel_waits() {
  MutexLock lock(mutex_);
  cancelled_ = true;
  ++changes_;
  changed_.notify_all();
}

Error InProcessNode::read_only() {
  const std::string host = node_->primary_host_name();
  const std::string url = "http://" + node_->options().primary.text();
  return Error(ErrorCode::kReadOnly,
               "this node is a replica; the primary is " + (host.empty() ? url : host + " (" + url + ")"));
}

Result<bool> InProcessNode::index_in_use(const std::string& name) {
  std::unique_ptr<File> index = TRY(files_.open_if_there(root_ + "/" + name + "-shm", OpenMode::kReadOnly));
  return index ? index->is_locked(kDmsByte, 1) : Result<bool>(false);
}

Result<uint64_t> InProcessNode::changes() {
  MutexLock lock(mutex_);
  if (cancelled_) return Error(ErrorCode::kCancelled, "the node stops");
  return changes_;
}

bool InProcessNode::wait_change(uint64_t seen, std::chrono::steady_clock::time_point until) {
  MutexLock lock(mutex_);
  while (changes_ == seen) {
    if (!changed_.wait_until(mutex_, until)) return changes_ != seen;
  }
  return true;
}

void InProcessNode::note_change() {
  MutexLock lock(mutex_);
  ++changes_;
  changed_.notify_all();
}

void InProcessNode::position_moved(const std::string& name) {
  note_change();
  listener_.position_moved(name);
}

Result<std::unique_ptr<LockDoor>> InProcessNode::lock_door(const std::string& name) {
  return direct_lock_door(files_, root_ + "/" + name);
}

Result<std::shared_ptr<Database>> InProcessNode::wait_readable(const std::string& name,
                                                               std::chrono::milliseconds timeout) {
  const auto until = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    const uint64_t seen = TRY(changes());
    std::shared_ptr<Database> database = node_->store().find(name);
    if (!database) return no_database(name);
    if (database->attached()) return database;
    const DatabaseInfo info = database->info();
    if (info.state == DatabaseState::kStopped) return stopped(info);
    if (info.size_pages == 0 && info.state == DatabaseState::kReady) return no_database(name);
    if (!wait_change(seen, until)) {
      return Error(ErrorCode::kBusy, "'" + name + "' cannot be read yet: it is " + database_state_name(info.state) +
                                         (info.detail.empty() ? "" : ", " + info.detail));
    }
  }
}

Result<Position> InProcessNode::position(const std::string& name, bool drains) {
  std::shared_ptr<Database> database = node_->store().find(name);
  if (!database) return no_database(name);
  if (drains && node_->is_primary()) TRY(database->drain(false));
  const DatabaseInfo info = database->info();
  if (info.state == DatabaseState::kStopped) return stopped(info);
  return info.position;
}

Status InProcessNode::wait_position(const std::string& name, const Position& wanted,
                                    std::chrono::milliseconds timeout) {
  const auto until = std::chrono::steady_clock::now() + timeout;
  TRY(check_database_name(name));
  // What has been committed before this call is captured by it.
  std::shared_ptr<Database> here = node_->store().find(name);
  if (here && node_->is_primary()) TRY(here->drain(false));
  std::optional<Position> elsewhere;  // the database has been found there, by another way
  for (;;) {
    const uint64_t seen = TRY(changes());
    Position now;
    std::shared_ptr<Database> database = node_->store().find(name);
    if (database) {
      const DatabaseInfo info = database->info();
      if (info.state == DatabaseState::kStopped) return stopped(info);
      now = info.position;
    }
    Position target = wanted;
    if (target.epoch.value == 0) target.epoch = now.epoch;
    const bool passed = database && !now.before(target);
    if (passed && elsewhere != now && !went_elsewhere(*database, now, target)) return {};
    if (passed) elsewhere = now;
    // A replica that went astray is put right by its primary.
    if ((passed && node_->is_primary()) || !wait_change(seen, until)) {
      if (passed) {
        return Error(ErrorCode::kDiverged, "'" + name + "' is at " + position_text(now) + " and has not been at " +
                                               position_text(wanted) + ": its history is another one");
      }
      return Error(ErrorCode::kTimedOut,
                   "'" + name + "' is at " + position_text(now) + ", not at " + position_text(wanted) + " yet");
    }
  }
}

}  // namespace litefs
