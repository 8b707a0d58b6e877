// Large records, cuts, retention, and reading while the log changes.
#include <atomic>
#include <functional>
#include <thread>

#include "changelog/log_fixture.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

template <class T>
ErrorCode code_of(const Result<T>& result) {
  return result.error().code();
}

std::vector<uint8_t> all_bytes(LogFixture& f) {
  Bytes all;
  for (size_t i = 0; i < f.segments().size(); ++i) {
    Bytes segment = f.segment_bytes(i);
    all.insert(all.end(), segment.begin(), segment.end());
  }
  return all;
}

}  // namespace

TEST_CASE("a large record appears when it is committed, not before") {
  // In an empty log, in a segment that has room, and where a new segment is due.
  for (size_t before : {0u, 1u, 4u}) {
    LogFixture f(2000);
    f.append(before);
    std::unique_ptr<LogCursor> cursor = f.cursor_at(before);
    LogEnd end = f.log->end();
    f.records.push_back(f.maker.next(20));
    const MadeRecord& large = f.records.back();
    REQUIRE(f.log->begin_large().ok());
    ByteView bytes(large.bytes);
    for (size_t at = 0; at < bytes.size(); at += 1000) {
      REQUIRE(f.log->append_large(bytes.subspan(at, std::min<size_t>(1000, bytes.size() - at))).ok());
      REQUIRE_FALSE(cursor->next().value());
      REQUIRE(f.log->end() == end);
      REQUIRE(f.log->sync().ok());
    }
    REQUIRE(f.log->commit_large(large.info).ok());
    CHECK(f.yields(*cursor, before));
    f.append(3);
    CHECK(f.yields(*cursor, before + 1));
    REQUIRE(f.log->sync().ok());
    f.reopen();
    CHECK(f.sink->lines.empty());
    CHECK(f.yields(*f.cursor_at(0), 0));
  }
}

TEST_CASE("a large record that is not committed leaves nothing") {
  using Interrupt = std::function<void(LogFixture&, MadeRecord&)>;
  const Interrupt interrupts[] = {
      [](LogFixture& f, MadeRecord& large) {
        REQUIRE(f.log->begin_large().ok());
        REQUIRE(f.log->append_large(large.bytes).ok());
        f.log->abort_large();
        f.log->abort_large();
      },
      [](LogFixture& f, MadeRecord& large) {
        large.info.position.checksum.value ^= 1;
        CHECK(code_of(append_in_pieces(*f.log, large)) == ErrorCode::kInvalid);
      },
      [](LogFixture& f, MadeRecord& large) {
        REQUIRE(f.log->begin_large().ok());
        REQUIRE(f.log->append_large(ByteView(large.bytes).first(large.bytes.size() - 1)).ok());
        CHECK_FALSE(f.log->commit_large(large.info).ok());
      },
      // The process ends.
      [](LogFixture& f, MadeRecord& large) {
        LogEnd end = f.log->end();
        REQUIRE(f.log->begin_large().ok());
        REQUIRE(f.log->append_large(large.bytes).ok());
        f.reopen(end);
        CHECK(f.sink->lines.size() == 1);
      },
      [](LogFixture& f, MadeRecord& large) {
        REQUIRE(f.log->begin_large().ok());
        REQUIRE(f.log->append_large(large.bytes).ok());
        f.reopen();
        CHECK(f.sink->lines.size() == 1);
      },
  };
  for (const Interrupt& interrupt : interrupts) {
    for (size_t before : {0u, 1u, 4u}) {
      LogFixture f(2000);
      f.append(before);
      LogEnd end = f.log->end();
      Bytes bytes = all_bytes(f);
      RecordMaker at_end = f.maker;
      MadeRecord large = f.maker.next(20);
      interrupt(f, large);
      CHECK(f.log->end() == end);
      CHECK(all_bytes(f) == bytes);
      f.maker = at_end;
      f.append(3);
      CHECK(f.yields(*f.cursor_at(0), 0));
    }
  }
}

TEST_CASE("a cut leaves exactly what was before it, for good") {
  for (size_t kept = 0; kept <= 12; ++kept) {
    LogFixture f(1500);
    f.append(12);
    std::unique_ptr<LogCursor> cursor = f.cursor_at(0);
    REQUIRE(cursor->next().value());
    REQUIRE(f.log->cut_after(f.position_before(kept)).ok());
    if (kept < 12) {
      CHECK(code_of(cursor->next()) == ErrorCode::kDiverged);
    } else {
      CHECK(cursor->next().value());
    }
    f.records.resize(kept);
    if (kept > 0) {
      CHECK(same_info(*f.log->last(), f.records.back().info));
    } else {
      CHECK_FALSE(f.log->last());
    }
    CHECK(f.yields(*f.cursor_at(0), 0));
    // Another history begins there.
    f.maker = RecordMaker(f.position_before(kept), Epoch{2});
    f.append(4, 2);
    CHECK(f.yields(*f.cursor_at(kept), kept));
    f.reopen();
    CHECK(f.sink->lines.empty());
    CHECK(f.yields(*f.cursor_at(0), 0));
  }
}

TEST_CASE("a cut after a position that the log does not hold changes nothing") {
  LogFixture f(1500);
  f.append(8);
  LogEnd end = f.log->end();
  std::unique_ptr<LogCursor> cursor = f.cursor_at(0);
  for (size_t i = 1; i <= 8; ++i) {
    Position other = f.position_before(i);
    other.checksum.value ^= 1;
    CHECK(code_of(f.log->cut_after(other)) == ErrorCode::kNotFound);
  }
  CHECK(code_of(f.log->cut_after({Epoch{1}, TxId{99}, Checksum{1}})) == ErrorCode::kNotFound);
  CHECK(f.log->end() == end);
  CHECK(f.yields(*cursor, 0));
}

TEST_CASE("a log on a snapshot can be cut to the snapshot") {
  LogFixture f;
  Position snapshot{Epoch{2}, TxId{10}, Checksum{77}};
  CHECK(f.log->cut_after(snapshot).ok());
  f.maker = RecordMaker(snapshot, Epoch{2});
  f.append(2);
  CHECK(f.log->cut_after(snapshot).ok());
  CHECK_FALSE(f.log->last());
  CHECK(f.segments().empty());
}

TEST_CASE("a cleared log begins anew") {
  LogFixture f(1500);
  f.append(10);
  std::unique_ptr<LogCursor> cursor = f.cursor_at(3);
  REQUIRE(cursor->next().value());
  RecordSource& source = cursor->record();
  REQUIRE(f.log->clear().ok());
  CHECK(f.segments().empty());
  CHECK(f.log->size_bytes() == 0);
  CHECK_FALSE(f.log->last());
  Bytes record(10);
  CHECK(code_of(source.read(0, record)) == ErrorCode::kDiverged);
  CHECK(code_of(cursor->next()) == ErrorCode::kDiverged);
  f.records.clear();
  f.maker = RecordMaker();
  f.append(3);
  CHECK(f.yields(*f.cursor_at(0), 0));
}

TEST_CASE("retention by size removes the oldest segments, never the last") {
  LogFixture f(1500);
  f.append(20);
  size_t segments = f.segments().size();
  CHECK(f.log->trim({}).value() == 0);
  CHECK(f.log->trim({.bytes_max = f.log->size_bytes()}).value() == 0);
  uint64_t bound = f.log->size_bytes() / 2;
  size_t removed = f.log->trim({.bytes_max = bound}).value();
  CHECK(removed == segments - f.segments().size());
  CHECK(f.log->size_bytes() <= bound);
  CHECK(f.log->size_bytes() > bound - 3000);
  Position oldest = *f.log->oldest_before().value();
  CHECK(f.yields(*f.log->read_after(oldest).value(), oldest.txid.value));
  CHECK(code_of(f.log->read_after(f.position_before(1))) == ErrorCode::kNotFound);
  REQUIRE(f.log->trim({.bytes_max = 1}).ok());
  CHECK(f.segments().size() == 1);
  f.reopen();
  oldest = *f.log->oldest_before().value();
  CHECK(f.yields(*f.log->read_after(oldest).value(), oldest.txid.value));
}

TEST_CASE("retention tells every position that it makes the log forget, and an error keeps the segment") {
  LogFixture f(1500);
  f.append(20);
  std::vector<Position> told;
  REQUIRE(f.log
              ->trim({.bytes_max = 1,
                      .retiring =
                          [&](const std::vector<Position>& positions) {
                            told.insert(told.end(), positions.begin(), positions.end());
                            return Status();
                          }})
              .ok());
  REQUIRE_FALSE(told.empty());
  CHECK(told.front().txid.value == 1);
  CHECK(told.back() == *f.log->oldest_before().value());
  for (size_t i = 0; i < told.size(); ++i) CHECK(told[i] == f.position_before(i + 1));

  LogFixture kept(1500);
  kept.append(20);
  const size_t segments = kept.segments().size();
  auto refuse = [](const std::vector<Position>&) { return Status(Error(ErrorCode::kNoSpace, "full")); };
  CHECK_FALSE(kept.log->trim({.bytes_max = 1, .retiring = refuse}).ok());
  CHECK(kept.segments().size() == segments);
}

TEST_CASE("retention by age removes segments whose entries are all older") {
  LogFixture f(1500);
  f.append(20);  // the clock of entry n is n seconds
  REQUIRE(f.log->trim({.older_than_wall_ms = 9500}).ok());
  Position oldest = *f.log->oldest_before().value();
  CHECK(oldest.txid.value < 9);
  CHECK(oldest.txid.value >= 9 - 3);
}

TEST_CASE("retention keeps what is still needed, up to the hard bound") {
  LogFixture f(1500);
  f.append(20);
  CHECK(f.log->trim({.older_than_wall_ms = 100000, .bytes_max = 1, .keep_after = TxId{0}}).value() == 0);
  REQUIRE(f.log->trim({.bytes_max = 1, .keep_after = TxId{7}}).ok());
  Position oldest = *f.log->oldest_before().value();
  CHECK(oldest.txid.value <= 7);
  CHECK(oldest.txid.value > 7 - 3);
  // An entry that ends exactly at keep_after is not needed.
  REQUIRE(f.log->trim({.bytes_max = 1, .keep_after = TxId{20}}).ok());
  CHECK(f.segments().size() == 1);

  LogFixture full(1500);
  full.append(20);
  uint64_t hard = full.log->size_bytes() / 2;
  REQUIRE(full.log->trim({.bytes_max = 1, .bytes_hard_max = hard, .keep_after = TxId{0}}).ok());
  CHECK(full.log->size_bytes() <= hard);
  CHECK(full.log->size_bytes() > hard - 3000);
}

TEST_CASE("a cursor reads a trimmed segment to its end, and on where nothing is missing") {
  LogFixture f(1500);
  f.append(20);
  std::unique_ptr<LogCursor> first = f.cursor_at(0);
  REQUIRE(first->next().value());
  std::unique_ptr<LogCursor> also_first = f.cursor_at(0);
  REQUIRE(also_first->next().value());
  std::string first_segment = f.segments()[0];
  while (f.segments()[0] == first_segment) {
    REQUIRE(f.log->trim({.bytes_max = f.log->size_bytes() - 1}).value() == 1);
  }
  CHECK(f.yields(*first, 1));
  REQUIRE(f.log->trim({.bytes_max = 1}).ok());
  size_t read = 1;
  Result<bool> more = true;
  while ((more = also_first->next()).ok() && more.value()) {
    CHECK(same_info(also_first->info(), f.records[read++].info));
  }
  CHECK(code_of(more) == ErrorCode::kNotFound);
  CHECK(read >= 2);
  CHECK(read < 6);
}

TEST_CASE("a cursor may outlive its log") {
  LogFixture f(1500);
  f.append(8);
  std::unique_ptr<LogCursor> cursor = f.cursor_at(0);
  REQUIRE(cursor->next().value());
  f.log.reset();
  CHECK(f.yields(*cursor, 1));
}

TEST_CASE("cursors on other threads read everything while the log grows and is trimmed") {
  LogFixture f(20000);
  constexpr size_t kRecords = 1500;
  for (size_t i = 0; i < kRecords; ++i) f.records.push_back(f.maker.next(1 + i % 3));
  std::atomic<bool> wrong{false};
  std::atomic<uint64_t> slowest[2] = {0, 0};
  auto read = [&](size_t reader) {
    std::unique_ptr<LogCursor> cursor = f.cursor_at(0);
    for (size_t i = 0; i < kRecords && !wrong;) {
      Result<bool> more = cursor->next();
      if (!more.ok()) {
        wrong = true;
      } else if (more.value()) {
        Result<Bytes> record = read_record(cursor->record());
        if (!same_info(cursor->info(), f.records[i].info) || !record.ok() || record.value() != f.records[i].bytes) {
          wrong = true;
        }
        slowest[reader] = ++i;
        // A new cursor in the middle, found from either side.
        if (i % 100 == reader * 50) cursor = f.cursor_at(i);
      } else if (f.log->last() && f.log->last()->position.txid.value > i) {
        // An append that has returned must be seen.
        if (!cursor->next().value()) wrong = true;
        slowest[reader] = ++i;
      } else {
        std::this_thread::yield();
      }
    }
  };
  std::thread first(read, 0), second(read, 1);
  for (size_t i = 0; i < kRecords; ++i) {
    if (i % 11 == 5) {
      if (!append_in_pieces(*f.log, f.records[i]).ok()) wrong = true;
    } else if (!f.log->append({f.records[i].entry()}).ok()) {
      wrong = true;
    }
    if (i % 100 == 0) {
      uint64_t keep = std::min(slowest[0].load(), slowest[1].load());
      if (!f.log->trim({.bytes_max = 1, .keep_after = TxId{keep}}).ok()) wrong = true;
    }
  }
  first.join();
  second.join();
  CHECK_FALSE(wrong);
}
