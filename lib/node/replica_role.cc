#include "node/replica_role.h"

#include <algorithm>

#include "db/snapshot_codec.h"

namespace litefs {
namespace {

constexpr size_t kQueueBytesMax = 8u << 20;
constexpr size_t kQueueBytesLow = 2u << 20;
// A record larger than this goes to the disk as it comes.
constexpr uint64_t kRecordInMemoryMax = 1u << 20;
constexpr int64_t kRetryMs = 100;
// A full disk: how often it is looked at, and what must fit before the primary is asked for more.
constexpr int64_t kRetryRoomMs = 1000;
constexpr int kRetryRoomDoublingsMax = 6;
constexpr uint64_t kRoomToGoOnBytes = 4u << 20;

bool worth_retrying(ErrorCode code) {
  return code == ErrorCode::kBusy || code == ErrorCode::kTimedOut || code == ErrorCode::kNoSpace ||
         code == ErrorCode::kCancelled;
}

// Why a copy that comes for this reason must not overwrite the state that is here before it is kept; empty: the primary
// knows that state.
std::string keep_because(wire::SnapshotReason reason) {
  switch (reason) {
    case wire::SnapshotReason::kNew: return "the primary took it for new";
    case wire::SnapshotReason::kTooOld: return "";
    case wire::SnapshotReason::kDiverged: return "the primary does not know its position";
    case wire::SnapshotReason::kAnotherDatabase: return "the primary's database of this name is another one";
  }
  return "";
}

}  // namespace

ReplicaRole::ReplicaRole(Store& store, NodeFile& node, const Threads& threads, Clock& clock, Random& random,
                         const Log& log, const ReplicaRoleOptions& options)
    : store_(store), node_(node), threads_(threads), clock_(clock), log_(log), options_(options) {
  connector_ = std::make_unique<ReplicaConnector>(threads_.loop, *this, clock, random, log, ReplicaConnectorOptions());
}

ReplicaRole::~ReplicaRole() = default;

void ReplicaRole::follow(const std::string& primary_url) { connector_->follow(primary_url); }

void ReplicaRole::attach_all() {
  for (const std::shared_ptr<Database>& database : store_.all()) {
    Result<Lane*> found = lane(database->name());
    if (found.ok()) run(*found.value(), {}, [](Database& db) { return db.attach(); });
  }
}

void ReplicaRole::stop() {
  connector_->follow("");
  retries_.clear();
}

bool ReplicaRole::connected() const { return session_ != nullptr; }

std::optional<ReplicaLag> ReplicaRole::lag(const std::string& name) const {
  return session_ ? session_->lag(name) : std::nullopt;
}

std::optional<int64_t> ReplicaRole::lag_ms() const {
  if (!primary_) return std::nullopt;
  if (!session_) return (clock_.monotonic_ns() - disconnected_ns_) / 1000000;
  int64_t worst_ms = 0;
  for (const auto& [name, lane] : lanes_) {
    if (std::optional<ReplicaLag> lag = session_->lag(name)) worst_ms = std::max(worst_ms, lag->lag_ms);
  }
  // Heartbeats come each second; silence beyond that is lag nobody can measure.
  int64_t silence_ms = session_->silence_ms();
  return silence_ms > 2 * kHeartbeatMs ? std::max(worst_ms, silence_ms) : worst_ms;
}

NodeIdentity ReplicaRole::identity() {
  return NodeIdentity{node_.cluster(), node_.node(), node_.epoch(), options_.host_name, options_.url};
}

std::vector<wire::DatabaseHeld> ReplicaRole::databases() {
  std::vector<wire::DatabaseHeld> held;
  for (const std::shared_ptr<Database>& database : store_.all()) {
    DatabaseInfo info = database->info();
    if (info.state == DatabaseState::kStopped || info.received == Position()) continue;
    held.push_back({info.name, info.id, info.received});
  }
  return held;
}

Result<ReplicaRole::Lane*> ReplicaRole::lane(const std::string& name) {
  Lane& lane = lanes_[name];
  if (!lane.database) {
    Result<std::shared_ptr<Database>> database = store_.find_or_create(name);
    if (!database.ok()) {
      lanes_.erase(name);
      return database.error();
    }
    lane.database = std::move(database).value();
    lane.strand = Strand::create(threads_.workers);
  }
  return &lane;
}

ReplicaRole::Lane* ReplicaRole::known_lane(const std::string& name) {
  auto it = lanes_.find(name);
  return it == lanes_.end() ? nullptr : &it->second;
}

// Runs a job of a database on its strand; `bytes` count against the queue until it is done. A job of a session that
// has ended is dropped: what it brings will come again.
void ReplicaRole::run(Lane& lane, const Load& load, std::function<Status(Database&)> job) {
  queued_bytes_ += load.bytes;
  if (queued_bytes_ > kQueueBytesMax && session_ && !paused_) {
    paused_ = true;
    session_->pause();
  }
  uint64_t mine = *generation_;
  lane.strand->post([this, database = lane.database, generation = generation_, broken = lane.broken, mine, load,
                     origin = Origin{session_number_, lane.index}, job = std::move(job)] {
    Status done;
    const bool brings_data = load.brings_data;
    bool dropped = *generation != mine || (brings_data && *broken);
    if (!dropped) {
      done = database->ensure_replica();
      if (done.ok()) done = job(*database);
      if (!done.ok() && brings_data && worth_retrying(done.error().code())) *broken = true;
    }
    threads_.loop.post([this, name = database->name(), origin, done, dropped, load] {
      queued_bytes_ -= load.bytes;
      if (paused_ && queued_bytes_ <= kQueueBytesLow) {
        paused_ = false;
        if (session_) session_->resume();
      }
      if (!dropped) finished(name, origin, load, done);
    });
  });
}

void ReplicaRole::finished(const std::string& name, const Origin& origin, const Load& load, const Status& done) {
  const bool brought_data = load.brings_data;
  Lane* lane = known_lane(name);
  if (!lane) return;
  DatabaseInfo info = lane->database->info();
  if (done.ok() && *lane->broken && !brought_data) {
    *lane->broken = false;
    if (session_)
      session_->failed(Error(ErrorCode::kBusy, "'" + name + "' can be written again; taking up from what it has"));
    return;
  }
  if (done.ok()) {
    if (brought_data && info.state != DatabaseState::kLoading) lane->no_room = 0;
    TxId through = std::min(info.position.txid, load.through);
    const bool same_session = session_ && origin.session == session_number_;
    if (same_session && through.value != 0 && info.state != DatabaseState::kLoading) {
      session_->applied(origin.index, through, TxId{});
    }
    return;
  }
  if (info.state == DatabaseState::kStopped) return;  // said where it was stopped
  ErrorCode code = done.error().code();
  if (worth_retrying(code)) {
    if (brought_data) cannot_take(*lane, done.error());
    return retry_later(*lane);
  }
  log_.error("replication of a database failed").kv("database", name).error(done.error());
  if (code == ErrorCode::kDiverged || code == ErrorCode::kCorrupt) {
    // What came does not continue what is here, or is damaged. A copy that differs is kept, and compared.
    std::string why = done.error().message();
    bool differs = code == ErrorCode::kDiverged;
    ++*generation_;
    lane->strand->post([database = lane->database, differs, why, log = log_] {
      database->abort_load();
      database->abort_large_record();
      if (!differs) return;
      Status apart = database->stand_apart(why);
      if (!apart.ok())
        log.error("cannot keep what this node has of a database").kv("database", database->name()).error(apart.error());
    });
  }
  if (session_) session_->failed(done.error());
}

void ReplicaRole::cannot_take(Lane& lane, const Error& error) {
  if (error.code() == ErrorCode::kNoSpace) {
    lane.database->show_trouble("cannot take what the primary sends until there is room: " + error.message());
    if (++lane.no_room > 1) return;
  }
  log_.warning("a database cannot take what comes; trying again").kv("database", lane.database->name()).error(error);
}

void ReplicaRole::retry_later(Lane& lane) {
  std::string name = lane.database->name();
  std::unique_ptr<Timer>& timer = retries_[name];
  if (!timer) {
    timer = threads_.loop.timer([this, name] {
      Lane* again = known_lane(name);
      if (!again) return;
      run(*again, {}, [no_room = again->no_room](Database& database) -> Status {
        if (no_room > 0) TRY(database.check_room(kRoomToGoOnBytes));
        return database.attach();
      });
    });
  }
  timer->start(lane.no_room == 0 ? kRetryMs : kRetryRoomMs << std::min(lane.no_room - 1, kRetryRoomDoublingsMax));
}

Status ReplicaRole::session_welcomed(ReplicaSession& session, const wire::Welcome& welcome) {
  if (node_.cluster() != 0 && welcome.cluster_id != node_.cluster()) {
    return Error(ErrorCode::kDiverged, "the primary is of another cluster (" + hex16(welcome.cluster_id) +
                                           ", this node is of " + hex16(node_.cluster()) + ")");
  }
  if (welcome.epoch < node_.epoch()) {
    return Error(ErrorCode::kDiverged, "the primary's epoch " + std::to_string(welcome.epoch.value) +
                                           " is older than one this node has followed");
  }
  session_ = &session;
  ++session_number_;
  paused_ = false;
  primary_ = welcome;
  options_.welcomed();
  threads_.workers.post([this, welcome] {
    Status stored = node_.raise_epoch(welcome.epoch);
    if (stored.ok() && node_.cluster() == 0) stored = node_.set_cluster(welcome.cluster_id);
    if (!stored.ok()) log_.error("cannot store the node's identity").error(stored.error());
  });
  return {};
}

Status ReplicaRole::database_started(const DatabaseStart& start) {
  Lane* lane = TRY(this->lane(start.name));
  lane->id = start.id;
  lane->index = start.index;
  lane->reason = start.reason;
  if (start.how == wire::DatabaseHow::kUnknown) {
    run(*lane, {}, [](Database& database) { return database.set_aside_and_remove("the primary does not have it"); });
  } else if (start.how == wire::DatabaseHow::kContinue) {
    run(*lane, {}, [](Database& database) { return database.attach(); });
  }
  return {};
}

Status ReplicaRole::log_piece(const std::string& name, const IncomingPiece& piece) {
  Lane* lane = TRY(this->lane(name));
  if (*lane->broken) return {};
  if (piece.begins && piece.ends) {
    lane->records.emplace_back(piece.bytes.begin(), piece.bytes.end());
    lane->bytes += piece.bytes.size();
    if (lane->records.size() == 1) dirty_.push_back(lane);
    return {};
  }
  if (piece.begins) {
    pass_on(*lane);
    lane->large = piece.record_bytes > kRecordInMemoryMax;
    lane->partial.clear();
    Result<RecordHeader> header = decode_record_header(piece.bytes);
    lane->large_through = header.ok() ? header.value().txid_last : TxId{};
    if (lane->large) run(*lane, {0, TxId{}, true}, [](Database& database) { return database.begin_large_record(); });
  }
  if (!lane->large) {
    lane->partial.insert(lane->partial.end(), piece.bytes.begin(), piece.bytes.end());
    if (!piece.ends) return {};
    lane->bytes += lane->partial.size();
    lane->records.push_back(std::move(lane->partial));
    lane->partial = Bytes();
    if (lane->records.size() == 1) dirty_.push_back(lane);
    return {};
  }
  auto bytes = std::make_shared<Bytes>(piece.bytes.begin(), piece.bytes.end());
  run(*lane, {bytes->size(), lane->large_through, true}, [bytes, ends = piece.ends](Database& database) -> Status {
    TRY(database.append_large_record(*bytes));
    return ends ? database.finish_large_record() : Status();
  });
  return {};
}

void ReplicaRole::pass_on(Lane& lane) {
  if (lane.records.empty() || *lane.broken) return;
  auto records = std::make_shared<std::vector<Bytes>>(std::move(lane.records));
  size_t bytes = lane.bytes;
  lane.records = {};
  lane.bytes = 0;
  Load load{bytes, TxId{}, true};
  // A record that does not decode is refused by apply().
  if (Result<RecordHeader> last = decode_record_header(records->back()); last.ok())
    load.through = last.value().txid_last;
  run(lane, load, [records](Database& database) { return database.apply(*records); });
}

void ReplicaRole::turn_ended() {
  for (Lane* lane : dirty_) pass_on(*lane);
  dirty_.clear();
}

Status ReplicaRole::snapshot_begin(const std::string& name, const IncomingSnapshot& snapshot) {
  Lane* lane = TRY(this->lane(name));
  LoadStart start{.id = lane->id,
                  .start = snapshot.start,
                  .total_bytes = snapshot.estimated_bytes,
                  .page_size = snapshot.page_size,
                  .size_pages = snapshot.size_pages,
                  .compares = snapshot.compares,
                  .keep_because = keep_because(lane->reason)};
  run(*lane, {.brings_data = true}, [start](Database& database) { return database.begin_load(start); });
  return {};
}

Status ReplicaRole::sums_wanted(const std::string& name, const SumsQuestion& question) {
  Lane* lane = TRY(this->lane(name));
  run(*lane, {.brings_data = true},
      [this, question, origin = Origin{session_number_, lane->index}](Database& database) -> Status {
        auto sums = std::make_shared<std::vector<Checksum>>(TRY(database.load_sums(question)));
        threads_.loop.post([this, sums, origin] {
          if (session_ && origin.session == session_number_) session_->answer_sums(origin.index, std::move(*sums));
        });
        return {};
      });
  return {};
}

Status ReplicaRole::snapshot_piece(const std::string& name, ByteView bytes) {
  Lane* lane = TRY(this->lane(name));
  if (bytes.empty() || *lane->broken) return {};
  auto packed = std::make_shared<Bytes>(bytes.begin(), bytes.end());
  run(*lane, {.bytes = packed->size(), .brings_data = true},
      [packed](Database& database) -> Status { return database.load_pages(TRY(unpack_snapshot_piece(*packed))); });
  return {};
}

Status ReplicaRole::snapshot_end(const std::string& name, const Position& consistent_at) {
  Lane* lane = TRY(this->lane(name));
  if (*lane->broken) return {};
  run(*lane, {.through = consistent_at.txid, .brings_data = true},
      [consistent_at](Database& database) { return database.end_load(consistent_at); });
  return {};
}

void ReplicaRole::database_ended(const std::string& name, wire::EndReason, const std::string& text) {
  Lane* lane = known_lane(name);
  if (!lane) return;
  pass_on(*lane);
  lane->partial = Bytes();
  lane->large = false;
  if (!text.empty()) log_.warning("the primary stopped sending a database").kv("database", name).kv("why", text);
  lane->strand->post([database = lane->database] {
    database->abort_load();
    database->abort_large_record();
  });
}

void ReplicaRole::refused(const wire::Refuse& refuse) {
  const bool passes = refuse.code == wire::RefuseCode::kStarting;
  (passes ? log_.info("the primary refused this node") : log_.warning("the primary refused this node"))
      .kv("code", wire::refuse_code_name(refuse.code))
      .kv("why", refuse.text)
      .kv("primary", refuse.primary_url);
}

void ReplicaRole::goodbye(const wire::Goodbye& goodbye) {
  log_.info("the primary said goodbye").kv("reason", wire::goodbye_reason_name(goodbye.reason)).kv("why", goodbye.text);
}

void ReplicaRole::session_ended(const Status& why) {
  if (session_) {
    disconnected_ns_ = clock_.monotonic_ns();
    log_.warning("connection to the primary lost").kv("why", why.ok() ? "it said goodbye" : why.error().message());
  }
  session_ = nullptr;
  dirty_.clear();
  for (auto& [name, lane] : lanes_) {
    lane.records.clear();
    lane.bytes = 0;
  }
}

}  // namespace litefs
