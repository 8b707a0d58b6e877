// Limits, names, the frame reader, and the frames of introduction and farewell.
#include "repl/wire.h"

#include <algorithm>

#include "repl/wire_inside.h"

namespace litefs::wire {
namespace {

constexpr uint8_t kSkippable = 0x80;
constexpr uint8_t kLastPage = 1;
constexpr size_t kSmallFrameMax = 8192;  // names, texts, urls and numbers

}  // namespace

Result<size_t> frame_payload_max(uint8_t type) {
  switch (static_cast<FrameType>(type)) {
    case FrameType::kHello:
    case FrameType::kWelcome:
    case FrameType::kRefuse:
    case FrameType::kDatabase:
    case FrameType::kSnapshotBegin:
    case FrameType::kSnapshotEnd:
    case FrameType::kDatabaseEnd:
    case FrameType::kGoodbye: return kSmallFrameMax;
    case FrameType::kDatabasesHeld: return kPageBytesMax + kSmallFrameMax;
    case FrameType::kLog: return kLogPieceMax + 32;
    case FrameType::kSnapshotData: return kSnapshotPieceMax + 8;
    case FrameType::kHeartbeat: return kHeartbeatEntriesMax * (kPositionBytesMax + 16) + 32;
    case FrameType::kAck: return kAckEntriesMax * 26 + 16;
    case FrameType::kSumsWanted: return kRangeSumsMax * 4 + 16;
    case FrameType::kSums: return kPageSumRangesMax * kRangePages * 8 + 16;
  }
  if (type & kSkippable) return kFramePayloadMax;
  return Error(ErrorCode::kCorrupt, "the peer sent a frame of unknown type " + std::to_string(type));
}

const char* refuse_code_name(RefuseCode code) {
  switch (code) {
    case RefuseCode::kOther: return "other";
    case RefuseCode::kVersion: return "version";
    case RefuseCode::kWrongCluster: return "wrong-cluster";
    case RefuseCode::kOwnNode: return "own-node";
    case RefuseCode::kNotPrimary: return "not-primary";
    case RefuseCode::kHigherEpoch: return "higher-epoch";
    case RefuseCode::kTooMany: return "too-many";
    case RefuseCode::kStarting: return "starting";
  }
  return "?";
}

const char* snapshot_reason_name(SnapshotReason reason) {
  switch (reason) {
    case SnapshotReason::kNew: return "new";
    case SnapshotReason::kTooOld: return "too-old";
    case SnapshotReason::kDiverged: return "diverged";
    case SnapshotReason::kAnotherDatabase: return "another-database";
  }
  return "?";
}

const char* goodbye_reason_name(GoodbyeReason reason) {
  switch (reason) {
    case GoodbyeReason::kOther: return "other";
    case GoodbyeReason::kStopping: return "stopping";
    case GoodbyeReason::kHandoff: return "handoff";
    case GoodbyeReason::kFailed: return "failed";
    case GoodbyeReason::kReplaced: return "replaced";
  }
  return "?";
}

void Hello::append_to(Bytes& out) const {
  FrameBuilder frame(out, FrameType::kHello);
  ByteWriter w(out);
  w.varint(version_min);
  w.varint(version_max);
  w.u8(kind);
  w.le64(cluster_id);
  w.le64(node.value);
  w.varint(epoch.value);
  w.string(bounded(host_name));
  w.string(bounded(url));
  frame.finish();
}

Result<Hello> Hello::parse(ByteView payload) {
  ByteReader r(payload, "HELLO");
  Hello h;
  h.version_min = TRY(r.varint());
  h.version_max = TRY(r.varint());
  h.kind = TRY(r.u8());
  h.cluster_id = TRY(r.le64());
  h.node.value = TRY(r.le64());
  h.epoch.value = TRY(r.varint());
  h.host_name = TRY(r.string(kTextBytesMax));
  h.url = TRY(r.string(kTextBytesMax));
  if (h.version_min > h.version_max) return bad("HELLO", "the version range is empty");
  if (h.node.value == 0) return bad("HELLO", "the node id is missing");
  return h;
}

void DatabasesHeld::append_to(Bytes& out) const {
  FrameBuilder frame(out, FrameType::kDatabasesHeld);
  ByteWriter w(out);
  w.u8(last ? kLastPage : 0);
  w.varint(databases.size());
  for (const DatabaseHeld& d : databases) {
    w.string(d.name);
    w.le64(d.id.value);
    put_position(w, d.position);
  }
  frame.finish();
}

Result<DatabasesHeld> DatabasesHeld::parse(ByteView payload) {
  ByteReader r(payload, "DATABASES_HELD");
  uint8_t flags = TRY(r.u8());
  if (flags > kLastPage) return bad("DATABASES_HELD", "unknown flags");
  uint64_t count = TRY(r.varint());
  if (count > kPageEntriesMax) return bad("DATABASES_HELD", "too many databases");
  DatabasesHeld page;
  page.last = flags == kLastPage;
  for (uint64_t i = 0; i < count; ++i) {
    DatabaseHeld& d = page.databases.emplace_back();
    d.name = TRY(r.string(kNameBytesMax));
    d.id.value = TRY(r.le64());
    d.position = TRY(get_position(r));
    if (d.name.empty()) return bad("DATABASES_HELD", "a database has no name");
  }
  TRY(at_end(r, "DATABASES_HELD"));
  return page;
}

void append_databases_held(const std::vector<DatabaseHeld>& databases, Bytes& out) {
  DatabasesHeld page;
  size_t bytes = 0;
  for (const DatabaseHeld& d : databases) {
    CHECK_LE(d.name.size(), kNameBytesMax);
    size_t entry = d.name.size() + 10 + kPositionBytesMax;
    if (page.databases.size() == kPageEntriesMax || bytes + entry > kPageBytesMax) {
      page.append_to(out);
      page.databases.clear();
      bytes = 0;
    }
    page.databases.push_back(d);
    bytes += entry;
  }
  page.last = true;
  page.append_to(out);
}

void Welcome::append_to(Bytes& out) const {
  FrameBuilder frame(out, FrameType::kWelcome);
  ByteWriter w(out);
  w.varint(version);
  w.le64(cluster_id);
  w.le64(node.value);
  w.varint(epoch.value);
  w.string(bounded(host_name));
  w.string(bounded(url));
  w.varint(time_bits(wall_ms));
  frame.finish();
}

Result<Welcome> Welcome::parse(ByteView payload) {
  ByteReader r(payload, "WELCOME");
  Welcome h;
  h.version = TRY(r.varint());
  h.cluster_id = TRY(r.le64());
  h.node.value = TRY(r.le64());
  h.epoch.value = TRY(r.varint());
  h.host_name = TRY(r.string(kTextBytesMax));
  h.url = TRY(r.string(kTextBytesMax));
  h.wall_ms = TRY(get_time(r, "WELCOME"));
  if (h.version < kVersionMin || h.version > kVersionMax) return bad("WELCOME", "unknown version");
  if (h.cluster_id == 0 || h.node.value == 0) return bad("WELCOME", "an id is missing");
  return h;
}

void Refuse::append_to(Bytes& out) const {
  FrameBuilder frame(out, FrameType::kRefuse);
  ByteWriter w(out);
  w.u8(static_cast<uint8_t>(code));
  w.string(bounded(text));
  w.string(bounded(primary_url));
  frame.finish();
}

Result<Refuse> Refuse::parse(ByteView payload) {
  ByteReader r(payload, "REFUSE");
  Refuse f;
  uint8_t code = TRY(r.u8());
  f.code = code <= static_cast<uint8_t>(RefuseCode::kStarting) ? static_cast<RefuseCode>(code) : RefuseCode::kOther;
  f.text = TRY(r.string(kTextBytesMax));
  f.primary_url = TRY(r.string(kTextBytesMax));
  return f;
}

void Goodbye::append_to(Bytes& out) const {
  FrameBuilder frame(out, FrameType::kGoodbye);
  ByteWriter w(out);
  w.u8(static_cast<uint8_t>(reason));
  w.string(bounded(text));
  w.string(bounded(new_primary_url));
  frame.finish();
}

Result<Goodbye> Goodbye::parse(ByteView payload) {
  ByteReader r(payload, "GOODBYE");
  Goodbye g;
  uint8_t reason = TRY(r.u8());
  g.reason = reason <= static_cast<uint8_t>(GoodbyeReason::kReplaced) ? static_cast<GoodbyeReason>(reason)
                                                                      : GoodbyeReason::kOther;
  g.text = TRY(r.string(kTextBytesMax));
  g.new_primary_url = TRY(r.string(kTextBytesMax));
  return g;
}

void FrameReader::feed(ByteView data) {
  // What was taken is dropped now and not at each frame, so that a frame costs no move of the rest.
  if (start_ > 0) {
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<ptrdiff_t>(start_));
    start_ = 0;
  }
  buffer_.insert(buffer_.end(), data.begin(), data.end());
}

Status FrameReader::take_preface() {
  size_t n = std::min(buffer_.size(), sizeof kPreface);
  if (!std::equal(kPreface, kPreface + n, buffer_.begin())) {
    return Error(ErrorCode::kCorrupt, "the peer does not speak the replication protocol");
  }
  if (n < sizeof kPreface) return {};
  preface_ = Preface::kSeen;
  start_ = n;
  return {};
}

Result<std::optional<Frame>> FrameReader::next() {
  if (preface_ == Preface::kExpected) {
    TRY(take_preface());
    if (preface_ == Preface::kExpected) return std::optional<Frame>();
  }
  for (;;) {
    ByteView rest = ByteView(buffer_).subspan(start_);
    if (rest.size() < kFrameHeaderBytes) return std::optional<Frame>();
    size_t length = load_le32(rest.data());
    uint8_t type = rest[4];
    size_t max = TRY(frame_payload_max(type));
    if (length > max) {
      return Error(ErrorCode::kCorrupt, "the peer sent a frame of type " + std::to_string(type) + " with " +
                                            std::to_string(length) + " bytes, more than " + std::to_string(max));
    }
    if (rest.size() < kFrameHeaderBytes + length) return std::optional<Frame>();
    start_ += kFrameHeaderBytes + length;
    if (type & kSkippable) continue;
    return std::optional<Frame>(
        Frame{.type = static_cast<FrameType>(type), .payload = rest.subspan(kFrameHeaderBytes, length)});
  }
}

}  // namespace litefs::wire
