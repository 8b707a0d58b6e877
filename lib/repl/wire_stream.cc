// The frames of databases, records, snapshots, heartbeats and acknowledgements.
#include <utility>

#include "repl/wire_inside.h"

namespace litefs::wire {
namespace {

constexpr uint8_t kLogBegins = 1;
constexpr uint8_t kLogEnds = 2;
constexpr uint8_t kLogCommitted = 4;
constexpr uint8_t kLogCommitFollows = 8;

Result<uint32_t> get_index(ByteReader& r, const char* frame) {
  uint64_t v = TRY(r.varint());
  if (v == 0 || v > UINT32_MAX) return bad(frame, "a database index is out of range");
  return static_cast<uint32_t>(v);
}

Result<bool> get_level(ByteReader& r, const char* frame) {
  uint8_t level = TRY(r.u8());
  if (level > 1) return bad(frame, "unknown level");
  return level == 1;
}

}  // namespace

void Database::append_to(Bytes& out) const {
  CHECK_LE(name.size(), kNameBytesMax);
  FrameBuilder frame(out, FrameType::kDatabase);
  ByteWriter w(out);
  w.varint(index);
  w.string(name);
  w.le64(id.value);
  w.u8(static_cast<uint8_t>(how));
  if (how == DatabaseHow::kContinue) put_position(w, from);
  if (how == DatabaseHow::kSnapshot || how == DatabaseHow::kDifference) {
    w.u8(static_cast<uint8_t>(reason));
  }
  frame.finish();
}

Result<Database> Database::parse(ByteView payload) {
  ByteReader r(payload, "DATABASE");
  Database d;
  d.index = TRY(get_index(r, "DATABASE"));
  d.name = TRY(r.string(kNameBytesMax));
  d.id.value = TRY(r.le64());
  uint8_t how = TRY(r.u8());
  if (d.name.empty()) return bad("DATABASE", "the name is empty");
  if (how > static_cast<uint8_t>(DatabaseHow::kDifference)) return bad("DATABASE", "unknown 'how'");
  d.how = static_cast<DatabaseHow>(how);
  if (d.how == DatabaseHow::kContinue) d.from = TRY(get_position(r));
  if (d.how == DatabaseHow::kSnapshot || d.how == DatabaseHow::kDifference) {
    uint8_t reason = TRY(r.u8());
    if (reason > static_cast<uint8_t>(SnapshotReason::kAnotherDatabase)) {
      return bad("DATABASE", "unknown reason");
    }
    d.reason = static_cast<SnapshotReason>(reason);
  }
  TRY(at_end(r, "DATABASE"));
  return d;
}

void LogPiece::append_head_to(Bytes& out) const {
  FrameBuilder frame(out, FrameType::kLog);
  ByteWriter w(out);
  w.varint(index);
  w.u8(static_cast<uint8_t>((begins ? kLogBegins : 0) | (ends ? kLogEnds : 0) | (committed ? kLogCommitted : 0) |
                            (commit ? kLogCommitFollows : 0)));
  if (begins && !ends) w.varint(record_bytes);
  if (commit) w.varint(commit->value);
  CHECK_LE(bytes.size(), kLogPieceMax);
  frame.finish(bytes.size());
}

Result<LogPiece> LogPiece::parse(ByteView payload) {
  ByteReader r(payload, "LOG");
  LogPiece p;
  p.index = TRY(get_index(r, "LOG"));
  uint8_t flags = TRY(r.u8());
  if (flags > 15) return bad("LOG", "unknown flags");
  p.begins = flags & kLogBegins;
  p.ends = flags & kLogEnds;
  p.committed = flags & kLogCommitted;
  if (p.committed && !p.ends) return bad("LOG", "commits a record before its end");
  if (p.begins && !p.ends) p.record_bytes = TRY(r.varint());
  if (flags & kLogCommitFollows) p.commit = TxId{TRY(r.varint())};
  p.bytes = TRY(r.bytes(r.remaining()));
  if (p.bytes.empty()) return bad("LOG", "holds nothing");
  if (p.bytes.size() > kLogPieceMax) return bad("LOG", "the piece is too long");
  if (p.begins && p.ends) p.record_bytes = p.bytes.size();
  if (p.begins && !p.ends && p.record_bytes <= p.bytes.size()) {
    return bad("LOG", "the piece does not fit into its record");
  }
  return p;
}

void SnapshotBegin::append_to(Bytes& out) const {
  FrameBuilder frame(out, FrameType::kSnapshotBegin);
  ByteWriter w(out);
  w.varint(index);
  put_position(w, start);
  w.varint(estimated_bytes);
  w.varint(page_size);
  w.varint(size_pages);
  frame.finish();
}

Result<SnapshotBegin> SnapshotBegin::parse(ByteView payload) {
  ByteReader r(payload, "SNAPSHOT_BEGIN");
  SnapshotBegin s;
  s.index = TRY(get_index(r, "SNAPSHOT_BEGIN"));
  s.start = TRY(get_position(r));
  s.estimated_bytes = TRY(r.varint());
  uint64_t page_size = TRY(r.varint());
  uint64_t size_pages = TRY(r.varint());
  bool is_power = std::has_single_bit(page_size);
  if (page_size != 0 && (!is_power || page_size < kPageBytesMin || page_size > kPageBytesMax)) {
    return bad("SNAPSHOT_BEGIN", "no page size of SQLite's");
  }
  if (size_pages > UINT32_MAX - 1 || (size_pages != 0 && page_size == 0)) {
    return bad("SNAPSHOT_BEGIN", "the size in pages is out of range");
  }
  s.page_size = static_cast<uint32_t>(page_size);
  s.size_pages = static_cast<Pgno>(size_pages);
  TRY(at_end(r, "SNAPSHOT_BEGIN"));
  return s;
}

void SnapshotData::append_head_to(Bytes& out) const {
  CHECK_LE(bytes.size(), kSnapshotPieceMax);
  FrameBuilder frame(out, FrameType::kSnapshotData);
  ByteWriter(out).varint(index);
  frame.finish(bytes.size());
}

Result<SnapshotData> SnapshotData::parse(ByteView payload) {
  ByteReader r(payload, "SNAPSHOT_DATA");
  SnapshotData s;
  s.index = TRY(get_index(r, "SNAPSHOT_DATA"));
  s.bytes = TRY(r.bytes(r.remaining()));
  if (s.bytes.empty()) return bad("SNAPSHOT_DATA", "holds nothing");
  return s;
}

void SnapshotEnd::append_to(Bytes& out) const {
  FrameBuilder frame(out, FrameType::kSnapshotEnd);
  ByteWriter w(out);
  w.varint(index);
  put_position(w, consistent_at);
  frame.finish();
}

Result<SnapshotEnd> SnapshotEnd::parse(ByteView payload) {
  ByteReader r(payload, "SNAPSHOT_END");
  SnapshotEnd s;
  s.index = TRY(get_index(r, "SNAPSHOT_END"));
  s.consistent_at = TRY(get_position(r));
  TRY(at_end(r, "SNAPSHOT_END"));
  return s;
}

void SumsWanted::append_to(Bytes& out) const {
  CHECK_LE(question.ranges.size(), question.ranges_max());
  FrameBuilder frame(out, FrameType::kSumsWanted);
  ByteWriter w(out);
  w.varint(index);
  w.u8(question.of_pages);
  w.varint(question.ranges.size());
  uint32_t before = 0;
  for (uint32_t range : question.ranges) w.varint(range - std::exchange(before, range));
  frame.finish();
}

Result<SumsWanted> SumsWanted::parse(ByteView payload) {
  ByteReader r(payload, "SUMS_WANTED");
  SumsWanted s;
  s.index = TRY(get_index(r, "SUMS_WANTED"));
  s.question.of_pages = TRY(get_level(r, "SUMS_WANTED"));
  uint64_t count = TRY(r.varint());
  if (count == 0 || count > s.question.ranges_max()) {
    return bad("SUMS_WANTED", "the count is out of range");
  }
  uint64_t range = 0;
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t more = TRY(r.varint());
    if (more >= kRangesEnd || (i > 0 && more == 0)) return bad("SUMS_WANTED", "no such range");
    range += more;
    if (range >= kRangesEnd) return bad("SUMS_WANTED", "no such range");
    s.question.ranges.push_back(static_cast<uint32_t>(range));
  }
  TRY(at_end(r, "SUMS_WANTED"));
  return s;
}

void Sums::append_to(Bytes& out) const {
  FrameBuilder frame(out, FrameType::kSums);
  ByteWriter w(out);
  w.varint(index);
  w.u8(of_pages);
  w.varint(sums.size());
  for (Checksum sum : sums) w.le64(sum.value);
  frame.finish();
}

Result<Sums> Sums::parse(ByteView payload) {
  ByteReader r(payload, "SUMS");
  Sums s;
  s.index = TRY(get_index(r, "SUMS"));
  s.of_pages = TRY(get_level(r, "SUMS"));
  uint64_t count = TRY(r.varint());
  if (count == 0 || count > (s.of_pages ? kPageSumRangesMax * kRangePages : kRangeSumsMax)) {
    return bad("SUMS", "the count is out of range");
  }
  s.sums.reserve(static_cast<size_t>(count));
  for (uint64_t i = 0; i < count; ++i) s.sums.push_back(Checksum{TRY(r.le64())});
  TRY(at_end(r, "SUMS"));
  return s;
}

void DatabaseEnd::append_to(Bytes& out) const {
  FrameBuilder frame(out, FrameType::kDatabaseEnd);
  ByteWriter w(out);
  w.varint(index);
  w.u8(static_cast<uint8_t>(reason));
  w.string(bounded(text));
  frame.finish();
}

Result<DatabaseEnd> DatabaseEnd::parse(ByteView payload) {
  ByteReader r(payload, "DATABASE_END");
  DatabaseEnd e;
  e.index = TRY(get_index(r, "DATABASE_END"));
  uint8_t reason = TRY(r.u8());
  e.reason = reason <= static_cast<uint8_t>(EndReason::kResync) ? static_cast<EndReason>(reason) : EndReason::kOther;
  e.text = TRY(r.string(kTextBytesMax));
  TRY(at_end(r, "DATABASE_END"));
  return e;
}

void Heartbeat::append_to(Bytes& out) const {
  FrameBuilder frame(out, FrameType::kHeartbeat);
  ByteWriter w(out);
  w.varint(time_bits(wall_ms));
  w.varint(databases.size());
  for (const HeartbeatEntry& e : databases) {
    w.varint(e.index);
    put_position(w, e.position);
    w.varint(e.commit.value);
  }
  frame.finish();
}

Result<Heartbeat> Heartbeat::parse(ByteView payload) {
  ByteReader r(payload, "HEARTBEAT");
  Heartbeat h;
  h.wall_ms = TRY(get_time(r, "HEARTBEAT"));
  uint64_t count = TRY(r.varint());
  if (count > kHeartbeatEntriesMax) return bad("HEARTBEAT", "too many databases");
  for (uint64_t i = 0; i < count; ++i) {
    HeartbeatEntry& e = h.databases.emplace_back();
    e.index = TRY(get_index(r, "HEARTBEAT"));
    e.position = TRY(get_position(r));
    e.commit.value = TRY(r.varint());
    if (e.commit > e.position.txid) return bad("HEARTBEAT", "a commit is beyond its position");
  }
  return h;
}

void Ack::append_to(Bytes& out) const {
  FrameBuilder frame(out, FrameType::kAck);
  ByteWriter w(out);
  w.varint(databases.size());
  for (const AckEntry& e : databases) {
    w.varint(e.index);
    w.varint(e.received.value);
    w.varint(e.durable.value);
  }
  frame.finish();
}

Result<Ack> Ack::parse(ByteView payload) {
  ByteReader r(payload, "ACK");
  uint64_t count = TRY(r.varint());
  if (count > kAckEntriesMax) return bad("ACK", "too many databases");
  Ack a;
  for (uint64_t i = 0; i < count; ++i) {
    AckEntry& e = a.databases.emplace_back();
    e.index = TRY(get_index(r, "ACK"));
    e.received.value = TRY(r.varint());
    e.durable.value = TRY(r.varint());
    if (e.durable > e.received) return bad("ACK", "more is durable than was received");
  }
  TRY(at_end(r, "ACK"));
  return a;
}

}  // namespace litefs::wire
