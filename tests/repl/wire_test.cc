#include "repl/wire.h"

#include <functional>

#include "repl/fixture.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;
using wire::FrameReader;

namespace {

constexpr Position kPosition{Epoch{3}, TxId{300}, Checksum{0x1122334455667788}};

// One frame of each kind, as bytes.
std::vector<Bytes> sample_frames() {
  std::vector<Bytes> out;
  auto add = [&out](const auto& frame) { frame.append_to(out.emplace_back()); };
  add(wire::Hello{.cluster_id = 9, .node = NodeId{2}, .epoch = Epoch{300}, .host_name = "b", .url = "u"});
  add(wire::DatabasesHeld{.last = true, .databases = {{.name = "a.db", .id = DatabaseId{5}, .position = kPosition}}});
  add(wire::Welcome{
      .cluster_id = 9, .node = NodeId{1}, .epoch = Epoch{3}, .host_name = "a", .url = "u", .wall_ms = 77});
  add(wire::Refuse{.code = wire::RefuseCode::kNotPrimary, .text = "no", .primary_url = "http://x:1"});
  add(wire::Database{.index = 1, .name = "a.db", .id = DatabaseId{5}, .from = kPosition});
  add(wire::Database{.index = 2,
                     .name = "b.db",
                     .id = DatabaseId{5},
                     .how = wire::DatabaseHow::kSnapshot,
                     .reason = wire::SnapshotReason::kDiverged});
  add(wire::Database{.index = 3, .name = "c.db", .id = DatabaseId{5}, .how = wire::DatabaseHow::kUnknown});
  static const Bytes piece(10, 0xee);
  for (bool long_record : {false, true}) {
    wire::LogPiece p{.index = 200,
                     .begins = true,
                     .ends = !long_record,
                     .committed = !long_record,
                     .record_bytes = 1000,
                     .bytes = piece};
    if (long_record) p.commit = TxId{299};
    p.append_head_to(out.emplace_back());
    out.back().insert(out.back().end(), piece.begin(), piece.end());
  }
  add(wire::Database{.index = 4,
                     .name = "d.db",
                     .id = DatabaseId{5},
                     .how = wire::DatabaseHow::kDifference,
                     .reason = wire::SnapshotReason::kTooOld});
  add(wire::SnapshotBegin{
      .index = 2, .start = kPosition, .estimated_bytes = 123456, .page_size = 4096, .size_pages = 31});
  add(wire::SumsWanted{.index = 4, .question = {.of_pages = false, .ranges = {0, 1, 700, 70000}}});
  add(wire::SumsWanted{.index = 4, .question = {.of_pages = true, .ranges = {kRangesEnd - 1}}});
  add(wire::Sums{.index = 4, .of_pages = false, .sums = {Checksum{1}, Checksum{UINT64_MAX}}});
  add(wire::Sums{.index = 4, .of_pages = true, .sums = std::vector<Checksum>(kRangePages)});
  wire::SnapshotData{.index = 2, .bytes = piece}.append_head_to(out.emplace_back());
  out.back().insert(out.back().end(), piece.begin(), piece.end());
  add(wire::SnapshotEnd{.index = 2, .consistent_at = kPosition});
  add(wire::DatabaseEnd{.index = 2, .reason = wire::EndReason::kFailed, .text = "disk"});
  add(wire::Heartbeat{.wall_ms = 5, .databases = {{.index = 1, .position = kPosition, .commit = TxId{299}}}});
  add(wire::Ack{.databases = {{.index = 1, .received = TxId{7}, .durable = TxId{6}}}});
  add(wire::Goodbye{.reason = wire::GoodbyeReason::kHandoff, .text = "bye", .new_primary_url = "http://y"});
  return out;
}

// Parses a payload as what its type says. The error, or the frame written again.
Result<Bytes> parse_again(const wire::Frame& frame) {
  Bytes out;
  auto again = [&](auto parsed) -> Result<Bytes> {
    if (!parsed.ok()) return parsed.error();
    parsed.value().append_to(out);
    return out;
  };
  auto again_with_bytes = [&](auto parsed) -> Result<Bytes> {
    if (!parsed.ok()) return parsed.error();
    parsed.value().append_head_to(out);
    out.insert(out.end(), parsed.value().bytes.begin(), parsed.value().bytes.end());
    return out;
  };
  switch (frame.type) {
    case wire::FrameType::kHello: return again(wire::Hello::parse(frame.payload));
    case wire::FrameType::kDatabasesHeld: return again(wire::DatabasesHeld::parse(frame.payload));
    case wire::FrameType::kWelcome: return again(wire::Welcome::parse(frame.payload));
    case wire::FrameType::kRefuse: return again(wire::Refuse::parse(frame.payload));
    case wire::FrameType::kDatabase: return again(wire::Database::parse(frame.payload));
    case wire::FrameType::kLog: return again_with_bytes(wire::LogPiece::parse(frame.payload));
    case wire::FrameType::kSnapshotBegin: return again(wire::SnapshotBegin::parse(frame.payload));
    case wire::FrameType::kSnapshotData: return again_with_bytes(wire::SnapshotData::parse(frame.payload));
    case wire::FrameType::kSnapshotEnd: return again(wire::SnapshotEnd::parse(frame.payload));
    case wire::FrameType::kDatabaseEnd: return again(wire::DatabaseEnd::parse(frame.payload));
    case wire::FrameType::kHeartbeat: return again(wire::Heartbeat::parse(frame.payload));
    case wire::FrameType::kAck: return again(wire::Ack::parse(frame.payload));
    case wire::FrameType::kGoodbye: return again(wire::Goodbye::parse(frame.payload));
    case wire::FrameType::kSumsWanted: return again(wire::SumsWanted::parse(frame.payload));
    case wire::FrameType::kSums: return again(wire::Sums::parse(frame.payload));
  }
  return Error(ErrorCode::kCorrupt, "unknown type");
}

// Feeds bytes in pieces; how many frames came before the end or an error.
size_t read_all(ByteView bytes, size_t piece, const std::function<void(const wire::Frame&)>& each) {
  FrameReader reader(FrameReader::Preface::kSeen);
  size_t frames = 0;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    reader.feed(bytes.subspan(at, std::min(piece, bytes.size() - at)));
    for (;;) {
      auto frame = reader.next();
      if (!frame.ok()) return frames;
      if (!frame.value()) break;
      ++frames;
      each(*frame.value());
    }
  }
  return frames;
}

}  // namespace

TEST_CASE("every frame reads back as it was written, whatever the pieces it arrives in") {
  Bytes all;
  std::vector<Bytes> frames = sample_frames();
  for (const Bytes& f : frames) all.insert(all.end(), f.begin(), f.end());
  for (size_t piece : {size_t{1}, size_t{3}, size_t{7}, all.size()}) {
    Bytes again;
    size_t n = read_all(all, piece, [&](const wire::Frame& frame) {
      Bytes b = parse_again(frame).value();
      again.insert(again.end(), b.begin(), b.end());
    });
    CHECK(n == frames.size());
    CHECK(again == all);
  }
}

TEST_CASE("a frame cut at any byte is an error, unless later versions may append to it") {
  for (const Bytes& bytes : sample_frames()) {
    auto type = static_cast<wire::FrameType>(bytes[4]);
    ByteView payload = ByteView(bytes).subspan(wire::kFrameHeaderBytes);
    // The bytes of a piece have no structure; what is cut there shows when pieces are put together.
    bool ends_in_bytes = type == wire::FrameType::kLog || type == wire::FrameType::kSnapshotData;
    for (size_t n = 0; n < payload.size() - (ends_in_bytes ? 10 : 0); ++n) {
      CHECK_FALSE(parse_again({.type = type, .payload = payload.first(n)}).ok());
    }
    Bytes longer(payload.begin(), payload.end());
    longer.push_back(0);
    bool may_grow = type == wire::FrameType::kHello || type == wire::FrameType::kWelcome ||
                    type == wire::FrameType::kRefuse || type == wire::FrameType::kHeartbeat ||
                    type == wire::FrameType::kGoodbye || ends_in_bytes;
    CHECK(parse_again({.type = type, .payload = longer}).ok() == may_grow);
  }
}

TEST_CASE("flipped bits and random bytes never harm a decoder") {
  auto parse = [](const wire::Frame& frame) { (void)parse_again(frame).ok(); };
  for (const Bytes& bytes : sample_frames()) {
    for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      Bytes flipped = bytes;
      flipped[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
      read_all(flipped, flipped.size(), parse);
    }
  }
  std::mt19937_64 random(test_seed());
  std::vector<Bytes> samples = sample_frames();
  for (int round = 0; round < 20000; ++round) {
    Bytes bytes = samples[random() % samples.size()];
    if (round % 3 == 0) {
      bytes.resize(random() % 200);
      for (uint8_t& b : bytes) b = static_cast<uint8_t>(random());
      if (bytes.size() > 5) {
        store_le32(bytes.data(), static_cast<uint32_t>(bytes.size() - 5));
        bytes[4] = static_cast<uint8_t>(1 + random() % 16);
      }
    } else {
      for (uint64_t n = random() % 4 + 1; n > 0; --n) {
        bytes[random() % bytes.size()] = static_cast<uint8_t>(random());
      }
    }
    read_all(bytes, random() % 50 + 1, parse);
  }
}

TEST_CASE("unknown frames that may be ignored are, others and too long ones end the stream") {
  Bytes known = sample_frames()[0];
  Bytes stream = {3, 0, 0, 0, 0x81, 1, 2, 3};
  stream.insert(stream.end(), known.begin(), known.end());
  CHECK(read_all(stream, 2, [](const wire::Frame& f) { CHECK(f.type == wire::FrameType::kHello); }) == 1);

  auto error_of = [](Bytes bytes) {
    FrameReader reader(FrameReader::Preface::kSeen);
    reader.feed(bytes);
    return reader.next();
  };
  CHECK_FALSE(error_of({0, 0, 0, 0, 0x7f}).ok());
  CHECK_FALSE(error_of({0, 0, 0, 0, 0}).ok());
  CHECK_FALSE(error_of({0xff, 0xff, 0xff, 0x7f, 0x06}).ok());
  CHECK_FALSE(error_of({0, 0x40, 0, 0, 0x01}).ok());  // a HELLO of 16 KiB
  CHECK_FALSE(error_of({0, 0, 0x20, 0, 0x80}).ok());  // 2 MiB, even to be skipped
  CHECK(error_of({0, 0, 0x10, 0, 0x80}).ok());
}

TEST_CASE("a reader that expects the preface refuses anything else at its first wrong byte") {
  FrameReader good(FrameReader::Preface::kExpected);
  for (uint8_t b : wire::kPreface) {
    CHECK_FALSE(good.next().value());
    good.feed(ByteView(&b, 1));
  }
  good.feed(sample_frames()[0]);
  CHECK(good.next().value());
  FrameReader bad(FrameReader::Preface::kExpected);
  bad.feed(as_bytes("HTTP"));
  CHECK_FALSE(bad.next().ok());
}

TEST_CASE("ten thousand databases travel in pages") {
  std::vector<wire::DatabaseHeld> held;
  for (int i = 0; i < 10000; ++i) {
    held.push_back({.name = "directory/" + std::string(static_cast<size_t>(i % 500), 'x') + std::to_string(i),
                    .id = DatabaseId{static_cast<uint64_t>(i) + 1},
                    .position = kPosition});
  }
  Bytes bytes;
  wire::append_databases_held(held, bytes);
  size_t seen = 0;
  bool last = false;
  read_all(bytes, 65536, [&](const wire::Frame& frame) {
    auto page = wire::DatabasesHeld::parse(frame.payload).value();
    CHECK_FALSE(last);
    last = page.last;
    for (const auto& d : page.databases) CHECK(d.name == held[seen++].name);
  });
  CHECK(seen == held.size());
  CHECK(last);
}

TEST_CASE("a small record costs seven bytes on the wire") {
  Bytes head;
  Bytes record(500);
  wire::LogPiece{.index = 100, .begins = true, .ends = true, .committed = true, .record_bytes = 500, .bytes = record}
      .append_head_to(head);
  CHECK(head.size() == 7);
}
