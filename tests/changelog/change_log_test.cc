#include "changelog/change_log.h"

#include <xxhash.h>

#include <map>

#include "changelog/log_fixture.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

constexpr uint64_t kEnvelope = 112;

ErrorCode code_of(const Status& status) { return status.error().code(); }
template <class T>
ErrorCode code_of(const Result<T>& result) {
  return result.error().code();
}

}  // namespace

TEST_CASE("an entry's bytes are as specified") {
  LogFixture f;
  f.append(2);
  const MadeRecord& first = f.records[0];
  const MadeRecord& second = f.records[1];
  Bytes expected = {'L', 'F', 'E', '1', 0, 0, 0, 0};
  ByteWriter out(expected);
  out.le64(second.bytes.size());
  out.le64(kEnvelope + first.bytes.size());
  out.le64(1);
  out.le64(1);
  out.le64(2);
  out.le64(2);
  out.le64(second.info.before.value);
  out.le64(second.info.position.checksum.value);
  out.le64(2000);
  for (int i = 0; i < 24; ++i) out.u8(2);
  uint64_t offset = kEnvelope + first.bytes.size();
  out.le64(XXH3_64bits_withSeed(expected.data(), expected.size(), offset));
  out.bytes(second.bytes);
  REQUIRE(f.segments() == std::vector<std::string>{"0000000000000001-0000000000000001.seg"});
  Bytes segment = f.segment_bytes(0);
  CHECK(Bytes(segment.begin() + static_cast<long>(offset), segment.end()) == expected);
}

TEST_CASE("an empty log has no end, no start and takes a cursor that waits") {
  LogFixture f;
  CHECK_FALSE(f.log->last());
  CHECK(f.log->end() == LogEnd());
  CHECK(f.log->size_bytes() == 0);
  CHECK_FALSE(f.log->oldest_before().value());
  std::unique_ptr<LogCursor> cursor = f.cursor_at(0);
  CHECK_FALSE(cursor->next().value());
  f.append(3);
  CHECK(f.yields(*cursor, 0));
}

TEST_CASE("a log on a snapshot begins at the snapshot's position") {
  for (bool epoch_known : {true, false}) {
    LogFixture f;
    Position snapshot{Epoch{5}, TxId{100}, Checksum{0xabc}};
    std::unique_ptr<LogCursor> early = std::move(f.log->read_after(snapshot)).value();
    std::unique_ptr<LogCursor> wrong = std::move(f.log->read_after(Position())).value();
    f.maker = RecordMaker(snapshot, Epoch{6});
    f.records.push_back(f.maker.next());
    if (!epoch_known) f.records.back().info.before_epoch = Epoch{};
    REQUIRE(f.log->append({f.records.back().entry()}).ok());
    f.append(2);
    CHECK(f.yields(*early, 0));
    CHECK(code_of(wrong->next()) == ErrorCode::kNotFound);
    CHECK(f.yields(*std::move(f.log->read_after(snapshot)).value(), 0));
    Position oldest = *f.log->oldest_before().value();
    CHECK(oldest.epoch == (epoch_known ? Epoch{5} : Epoch{}));
    CHECK(oldest.txid == snapshot.txid);
    CHECK(oldest.checksum == snapshot.checksum);
    CHECK(f.yields(*std::move(f.log->read_after(oldest)).value(), 0));
    Position other_epoch{Epoch{4}, snapshot.txid, snapshot.checksum};
    CHECK(f.log->read_after(other_epoch).ok() == !epoch_known);
    CHECK(code_of(f.log->read_after({Epoch{5}, TxId{100}, Checksum{1}})) == ErrorCode::kNotFound);
    CHECK(code_of(f.log->read_after(Position())) == ErrorCode::kNotFound);
  }
}

TEST_CASE("a reopened log is the log that was closed") {
  LogFixture f(2000);
  f.append(20);
  f.maker.set_epoch(Epoch{3});
  f.append(20);
  CHECK(f.segments().size() > 5);
  LogEnd end = f.log->end();
  uint64_t size = f.log->size_bytes();
  for (int i = 0; i < 2; ++i) {
    f.reopen(i ? std::optional<LogEnd>(end) : std::nullopt);
    CHECK(f.sink->lines.empty());
    CHECK(f.log->end() == end);
    CHECK(f.log->size_bytes() == size);
    CHECK(same_info(*f.log->last(), f.records.back().info));
    CHECK(f.log->oldest_before().value() == std::optional<Position>(Position()));
    CHECK(f.yields(*f.cursor_at(0), 0));
  }
  f.append(5);
  CHECK(f.yields(*f.cursor_at(0), 0));
}

TEST_CASE("a batch may hold many records and epochs") {
  LogFixture f(3000);
  std::vector<ChangeLog::Entry> batch;
  for (int i = 0; i < 30; ++i) {
    if (i % 7 == 0) f.maker.set_epoch(Epoch{static_cast<uint64_t>(i + 1)});
    f.records.push_back(f.maker.next(1 + static_cast<size_t>(i) % 3, 1 + static_cast<uint64_t>(i) % 2));
  }
  for (int i = 0; i < 30; ++i) {
    batch.push_back(f.records[static_cast<size_t>(i)].entry());
    if (batch.size() == 4) {
      REQUIRE(f.log->append(batch).ok());
      batch.clear();
    }
  }
  REQUIRE(f.log->append(batch).ok());
  REQUIRE(f.log->append({}).ok());
  CHECK(f.yields(*f.cursor_at(0), 0));
  f.reopen();
  for (size_t i = 0; i <= f.records.size(); ++i) CHECK(f.yields(*f.cursor_at(i), i));
}

TEST_CASE("reading begins after any position of the log, and after no other") {
  LogFixture f(30000);
  for (int i = 0; i < 60; ++i) {
    f.records.push_back(f.maker.next(1, 2));
    REQUIRE(f.log->append({f.records.back().entry()}).ok());
  }
  REQUIRE(f.segments().size() == 2);
  for (size_t i = 0; i <= f.records.size(); ++i) {
    CHECK(f.yields(*f.cursor_at(i), i));
    Position position = f.position_before(i);
    Position other = position;
    other.checksum.value ^= 1;
    CHECK(code_of(f.log->read_after(other)) == ErrorCode::kNotFound);
    other = position;
    other.txid.value += 1;  // within a record of two transactions
    CHECK(code_of(f.log->read_after(other)) == ErrorCode::kNotFound);
    if (i == 0) continue;
    CHECK(f.log->find(position.txid).value()->position == position);
    if (i < f.records.size()) CHECK(f.log->find(other.txid).value()->position == f.position_before(i + 1));
    other = position;
    other.epoch.value += 1;
    CHECK(code_of(f.log->read_after(other)) == ErrorCode::kNotFound);
  }
  Position beyond = f.records.back().info.position;
  beyond.txid.value = ~0ull;
  CHECK(code_of(f.log->read_after(beyond)) == ErrorCode::kNotFound);
  CHECK_FALSE(f.log->find(beyond.txid).value());
  CHECK_FALSE(f.log->find(TxId{0}).value());
}

TEST_CASE("what does not follow is refused, and the log stays as it was") {
  LogFixture f;
  f.append(3);
  LogEnd end = f.log->end();
  RecordMaker other(f.position_before(2));
  MadeRecord second_third = other.next();
  second_third.info.wall_ms += 1;
  CHECK(code_of(f.log->append({second_third.entry()})) == ErrorCode::kInvalid);
  MadeRecord good = f.maker.next();
  MadeRecord after_gap = f.maker.next();
  CHECK(code_of(f.log->append({after_gap.entry()})) == ErrorCode::kInvalid);
  MadeRecord wrong = good;
  wrong.info.position.checksum.value ^= 1;
  CHECK(code_of(f.log->append({wrong.entry()})) == ErrorCode::kInvalid);
  wrong = good;
  wrong.info.position.epoch = Epoch{9};
  CHECK(code_of(f.log->append({wrong.entry()})) == ErrorCode::kInvalid);
  wrong = good;
  wrong.bytes = {1, 2, 3};
  CHECK_FALSE(f.log->append({wrong.entry()}).ok());
  CHECK(code_of(f.log->append({good.entry(), good.entry()})) == ErrorCode::kInvalid);
  RecordMaker older(f.maker.position(), Epoch{0});
  CHECK(code_of(f.log->append({older.next().entry()})) == ErrorCode::kInvalid);
  CHECK(f.log->end() == end);
  CHECK(f.log->append({good.entry(), after_gap.entry()}).ok());
}

TEST_CASE("a tail torn at any byte is cut, and logged") {
  LogFixture f;
  f.append(2);
  LogEnd kept = f.log->end();
  f.append(1);
  f.log.reset();
  const Bytes whole = f.segment_bytes(0);
  const std::string path = f.segment_path(0);
  for (uint64_t size = kept.offset_bytes; size < whole.size(); ++size) {
    // Cut short, or followed by zeros where the file system had not written yet.
    for (bool zeros : {false, true}) {
      Bytes torn(whole.begin(), whole.begin() + static_cast<long>(size));
      if (zeros) torn.resize(whole.size());
      if (torn == whole) continue;
      f.write_file(path, torn);
      f.reopen(size % 2 ? std::optional<LogEnd>(kept) : std::nullopt);
      REQUIRE(f.log->end() == kept);
      REQUIRE(f.sink->lines.size() == (torn.size() == kept.offset_bytes ? 0 : 1));
    }
  }
  CHECK(f.sink->lines.back().find("bytes=") != std::string::npos);
  f.records.pop_back();
  f.maker = RecordMaker(f.position_before(2));
  f.append(2);
  CHECK(f.yields(*f.cursor_at(0), 0));
}

TEST_CASE("a first entry that is torn leaves the segment before") {
  LogFixture f(1000);
  f.append(4);
  REQUIRE(f.segments().size() == 2);
  for (int torn_bytes : {0, 1, 500}) {
    f.log.reset();
    f.write_file(f.directory() + "/0000000000000001-0000000000000005.seg", Bytes(static_cast<size_t>(torn_bytes)));
    f.reopen();
    CHECK(f.segments().size() == 2);
    CHECK(f.sink->lines.size() == 1);
    CHECK(same_info(*f.log->last(), f.records.back().info));
  }
  f.append(1);
  CHECK(f.yields(*f.cursor_at(0), 0));
}

TEST_CASE("any flipped bit in the last segment costs its entry and those behind it, never a wrong byte") {
  LogFixture f;
  f.append(3);
  std::map<uint64_t, size_t> entries_of_end;
  uint64_t end = 0;
  entries_of_end[0] = 0;
  for (size_t i = 0; i < 3; ++i) {
    end += kEnvelope + f.records[i].bytes.size();
    entries_of_end[end] = i + 1;
  }
  const Bytes whole = f.segment_bytes(0);
  const std::string path = f.segment_path(0);
  for (size_t byte = 0; byte < whole.size(); ++byte) {
    Bytes flipped = whole;
    flipped[byte] ^= static_cast<uint8_t>(1 << byte % 8);
    f.log.reset();
    f.write_file(path, flipped);
    f.reopen();
    size_t intact = std::prev(entries_of_end.upper_bound(byte))->second;
    REQUIRE(f.log->end().offset_bytes == std::prev(entries_of_end.upper_bound(byte))->first);
    REQUIRE(f.yields(*f.cursor_at(0), 0, intact));
  }
}

TEST_CASE("entries before the known end are not read again") {
  LogFixture f;
  f.append(5);
  LogEnd known = f.log->end();
  f.append(2);
  LogEnd end = f.log->end();
  // In the record of the first entry, where only a full check would look.
  f.flip_byte(f.segment_path(0), kEnvelope + 60);
  f.reopen(known);
  CHECK(f.log->end() == end);
  CHECK(f.sink->lines.empty());
  // A known end that is none falls back to the full check.
  for (LogEnd wrong : {LogEnd{}, LogEnd{Epoch{1}, TxId{2}, known.offset_bytes, known.last_entry_bytes},
                       LogEnd{Epoch{1}, TxId{1}, known.offset_bytes, known.last_entry_bytes - 1},
                       LogEnd{Epoch{1}, TxId{1}, known.offset_bytes, known.offset_bytes + 1},
                       LogEnd{Epoch{1}, TxId{1}, ~0ull, known.last_entry_bytes}}) {
    Bytes before = f.segment_bytes(0);
    f.reopen(wrong);
    CHECK_FALSE(f.log->last());
    CHECK(f.segments().empty());
    f.log.reset();
    f.write_file(f.directory() + "/0000000000000001-0000000000000001.seg", before);
  }
}

TEST_CASE("damage in an older segment is an error that names the place, never skipped") {
  LogFixture f(1000);
  f.append(6);
  REQUIRE(f.segments().size() == 3);
  const std::string path = f.segment_path(0);
  const Bytes whole = f.segment_bytes(0);
  const uint64_t second = kEnvelope + f.records[0].bytes.size();
  for (size_t byte = 0; byte < whole.size(); ++byte) {
    Bytes flipped = whole;
    flipped[byte] ^= static_cast<uint8_t>(1 << byte % 8);
    f.write_file(path, flipped);
    f.reopen();
    REQUIRE(f.sink->lines.empty());
    REQUIRE(same_info(*f.log->last(), f.records.back().info));
    bool in_first_envelope = byte < kEnvelope;
    bool in_second_envelope = byte >= second && byte < second + kEnvelope;
    Result<std::unique_ptr<LogCursor>> cursor = f.log->read_after(Position());
    if (!cursor.ok()) {
      REQUIRE(in_first_envelope);
      REQUIRE(code_of(cursor) == ErrorCode::kCorrupt);
      continue;
    }
    size_t read = 0;
    Result<bool> more = true;
    for (;;) {
      more = cursor.value()->next();
      if (!more.ok() || !more.value()) break;
      REQUIRE(same_info(cursor.value()->info(), f.records[read].info));
      Bytes record = read_record(cursor.value()->record()).value();
      if (record != f.records[read].bytes) {
        MemoryRecordSource source(record);
        Result<RecordReader> reader = RecordReader::open(source);
        REQUIRE((!reader.ok() || !reader.value().verify().ok()));
      }
      ++read;
    }
    if (in_second_envelope) {
      REQUIRE(read == 1);
      REQUIRE(code_of(more) == ErrorCode::kCorrupt);
      REQUIRE(more.error().message().find(path + " at byte " + std::to_string(second)) != std::string::npos);
    } else {
      REQUIRE(read == f.records.size());
    }
  }
}

TEST_CASE("a missing segment in the middle is an error") {
  LogFixture f(1000);
  f.append(6);
  std::unique_ptr<LogCursor> cursor = f.cursor_at(0);
  REQUIRE(f.files->remove(f.segment_path(1)).ok());
  f.reopen();
  cursor = f.cursor_at(0);
  CHECK(cursor->next().value());
  CHECK(cursor->next().value());
  CHECK(code_of(cursor->next()) == ErrorCode::kCorrupt);
}

TEST_CASE("a segment under a wrong name is an error") {
  LogFixture f;
  f.append(2);
  f.log.reset();
  REQUIRE(f.files->rename(f.segment_path(0), f.directory() + "/0000000000000001-0000000000000002.seg").ok());
  CHECK(code_of(f.open()) == ErrorCode::kCorrupt);
}

TEST_CASE("files that are no segments are left alone") {
  LogFixture f;
  f.append(1);
  f.write_file(f.directory() + "/README", Bytes{1});
  f.write_file(f.directory() + "/000000000000000A-0000000000000009.seg", Bytes{1});
  f.reopen();
  CHECK(f.yields(*f.cursor_at(0), 0));
  CHECK(f.segments().size() == 3);
}
