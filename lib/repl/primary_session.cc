#include "repl/primary_session.h"

#include <algorithm>

namespace litefs {

using wire::FrameType;
using wire::RefuseCode;

PrimarySession::PrimarySession(PrimaryHost& host, Owner& owner, Clock& clock, const Log& log,
                               const PrimarySessionOptions& options, std::unique_ptr<Stream> stream)
    : host_(host), owner_(owner), clock_(clock), log_(log), options_(options), stream_(std::move(stream)) {}

void PrimarySession::start(ByteView received_bytes, int64_t now_ms) {
  now_ms_ = heartbeat_ms_ = now_ms;
  watch_.start(now_ms);
  connected_wall_ms_ = clock_.wall_ms();
  stream_->set_low_water(options_.queue_bytes_max / 4);
  stream_->start(StreamEvents{.on_data = [this](ByteView data) { received(data); },
                              .on_closed = [this](const Status& why) { end(why); },
                              .on_drained = [this] { run_turns(); },
                              .on_turn_end = [this] { run_turns(); }});
  stream_->write(ByteView(wire::kPreface));
  if (!received_bytes.empty()) received(received_bytes);
}

template <class F>
void PrimarySession::send(const F& frame) {
  scratch_.clear();
  frame.append_to(scratch_);
  stream_->write(ByteView(scratch_));
}

// ---- what the replica says
// --------------------------------------------------------------------------

void PrimarySession::received(ByteView data) {
  reader_.feed(data);
  while (phase_ != Phase::kEnded) {
    Result<std::optional<wire::Frame>> frame = reader_.next();
    Status handled;
    if (!frame.ok()) {
      handled = frame.error();
    } else if (!frame.value()) {
      return;
    } else {
      handled = dispatch(*frame.value());
    }
    if (!handled.ok() && phase_ != Phase::kEnded) {
      goodbye(wire::GoodbyeReason::kFailed, handled.error().message(), "");
    }
  }
}

Status PrimarySession::dispatch(const wire::Frame& frame) {
  switch (phase_) {
    case Phase::kHello:
      if (frame.type == FrameType::kHello) return on_hello(TRY(wire::Hello::parse(frame.payload)));
      break;
    case Phase::kDatabasesHeld:
      if (frame.type == FrameType::kDatabasesHeld) {
        return on_databases_held(TRY(wire::DatabasesHeld::parse(frame.payload)));
      }
      break;
    case Phase::kStreaming:
      if (frame.type == FrameType::kAck) return on_ack(TRY(wire::Ack::parse(frame.payload)));
      if (frame.type == FrameType::kSums) return on_sums(TRY(wire::Sums::parse(frame.payload)));
      if (frame.type == FrameType::kHeartbeat) {
        TRY(wire::Heartbeat::parse(frame.payload));
        return {};
      }
      break;
    case Phase::kEnded: return {};
  }
  if (frame.type == FrameType::kGoodbye) {
    return on_goodbye(TRY(wire::Goodbye::parse(frame.payload)));
  }
  return Error(ErrorCode::kCorrupt, "the replica sent a frame of type " + std::to_string(static_cast<int>(frame.type)) +
                                        " where none is expected");
}

Status PrimarySession::on_hello(const wire::Hello& hello) {
  replica_ = NodeIdentity{.cluster_id = hello.cluster_id,
                          .node = hello.node,
                          .epoch = hello.epoch,
                          .host_name = hello.host_name,
                          .url = hello.url};
  NodeIdentity self = host_.identity();
  std::string primary_url;
  if (hello.version_max < wire::kVersionMin || hello.version_min > wire::kVersionMax) {
    refuse(RefuseCode::kVersion, "this node speaks protocol version " + std::to_string(wire::kVersionMax), "");
  } else if (hello.kind != wire::kKindReplication) {
    refuse(RefuseCode::kOther, "this node serves no such kind of stream", "");
  } else if (hello.cluster_id != 0 && hello.cluster_id != self.cluster_id) {
    refuse(RefuseCode::kWrongCluster,
           "the data of replica '" + hello.host_name + "' is of cluster " + hex16(hello.cluster_id) +
               ", that of the primary '" + self.host_name + "' of cluster " + hex16(self.cluster_id) +
               ": to join it, stop the replica, move its data.dir away and start it again",
           "");
  } else if (hello.node == self.node) {
    refuse(RefuseCode::kOwnNode, "this is the same node, or a copy of its data directory", "");
  } else if (host_.is_starting()) {
    refuse(RefuseCode::kStarting, "node '" + self.host_name + "' is starting", "");
  } else if (!host_.is_primary(&primary_url)) {
    refuse(RefuseCode::kNotPrimary,
           "node '" + self.host_name +
               "' is not the primary: lease.advertise-url must be the primary's URL on every node" +
               (primary_url.empty() ? "" : ", and it has " + primary_url),
           primary_url);
  } else if (hello.epoch > self.epoch) {
    refuse(RefuseCode::kHigherEpoch,
           "this primary's epoch is " + std::to_string(self.epoch.value) + ", and replica '" + hello.host_name +
               "' has seen " + std::to_string(hello.epoch.value) +
               ", as where it was a primary for a while: restart the primary, whose next epoch is above "
               "both; lease.candidate must be true on one node only",
           "");
    host_.higher_epoch_seen(hello.epoch, hello.node);
  } else {
    phase_ = Phase::kDatabasesHeld;
    send(wire::Welcome{.version = std::min(wire::kVersionMax, hello.version_max),
                       .cluster_id = self.cluster_id,
                       .node = self.node,
                       .epoch = self.epoch,
                       .host_name = self.host_name,
                       .url = self.url,
                       .wall_ms = clock_.wall_ms()});
  }
  return {};
}

void PrimarySession::refuse(RefuseCode code, const std::string& text, const std::string& primary_url) {
  const bool passes = code == RefuseCode::kStarting;
  (passes ? log_.info("replica refused") : log_.warning("replica refused"))
      .kv("address", stream_->peer())
      .kv("node", replica_.node)
      .kv("code", wire::refuse_code_name(code))
      .kv("reason", text);
  send(wire::Refuse{.code = code, .text = text, .primary_url = primary_url});
  stream_->finish();
  end({});
}

Status PrimarySession::on_databases_held(wire::DatabasesHeld page) {
  if (held_.size() + page.databases.size() > wire::kDatabasesMax) {
    refuse(RefuseCode::kTooMany,
           "this node takes " + std::to_string(wire::kDatabasesMax) + " databases from a replica at most", "");
    return {};
  }
  for (wire::DatabaseHeld& d : page.databases) {
    std::string name = d.name;
    if (!held_.emplace(name, std::move(d)).second) {
      return Error(ErrorCode::kCorrupt, "DATABASES_HELD: " + name + " is named twice");
    }
  }
  if (page.last) begin_streaming();
  return {};
}

void PrimarySession::begin_streaming() {
  phase_ = Phase::kStreaming;
  log_.info("replica connected")
      .kv("address", stream_->peer())
      .kv("node", replica_.node)
      .kv("host", replica_.host_name)
      .kv("databases", held_.size());
  owner_.joined(*this);
  host_.replica_joined(replica_);
  if (phase_ == Phase::kEnded) return;
  for (const PrimaryDatabase& database : host_.databases()) {
    auto held = held_.find(database.name);
    add_sender(database, held == held_.end() ? nullptr : &held->second);
    if (held != held_.end()) held_.erase(held);
  }
  for (const auto& [name, held] : held_) {
    send(wire::Database{.index = next_index_++, .name = name, .id = held.id, .how = wire::DatabaseHow::kUnknown});
  }
  held_.clear();
  heartbeat();
}

Status PrimarySession::on_ack(const wire::Ack& ack) {
  for (const wire::AckEntry& entry : ack.databases) {
    auto found = by_index_.find(entry.index);
    if (found == by_index_.end()) {
      if (entry.index < next_index_) continue;  // on its way while we ended it
      return Error(ErrorCode::kCorrupt, "ACK: an index that was never given");
    }
    DatabaseSender& sender = *found->second;
    TRY(sender.acked(entry.received, entry.durable));
    host_.replica_acked(replica_.node, sender.name(), sender.received(), sender.durable());
    if (phase_ == Phase::kEnded) return {};
  }
  return {};
}

Status PrimarySession::on_sums(wire::Sums sums) {
  auto found = by_index_.find(sums.index);
  if (found != by_index_.end()) return found->second->answered(std::move(sums));
  if (sums.index < next_index_) return {};  // on its way while we ended it
  return Error(ErrorCode::kCorrupt, "SUMS: an index that was never given");
}

Status PrimarySession::on_goodbye(const wire::Goodbye& said) {
  log_.info("replica says goodbye")
      .kv("node", replica_.node)
      .kv("reason", wire::goodbye_reason_name(said.reason))
      .kv("text", said.text);
  stream_->finish();
  end(said.reason == wire::GoodbyeReason::kFailed ? Status(Error(ErrorCode::kUnavailable, "the replica: " + said.text))
                                                  : Status());
  return {};
}

// ---- databases
// --------------------------------------------------------------------------------------

void PrimarySession::add_sender(const PrimaryDatabase& database, const wire::DatabaseHeld* held) {
  if (database.name.empty() || database.name.size() > wire::kNameBytesMax) {
    log_.error("a database's name is too long to be replicated").kv("database", database.name);
    return;
  }
  SenderContext& context = *this;  // a private base: make_unique could not convert
  auto sender = std::make_unique<DatabaseSender>(context, database, held);
  DatabaseSender& s = *sender;
  senders_[database.name] = std::move(sender);
  s.begin();
}

void PrimarySession::remove_sender(const std::string& name) {
  auto found = senders_.find(name);
  DatabaseSender* sender = found->second.get();
  std::erase(waiting_for_turn_, sender);
  if (sender->in_turn()) turn_done();
  sender->end(wire::EndReason::kReplaced, "");
  senders_.erase(found);
}

void PrimarySession::committed(const std::string& name, DatabaseId id,
                               const std::shared_ptr<const CommitBatch>& batch) {
  // Before that, what is committed will be in the host's list.
  if (phase_ != Phase::kStreaming) return;
  auto found = senders_.find(name);
  if (found != senders_.end()) {
    DatabaseSender& sender = *found->second;
    if (sender.awaits_database()) return sender.committed(batch);
    if (sender.id() == id && sender.state() != DatabaseSender::State::kOver) {
      return sender.committed(batch);
    }
    remove_sender(name);
  }
  add_sender(PrimaryDatabase{.name = name, .id = id, .position = batch->after}, nullptr);
}

bool PrimarySession::has_room(size_t bytes) const {
  return stream_->queued_bytes() + bytes <= options_.queue_bytes_max;
}

uint32_t PrimarySession::take_index(DatabaseSender& sender) {
  by_index_[next_index_] = &sender;
  return next_index_++;
}

void PrimarySession::give_back_index(uint32_t index) { by_index_.erase(index); }

void PrimarySession::want_turn(DatabaseSender& sender) {
  if (sender.waits_for_turn) return;
  sender.waits_for_turn = true;
  waiting_for_turn_.push_back(&sender);
  stream_->at_turn_end();
}

void PrimarySession::turn_done() {
  CHECK(!running_turns_);  // a host answered from within the call
  --turns_;
  stream_->at_turn_end();
}

// First come, first served, one step each: no database keeps the others waiting. Stops when the
// queue is full; on_drained comes back here.
void PrimarySession::run_turns() {
  running_turns_ = true;
  while (phase_ == Phase::kStreaming && turns_ < kTurnsMax && !waiting_for_turn_.empty() && has_room(0)) {
    DatabaseSender* sender = waiting_for_turn_.front();
    waiting_for_turn_.pop_front();
    sender->waits_for_turn = false;
    ++turns_;
    sender->take_turn();
  }
  running_turns_ = false;
}

// ---- time
// -------------------------------------------------------------------------------------------

void PrimarySession::tick(int64_t now_ms) {
  if (phase_ == Phase::kEnded) return;
  now_ms_ = now_ms;
  watch_.tick(now_ms, stream_->bytes_read(), options_.times);
  if (phase_ != Phase::kStreaming && watch_.age_ms() >= options_.times.hello_deadline_ms) {
    return end(Error(ErrorCode::kTimedOut, "the replica did not introduce itself in time"));
  }
  if (watch_.silence_ms() >= options_.times.dead_peer_ms) {
    return end(Error(ErrorCode::kTimedOut,
                     "nothing heard from the replica for " + std::to_string(watch_.silence_ms()) + " ms"));
  }
  if (phase_ == Phase::kStreaming && now_ms - heartbeat_ms_ >= options_.times.heartbeat_ms) {
    heartbeat();
  }
}

void PrimarySession::heartbeat() {
  heartbeat_ms_ = now_ms_;
  std::vector<std::string> over;
  for (auto& [name, sender] : senders_) {
    sender->tick();
    if (sender->state() == DatabaseSender::State::kOver) over.push_back(name);
  }
  for (const std::string& name : over) remove_sender(name);
  // A full queue is a sign of life by itself; another one would only lengthen it.
  if (!has_room(0)) return;
  wire::Heartbeat beat{.wall_ms = clock_.wall_ms(), .databases = {}};
  for (auto& [name, sender] : senders_) {
    if (sender->index() == 0 || !sender->take_changed()) continue;
    const Position& p = sender->latest();
    beat.databases.push_back({.index = sender->index(), .position = p, .commit = p.txid});
    if (beat.databases.size() < wire::kHeartbeatEntriesMax) continue;
    send(beat);
    beat.databases.clear();
  }
  send(beat);
}

void PrimarySession::goodbye(wire::GoodbyeReason reason, const std::string& text, const std::string& new_primary_url) {
  if (phase_ == Phase::kEnded) return;
  send(wire::Goodbye{.reason = reason, .text = text, .new_primary_url = new_primary_url});
  stream_->finish();
  end(reason == wire::GoodbyeReason::kFailed ? Status(Error(ErrorCode::kCorrupt, text)) : Status());
}

// The senders stay until the session goes: one of them may be on the call stack.
void PrimarySession::end(const Status& why) {
  if (phase_ == Phase::kEnded) return;
  bool had_joined = phase_ == Phase::kStreaming;
  phase_ = Phase::kEnded;
  if (stream_->is_open()) stream_->close();  // unless it is sending our last words
  if (!why.ok()) {
    log_.warning("connection to a replica ended")
        .kv("address", stream_->peer())
        .kv("node", replica_.node)
        .error(why.error());
  }
  if (had_joined) host_.replica_left(replica_, why);
  owner_.ended(*this);
}

ReplicaStatus PrimarySession::status() const {
  ReplicaStatus out{.replica = replica_,
                    .address = stream_->peer(),
                    .connected_wall_ms = connected_wall_ms_,
                    .bytes_sent = stream_->bytes_written(),
                    .queued_bytes = stream_->queued_bytes(),
                    .databases = {}};
  for (const auto& [name, s] : senders_) {
    out.databases.push_back({.name = name,
                             .state = s->state_name(),
                             .sent = s->sent(),
                             .latest = s->latest(),
                             .received = s->received(),
                             .durable = s->durable()});
  }
  std::sort(out.databases.begin(), out.databases.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

}  // namespace litefs
