#include "repl/database_sender.h"

namespace litefs {

using wire::DatabaseHow;
using wire::EndReason;
using wire::SnapshotReason;

DatabaseSender::DatabaseSender(SenderContext& context, const PrimaryDatabase& database, const wire::DatabaseHeld* held)
    : context_(context),
      name_(database.name),
      id_(database.id),
      readable_(database.readable),
      latest_(database.position) {
  if (!held) return;
  held_id_ = held->id;
  sent_ = held->position;
}

const char* DatabaseSender::state_name() const {
  switch (state_) {
    case State::kAwaited: return "awaited";
    case State::kOpening: return "opening";
    case State::kReading: return "catching-up";
    case State::kLive: return "live";
    case State::kStartingSnapshot:
    case State::kSnapshot:
    case State::kPagesBusy: return "snapshot";
    case State::kComparing: return "comparing";
    case State::kWaiting: return "failed";
    case State::kOver: return "over";
  }
  return "?";
}

void DatabaseSender::begin() {
  if (!readable_) {
    context_.log().warning("a database cannot be read now; replicas wait for it").kv("database", name_);
    state_ = State::kAwaited;
    retry_at_ms_ = context_.now_ms() + context_.retry_ms();
    return;
  }
  bool has_nothing = held_id_.value == 0 && sent_ == Position{};
  if (!has_nothing && held_id_ != id_) {
    snapshot_reason_ = SnapshotReason::kAnotherDatabase;
    needs_snapshot_ = compares_ = true;
    return go(State::kStartingSnapshot);
  }
  hold_ = context_.host().hold_log(name_, id_, sent_.txid);
  bool stands_there = held_id_ == id_ && sent_ == latest_;
  if (!stands_there) return go(State::kOpening);
  received_ = sent_.txid;
  announce(DatabaseHow::kContinue);
  state_ = State::kLive;
}

void DatabaseSender::look_for_database() {
  std::optional<PrimaryDatabase> found = context_.host().database(name_);
  if (found && !found->readable) {
    retry_at_ms_ = context_.now_ms() + context_.retry_ms();
    return;
  }
  if (!found) {
    const bool has_nothing = held_id_.value == 0 && sent_ == Position{};
    if (!has_nothing) return say_unknown();
    state_ = State::kOver;
    return;
  }
  readable_ = true;
  id_ = found->id;
  latest_ = found->position;
  begin();
}

void DatabaseSender::say_unknown() {
  announce(DatabaseHow::kUnknown);
  context_.give_back_index(index_);
  index_ = 0;
  state_ = State::kOver;
}

void DatabaseSender::go(State state) {
  state_ = state;
  context_.want_turn(*this);
}

// Wraps the end of a step: ignored when this sender is gone by then.
template <class T>
std::function<void(Result<T>)> DatabaseSender::step(void (DatabaseSender::*next)(Result<T>)) {
  in_turn_ = true;
  return [this, alive = std::weak_ptr<char>(alive_), next](Result<T> result) {
    if (alive.expired()) return;
    in_turn_ = false;
    context_.turn_done();
    if (state_ != State::kOver) (this->*next)(std::move(result));
  };
}

void DatabaseSender::take_turn() {
  PrimaryHost& host = context_.host();
  switch (state_) {
    case State::kOpening: return host.open_feed(name_, id_, sent_, step(&DatabaseSender::opened));
    case State::kReading: read_target_ = latest_; return feed_->read(kReadBytes, step(&DatabaseSender::read));
    case State::kStartingSnapshot:
      // Held before the copy begins: its start cannot be before what is the newest now.
      hold_ = host.hold_log(name_, id_, latest_.txid);
      return host.start_snapshot(name_, compares_, step(&DatabaseSender::snapshot_started));
    case State::kSnapshot: return snapshot_->read(wire::kSnapshotPieceMax, step(&DatabaseSender::snapshot_read));
    case State::kAwaited:
    case State::kLive:
    case State::kPagesBusy:
    case State::kComparing:
    case State::kWaiting:
    case State::kOver: break;
  }
  CHECK_EQ(state_name(), std::string("a state with a step"));  // others never ask for a turn
}

void DatabaseSender::opened(Result<std::unique_ptr<LogFeed>> feed) {
  if (!feed.ok()) {
    ErrorCode code = feed.error().code();
    bool no_way = code == ErrorCode::kNotFound || code == ErrorCode::kDiverged;
    // Right behind a snapshot it would only lead to the next one, at once and for ever.
    if (!no_way || needs_snapshot_) return fail(feed.error());
    return snapshot_instead(feed.error());
  }
  needs_snapshot_ = false;
  held_id_ = id_;
  received_ = std::max(received_, sent_.txid);  // its own claim
  feed_ = std::move(feed).value();
  if (index_ == 0) announce(DatabaseHow::kContinue);
  go(State::kReading);
}

void DatabaseSender::snapshot_instead(const Error& why) {
  bool is_new = held_id_.value == 0 && sent_ == Position{};
  bool diverged = why.code() == ErrorCode::kDiverged || latest_.before(sent_);
  snapshot_reason_ = is_new ? SnapshotReason::kNew : diverged ? SnapshotReason::kDiverged : SnapshotReason::kTooOld;
  if (index_ != 0) end(EndReason::kResync, why.message());
  feed_.reset();
  needs_snapshot_ = true;
  compares_ = !is_new;
  go(State::kStartingSnapshot);
}

// A failure is this database's alone; the others go on.
void DatabaseSender::fail(const Error& error) {
  context_.log().error("sending a database failed").kv("database", name_).error(error);
  if (index_ != 0) end(EndReason::kFailed, error.message());
  feed_.reset();
  snapshot_.reset();
  pages_busy_since_ms_.reset();
  state_ = State::kWaiting;
  retry_at_ms_ = context_.now_ms() + context_.retry_ms();
}

void DatabaseSender::tick() {
  if (state_ == State::kPagesBusy) return go(State::kSnapshot);
  const bool waits = state_ == State::kWaiting || state_ == State::kAwaited;
  if (!waits || context_.now_ms() < retry_at_ms_) return;
  if (state_ == State::kAwaited) return look_for_database();
  go(needs_snapshot_ ? State::kStartingSnapshot : State::kOpening);
}

void DatabaseSender::announce(DatabaseHow how) {
  index_ = context_.take_index(*this);
  changed_ = true;
  scratch_.clear();
  wire::Database{.index = index_, .name = name_, .id = id_, .how = how, .from = sent_, .reason = snapshot_reason_}
      .append_to(scratch_);
  context_.stream().write(ByteView(scratch_));
}

void DatabaseSender::end(EndReason reason, const std::string& text) {
  if (index_ != 0) {
    scratch_.clear();
    wire::DatabaseEnd{.index = index_, .reason = reason, .text = text}.append_to(scratch_);
    context_.stream().write(ByteView(scratch_));
    context_.give_back_index(index_);
  }
  index_ = 0;
  record_bytes_sent_ = 0;  // the replica forgets what it had of it
}

void DatabaseSender::read(Result<FeedChunk> chunk) {
  if (!chunk.ok()) {
    if (chunk.error().code() == ErrorCode::kNotFound) return snapshot_instead(chunk.error());
    if (chunk.error().code() != ErrorCode::kDiverged) return fail(chunk.error());
    end(EndReason::kResync,
        chunk.error().message());  // the log was cut: look again where it stands
    feed_.reset();
    return go(State::kOpening);
  }
  const FeedChunk& c = chunk.value();
  for (const FeedPiece& piece : c.pieces) {
    Status sent = send_piece(c, piece);
    if (!sent.ok()) return fail(sent.error());
    if (state_ == State::kOver) return;
  }
  if (c.pieces.empty() && (record_bytes_sent_ > 0 || sent_.before(read_target_))) {
    return fail(Error(ErrorCode::kCorrupt, "the log of " + name_ + " ends before what was committed (TXID " +
                                               hex16(sent_.txid.value) + " of " + hex16(read_target_.txid.value) +
                                               ")"));
  }
  bool caught_up = record_bytes_sent_ == 0 && !sent_.before(latest_);
  if (!caught_up) return context_.want_turn(*this);
  feed_.reset();
  state_ = State::kLive;
}

void DatabaseSender::snapshot_started(Result<SnapshotStart> start) {
  if (!start.ok()) {
    if (start.error().code() != ErrorCode::kNotFound) return fail(start.error());
    return say_unknown();
  }
  SnapshotStart& s = start.value();
  id_ = held_id_ = s.id;
  sent_ = s.start;
  received_ = durable_ = TxId{};
  if (latest_.before(sent_)) latest_ = sent_;
  snapshot_ = std::move(s.feed);
  announce(compares_ ? DatabaseHow::kDifference : DatabaseHow::kSnapshot);
  scratch_.clear();
  wire::SnapshotBegin{.index = index_,
                      .start = s.start,
                      .estimated_bytes = s.estimated_bytes,
                      .page_size = s.page_size,
                      .size_pages = s.size_pages}
      .append_to(scratch_);
  context_.stream().write(ByteView(scratch_));
  context_.log()
      .info(compares_ ? "sending the difference" : "sending a snapshot")
      .kv("database", name_)
      .kv("reason", wire::snapshot_reason_name(snapshot_reason_))
      .kv("start", s.start.txid);
  go(State::kSnapshot);
}

void DatabaseSender::snapshot_read(Result<SnapshotChunk> chunk) {
  if (!chunk.ok()) {
    const bool busy = chunk.error().code() == ErrorCode::kBusy;
    return busy ? wait_for_pages(chunk.error()) : fail(chunk.error());
  }
  pages_busy_since_ms_.reset();
  if (chunk.value().question) {
    question_ = std::move(*chunk.value().question);
    scratch_.clear();
    wire::SumsWanted{.index = index_, .question = question_}.append_to(scratch_);
    context_.stream().write(ByteView(scratch_));
    state_ = State::kComparing;
    return;
  }
  auto c = std::make_shared<const SnapshotChunk>(std::move(chunk).value());
  for (size_t at = 0; at < c->bytes.size(); at += wire::kSnapshotPieceMax) {
    size_t n = std::min(c->bytes.size() - at, wire::kSnapshotPieceMax);
    wire::SnapshotData data{.index = index_, .bytes = ByteView(c->bytes).subspan(at, n)};
    scratch_.clear();
    data.append_head_to(scratch_);
    context_.stream().write(ByteView(scratch_));
    context_.stream().write(c, data.bytes);
  }
  if (!c->last) return context_.want_turn(*this);
  scratch_.clear();
  wire::SnapshotEnd{.index = index_, .consistent_at = c->consistent_at}.append_to(scratch_);
  context_.stream().write(ByteView(scratch_));
  snapshot_.reset();
  if (latest_.before(c->consistent_at)) latest_ = c->consistent_at;
  go(State::kOpening);
}

void DatabaseSender::wait_for_pages(const Error& why) {
  const int64_t now_ms = context_.now_ms();
  if (!pages_busy_since_ms_) {
    pages_busy_since_ms_ = now_ms;
    context_.log().debug("a copy waits for a transaction's end").kv("database", name_).error(why);
  }
  if (now_ms - *pages_busy_since_ms_ > kPagesBusyMaxMs) return fail(why);
  state_ = State::kPagesBusy;
}

Status DatabaseSender::answered(wire::Sums sums) {
  bool was_asked =
      state_ == State::kComparing && sums.of_pages == question_.of_pages && sums.sums.size() == question_.answer_sums();
  if (!was_asked) return Error(ErrorCode::kCorrupt, "SUMS: of " + name_ + ", as nobody asked for");
  snapshot_->answer(std::move(sums.sums));
  go(State::kSnapshot);
  return {};
}

// ---- records
// ----------------------------------------------------------------------------------------

bool DatabaseSender::follows(const RecordPlace& place) const {
  return place.txid_first.value == sent_.txid.value + 1 && place.before == sent_.checksum &&
         place.after.txid >= place.txid_first && place.after.epoch >= sent_.epoch;
}

void DatabaseSender::write_piece(const wire::LogPiece& piece, std::shared_ptr<const void> owner) {
  scratch_.clear();
  piece.append_head_to(scratch_);
  context_.stream().write(ByteView(scratch_));
  context_.stream().write(std::move(owner), piece.bytes);
}

void DatabaseSender::record_sent(const RecordPlace& place) {
  sent_ = place.after;
  record_bytes_sent_ = 0;
  if (latest_.before(sent_)) {
    latest_ = sent_;
    changed_ = true;
  }
  if (!place.drops) return;
  end(EndReason::kDropped, "");
  state_ = State::kOver;
}

Status DatabaseSender::send_piece(const FeedChunk& chunk, const FeedPiece& piece) {
  bool in_order = piece.offset_bytes == record_bytes_sent_ && !piece.bytes.empty() &&
                  piece.offset_bytes + piece.bytes.size() <= piece.place.record_bytes;
  if (!in_order || !follows(piece.place)) {
    return Error(ErrorCode::kCorrupt, "the log of " + name_ + " does not go on after " + position_text(sent_) +
                                          ": it has TXID " + hex16(piece.place.txid_first.value));
  }
  for (size_t at = 0; at < piece.bytes.size(); at += wire::kLogPieceMax) {
    wire::LogPiece out{.index = index_,
                       .begins = record_bytes_sent_ == 0,
                       .record_bytes = piece.place.record_bytes,
                       .bytes = piece.bytes.subspan(at, std::min(piece.bytes.size() - at, wire::kLogPieceMax))};
    record_bytes_sent_ += out.bytes.size();
    out.ends = out.committed = record_bytes_sent_ == piece.place.record_bytes;
    write_piece(out, chunk.owner);
  }
  if (piece.ends()) record_sent(piece.place);
  return {};
}

void DatabaseSender::send_record(const std::shared_ptr<const CommitBatch>& batch, const CommitBatch::Record& record) {
  for (size_t at = 0; at < record.bytes.size(); at += wire::kLogPieceMax) {
    size_t n = std::min(record.bytes.size() - at, wire::kLogPieceMax);
    bool ends = at + n == record.bytes.size();
    write_piece(wire::LogPiece{.index = index_,
                               .begins = at == 0,
                               .ends = ends,
                               .committed = ends,
                               .record_bytes = record.bytes.size(),
                               .bytes = ByteView(record.bytes).subspan(at, n)},
                batch);
  }
  record_sent(record.place);
}

void DatabaseSender::committed(const std::shared_ptr<const CommitBatch>& batch) {
  if (state_ == State::kAwaited) return look_for_database();  // it can be read now
  if (latest_.before(batch->after)) {
    latest_ = batch->after;
    changed_ = true;
  }
  if (state_ != State::kLive || !sent_.before(batch->after)) return;
  // Behind: the log has everything, and its feed is read when the queue has drained.
  if (batch->records.empty() || !context_.has_room(batch->bytes)) return go(State::kOpening);
  for (const CommitBatch::Record& record : batch->records) {
    if (!sent_.before(record.place.after)) continue;
    if (!follows(record.place)) return go(State::kOpening);
    send_record(batch, record);
    if (state_ == State::kOver) return;
  }
}

Status DatabaseSender::acked(TxId received, TxId durable) {
  if (received > sent_.txid) {
    return Error(ErrorCode::kCorrupt, "ACK: " + name_ + " through TXID " + hex16(received.value) + ", but only " +
                                          hex16(sent_.txid.value) + " was sent");
  }
  received_ = std::max(received_, received);
  if (durable > durable_ && hold_) hold_->advance(durable);
  durable_ = std::max(durable_, durable);
  return {};
}

}  // namespace litefs
