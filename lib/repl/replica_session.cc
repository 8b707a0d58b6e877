#include "repl/replica_session.h"

#include <algorithm>

namespace litefs {

using wire::FrameType;

namespace {

Error protocol_error(const std::string& what) { return Error(ErrorCode::kCorrupt, "the primary sent " + what); }

}  // namespace

ReplicaSession::ReplicaSession(ReplicaHost& host, Owner& owner, Clock& clock, const Log& log, const SessionTimes& times,
                               std::unique_ptr<Stream> stream)
    : host_(host), owner_(owner), clock_(clock), log_(log), times_(times), stream_(std::move(stream)) {}

template <class F>
void ReplicaSession::send(const F& frame) {
  scratch_.clear();
  frame.append_to(scratch_);
  stream_->write(ByteView(scratch_));
}

void ReplicaSession::start(int64_t now_ms) {
  now_ms_ = heartbeat_sent_ms_ = now_ms;
  watch_.start(now_ms);
  stream_->start(StreamEvents{
      .on_data = [this](ByteView data) { received(data); },
      .on_closed =
          [this](const Status& why) {
            end(why.ok() ? Status(Error(ErrorCode::kUnavailable, "the primary closed the connection")) : why);
          },
      .on_drained = nullptr,
      .on_turn_end = [this] { send_acks(); }});
  NodeIdentity self = host_.identity();
  stream_->write(ByteView(wire::kPreface));
  send(wire::Hello{.cluster_id = self.cluster_id,
                   .node = self.node,
                   .epoch = self.epoch,
                   .host_name = self.host_name,
                   .url = self.url});
  std::vector<wire::DatabaseHeld> held = host_.databases();
  std::erase_if(held, [this](const wire::DatabaseHeld& d) {
    bool bad = d.name.empty() || d.name.size() > wire::kNameBytesMax;
    if (bad) log_.error("a database's name is too long to be replicated").kv("database", d.name);
    return bad;
  });
  Bytes pages;
  wire::append_databases_held(held, pages);
  stream_->write(std::move(pages));
}

// ---- what the primary says
// --------------------------------------------------------------------------

void ReplicaSession::received(ByteView data) {
  reader_.feed(data);
  process();
}

void ReplicaSession::process() {
  if (processing_) return;  // resume() from inside a host's call: the loop below goes on
  processing_ = true;
  while (phase_ != Phase::kEnded && !paused_) {
    Status handled;
    Result<std::optional<wire::Frame>> frame = reader_.next();
    if (!frame.ok()) {
      handled = frame.error();
    } else if (!frame.value()) {
      break;
    } else {
      handled = dispatch(*frame.value());
    }
    if (!handled.ok()) failed(handled.error());
  }
  processing_ = false;
  if (phase_ == Phase::kStreaming) host_.turn_ended();
}

Status ReplicaSession::dispatch(const wire::Frame& frame) {
  ByteView payload = frame.payload;
  if (phase_ == Phase::kWaiting) {
    switch (frame.type) {
      case FrameType::kWelcome: return on_welcome(TRY(wire::Welcome::parse(payload)));
      case FrameType::kRefuse: return on_refuse(TRY(wire::Refuse::parse(payload)));
      case FrameType::kGoodbye: return on_goodbye(TRY(wire::Goodbye::parse(payload)));
      default: break;
    }
    return protocol_error("a frame before WELCOME");
  }
  switch (frame.type) {
    case FrameType::kLog: return on_log(TRY(wire::LogPiece::parse(payload)));
    case FrameType::kDatabase: return on_database(TRY(wire::Database::parse(payload)));
    case FrameType::kSnapshotBegin: return on_snapshot_begin(TRY(wire::SnapshotBegin::parse(payload)));
    case FrameType::kSumsWanted: return on_sums_wanted(TRY(wire::SumsWanted::parse(payload)));
    case FrameType::kSnapshotData: return on_snapshot_data(TRY(wire::SnapshotData::parse(payload)));
    case FrameType::kSnapshotEnd: return on_snapshot_end(TRY(wire::SnapshotEnd::parse(payload)));
    case FrameType::kDatabaseEnd: return on_database_end(TRY(wire::DatabaseEnd::parse(payload)));
    case FrameType::kHeartbeat: return on_heartbeat(TRY(wire::Heartbeat::parse(payload)));
    case FrameType::kGoodbye: return on_goodbye(TRY(wire::Goodbye::parse(payload)));
    case FrameType::kHello:
    case FrameType::kDatabasesHeld:
    case FrameType::kWelcome:
    case FrameType::kRefuse:
    case FrameType::kSums:
    case FrameType::kAck: break;
  }
  return protocol_error("a frame of type " + std::to_string(static_cast<int>(frame.type)) + " where none is expected");
}

Status ReplicaSession::on_welcome(const wire::Welcome& welcome) {
  NodeIdentity self = host_.identity();
  if (self.cluster_id != 0 && welcome.cluster_id != self.cluster_id) {
    return Error(ErrorCode::kInvalid, "the node at " + stream_->peer() + " belongs to cluster " +
                                          hex16(welcome.cluster_id) + ", this node to " + hex16(self.cluster_id));
  }
  if (welcome.epoch < self.epoch) {
    return Error(ErrorCode::kDiverged, "the node at " + stream_->peer() + " is primary of epoch " +
                                           std::to_string(welcome.epoch.value) + ", but epoch " +
                                           std::to_string(self.epoch.value) + " has begun");
  }
  primary_ = welcome;
  beat_wall_ms_ = welcome.wall_ms;
  beat_ms_ = now_ms_;
  phase_ = Phase::kStreaming;
  log_.info("connected to the primary")
      .kv("address", stream_->peer())
      .kv("node", welcome.node)
      .kv("host", welcome.host_name)
      .kv("epoch", welcome.epoch);
  owner_.welcomed();
  return host_.session_welcomed(*this, welcome);
}

Status ReplicaSession::on_refuse(const wire::Refuse& said) {
  host_.refused(said);
  stream_->finish();
  end(Error(ErrorCode::kUnavailable,
            "the node at " + stream_->peer() + " refused (" + wire::refuse_code_name(said.code) + "): " + said.text));
  return {};
}

Status ReplicaSession::on_goodbye(const wire::Goodbye& said) {
  log_.info("the primary says goodbye")
      .kv("reason", wire::goodbye_reason_name(said.reason))
      .kv("text", said.text)
      .kv("new_primary", said.new_primary_url);
  host_.goodbye(said);
  stream_->finish();
  end(said.reason == wire::GoodbyeReason::kFailed ? Status(Error(ErrorCode::kUnavailable, "the primary: " + said.text))
                                                  : Status());
  return {};
}

Result<ReplicaSession::Entry*> ReplicaSession::entry(uint32_t index, Stage stage, const char* frame) {
  auto found = by_index_.find(index);
  if (found == by_index_.end()) return protocol_error(std::string(frame) + " for an unknown index");
  if (found->second->stage != stage) {
    return protocol_error(std::string(frame) + " at the wrong stage of " + found->second->name);
  }
  return found->second.get();
}

Status ReplicaSession::on_database(const wire::Database& database) {
  // Upwards only, so that nothing of an index that is over can be taken for its successor's.
  if (database.index <= last_index_) return protocol_error("DATABASE with an index used before");
  last_index_ = database.index;
  if (by_name_.count(database.name)) {
    return protocol_error("DATABASE for " + database.name + ", which is open already");
  }
  if (database.how != wire::DatabaseHow::kUnknown) {
    auto made = std::make_unique<Entry>();
    made->index = database.index;
    made->name = database.name;
    made->stage = database.how == wire::DatabaseHow::kContinue ? Stage::kLog : Stage::kBeforeSnapshot;
    made->compares = database.how == wire::DatabaseHow::kDifference;
    made->received = made->durable = TxId{};
    if (made->stage == Stage::kLog) made->received = database.from.txid;
    by_name_[database.name] = made.get();
    by_index_[database.index] = std::move(made);
  }
  return host_.database_started(DatabaseStart{.name = database.name,
                                              .id = database.id,
                                              .how = database.how,
                                              .from = database.from,
                                              .reason = database.reason,
                                              .index = database.index});
}

Status ReplicaSession::on_log(const wire::LogPiece& piece) {
  Entry& e = *TRY(entry(piece.index, Stage::kLog, "LOG"));
  if (piece.begins != (e.record_missing == 0)) {
    return protocol_error("LOG pieces of " + e.name + " out of order");
  }
  if (piece.begins) e.record_missing = piece.record_bytes;
  if (piece.bytes.size() > e.record_missing || piece.ends != (piece.bytes.size() == e.record_missing)) {
    return protocol_error("LOG pieces of " + e.name + " that do not make up a record");
  }
  e.record_missing -= piece.bytes.size();
  return host_.log_piece(e.name, IncomingPiece{.begins = piece.begins,
                                               .ends = piece.ends,
                                               .record_bytes = piece.record_bytes,
                                               .committed = piece.committed,
                                               .commit = piece.commit,
                                               .bytes = piece.bytes});
}

Status ReplicaSession::on_snapshot_begin(const wire::SnapshotBegin& begin) {
  Entry& e = *TRY(entry(begin.index, Stage::kBeforeSnapshot, "SNAPSHOT_BEGIN"));
  e.stage = Stage::kSnapshot;
  return host_.snapshot_begin(e.name, {.start = begin.start,
                                       .estimated_bytes = begin.estimated_bytes,
                                       .page_size = begin.page_size,
                                       .size_pages = begin.size_pages,
                                       .compares = e.compares});
}

Status ReplicaSession::on_sums_wanted(wire::SumsWanted wanted) {
  Entry& e = *TRY(entry(wanted.index, Stage::kSnapshot, "SUMS_WANTED"));
  if (!e.compares) return protocol_error("SUMS_WANTED for a whole copy of " + e.name);
  if (e.question) return protocol_error("SUMS_WANTED for " + e.name + " before the last answer");
  e.question = std::move(wanted.question);
  return host_.sums_wanted(e.name, SumsQuestion(*e.question));
}

Status ReplicaSession::on_snapshot_data(const wire::SnapshotData& data) {
  Entry& e = *TRY(entry(data.index, Stage::kSnapshot, "SNAPSHOT_DATA"));
  return host_.snapshot_piece(e.name, data.bytes);
}

Status ReplicaSession::on_snapshot_end(const wire::SnapshotEnd& end) {
  Entry& e = *TRY(entry(end.index, Stage::kSnapshot, "SNAPSHOT_END"));
  if (e.question) return protocol_error("SNAPSHOT_END for " + e.name + " before the last answer");
  e.stage = Stage::kLog;
  return host_.snapshot_end(e.name, end.consistent_at);
}

Status ReplicaSession::on_database_end(const wire::DatabaseEnd& end) {
  auto found = by_index_.find(end.index);
  if (found == by_index_.end()) return protocol_error("DATABASE_END for an unknown index");
  forget(*found->second, end.reason, end.text);
  return {};
}

void ReplicaSession::forget(Entry& e, wire::EndReason reason, const std::string& text) {
  std::string name = e.name;
  by_name_.erase(name);
  by_index_.erase(e.index);
  host_.database_ended(name, reason, text);
}

Status ReplicaSession::on_heartbeat(const wire::Heartbeat& beat) {
  beat_wall_ms_ = beat.wall_ms;
  beat_ms_ = now_ms_;
  for (const wire::HeartbeatEntry& named : beat.databases) {
    auto found = by_index_.find(named.index);
    if (found == by_index_.end()) return protocol_error("HEARTBEAT with an unknown index");
    Entry& e = *found->second;
    e.primary = named.position;
    e.primary_wall_ms = beat.wall_ms;
    if (!e.missing_since_wall_ms && e.received < e.primary.txid) {
      e.missing = e.primary.txid;
      e.missing_since_wall_ms = beat.wall_ms;
    }
    host_.primary_position(e.name, named.position, named.commit);
    if (phase_ == Phase::kEnded) break;
  }
  return {};
}

// ---- what the host says
// -----------------------------------------------------------------------------

void ReplicaSession::pause() {
  if (phase_ == Phase::kEnded || paused_) return;
  paused_ = true;
  stream_->pause_reading();
}

void ReplicaSession::resume() {
  if (phase_ == Phase::kEnded || !paused_) return;
  paused_ = false;
  watch_.excuse();
  process();  // what had arrived before
  if (!paused_ && phase_ != Phase::kEnded) stream_->resume_reading();
}

void ReplicaSession::applied(const std::string& name, TxId received_txid, TxId durable) {
  auto found = by_name_.find(name);
  if (found != by_name_.end()) applied(found->second->index, received_txid, durable);
}

void ReplicaSession::applied(uint32_t index, TxId received_txid, TxId durable) {
  auto found = by_index_.find(index);
  if (phase_ != Phase::kStreaming || found == by_index_.end()) return;
  Entry& e = *found->second;
  CHECK(durable <= received_txid);
  e.received = std::max(e.received, received_txid);
  e.durable = std::max(e.durable, durable);
  if (e.missing_since_wall_ms && e.received >= e.missing) {
    e.missing = e.primary.txid;
    e.missing_since_wall_ms = e.primary_wall_ms;
    if (e.received >= e.missing) e.missing_since_wall_ms.reset();
  }
  if (e.ack_due) return;
  e.ack_due = true;
  acks_due_.push_back(e.index);
  stream_->at_turn_end();
}

void ReplicaSession::answer_sums(uint32_t index, std::vector<Checksum> sums) {
  auto found = by_index_.find(index);
  if (phase_ != Phase::kStreaming || found == by_index_.end()) return;
  Entry& e = *found->second;
  CHECK(e.question.has_value());
  CHECK_EQ(sums.size(), e.question->answer_sums());
  wire::Sums answer{.index = index, .of_pages = e.question->of_pages, .sums = std::move(sums)};
  e.question.reset();
  send(answer);
}

void ReplicaSession::send_acks() {
  wire::Ack ack;
  for (uint32_t index : std::exchange(acks_due_, {})) {
    auto found = by_index_.find(index);
    if (found == by_index_.end()) continue;
    Entry& e = *found->second;
    e.ack_due = false;
    ack.databases.push_back({.index = index, .received = e.received, .durable = e.durable});
    if (ack.databases.size() < wire::kAckEntriesMax) continue;
    send(ack);
    ack.databases.clear();
  }
  if (!ack.databases.empty()) send(ack);
}

void ReplicaSession::failed(const Error& error) {
  if (phase_ == Phase::kEnded) return;
  send(wire::Goodbye{.reason = wire::GoodbyeReason::kFailed, .text = error.message(), .new_primary_url = ""});
  stream_->finish();
  end(error);
}

void ReplicaSession::goodbye(wire::GoodbyeReason reason, const std::string& text) {
  if (phase_ == Phase::kEnded) return;
  send(wire::Goodbye{.reason = reason, .text = text, .new_primary_url = ""});
  stream_->finish();
  end({});
}

// ---- time
// -------------------------------------------------------------------------------------------

void ReplicaSession::tick(int64_t now_ms) {
  if (phase_ == Phase::kEnded) return;
  now_ms_ = now_ms;
  watch_.tick(now_ms, stream_->bytes_read(), times_);
  if (paused_) watch_.excuse();
  if (phase_ == Phase::kWaiting && watch_.age_ms() >= times_.hello_deadline_ms) {
    return end(Error(ErrorCode::kTimedOut, "the node at " + address() + " did not answer in time"));
  }
  if (watch_.silence_ms() >= times_.dead_peer_ms) {
    return end(Error(ErrorCode::kTimedOut,
                     "nothing heard from the primary for " + std::to_string(watch_.silence_ms()) + " ms"));
  }
  if (phase_ == Phase::kStreaming && now_ms - heartbeat_sent_ms_ >= times_.heartbeat_ms) {
    heartbeat_sent_ms_ = now_ms;
    send(wire::Heartbeat{.wall_ms = clock_.wall_ms(), .databases = {}});
  }
}

std::optional<ReplicaLag> ReplicaSession::lag(const std::string& name) const {
  auto found = by_name_.find(name);
  if (found == by_name_.end()) return std::nullopt;
  const Entry& e = *found->second;
  ReplicaLag out{.primary = e.primary, .received = e.received};
  if (e.primary.txid > e.received) out.transactions = e.primary.txid.value - e.received.value;
  if (e.missing_since_wall_ms) {
    int64_t primary_now = beat_wall_ms_ + now_ms_ - beat_ms_;
    out.lag_ms = std::max<int64_t>(primary_now - *e.missing_since_wall_ms, 0);
  }
  return out;
}

void ReplicaSession::end(const Status& why) {
  if (phase_ == Phase::kEnded) return;
  bool was_welcomed = phase_ == Phase::kStreaming;
  phase_ = Phase::kEnded;
  if (stream_->is_open()) stream_->close();
  if (was_welcomed) {
    while (!by_index_.empty()) forget(*by_index_.begin()->second, wire::EndReason::kOther, "");
    host_.session_ended(why);
  }
  owner_.ended(why);
}

}  // namespace litefs
