// Records and change logs for the tests of this room.
#pragma once

#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/log.h"
#include "changelog/change_log.h"
#include "changelog/record.h"
#include "env/file.h"

namespace litefs::test {

// From LITEFS_TEST_SEED, else drawn; printed, so that a failure can be run again.
inline uint64_t test_seed(const char* test) {
  const char* given = std::getenv("LITEFS_TEST_SEED");
  uint64_t seed = given ? std::strtoull(given, nullptr, 0) : std::random_device()();
  std::cout << test << ": LITEFS_TEST_SEED=" << seed << std::endl;
  return seed;
}

using Rng = std::mt19937_64;

inline size_t below(Rng& rng, size_t bound) { return static_cast<size_t>(rng() % bound); }

inline Bytes random_bytes(Rng& rng, size_t size) {
  Bytes bytes(size);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng());
  return bytes;
}

// Compressible, as rows of text are.
inline Bytes text_bytes(Rng& rng, size_t size) {
  Bytes bytes(size);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>("etaoin shrdlu,0123"[below(rng, 18)]);
  return bytes;
}

struct MadeRecord {
  LogEntryInfo info;
  Bytes bytes;

  ChangeLog::Entry entry() const { return {info, bytes}; }
};

// Makes records that follow one another, as a primary would.
class RecordMaker {
 public:
  static constexpr uint32_t kPageSize = 512;

  explicit RecordMaker(Position start = {}, Epoch epoch = Epoch{1}) : position_(start), epoch_(epoch) {}

  void set_epoch(Epoch epoch) { epoch_ = epoch; }
  const Position& position() const { return position_; }

  // The next record: one page whose bytes follow from the TXID.
  MadeRecord next(size_t pages = 1, uint64_t txids = 1) {
    RecordHeader header;
    header.database = DatabaseId{7};
    header.page_size = kPageSize;
    header.size_after = 1000000;
    header.epoch = epoch_;
    header.txid_first = TxId{position_.txid.value + 1};
    header.txid_last = TxId{position_.txid.value + txids};
    header.wall_ms = static_cast<int64_t>(1000 * header.txid_last.value);
    header.before = position_.checksum;
    header.origin = NodeId{9};
    PageCodec codec;
    RecordEncoder encoder(codec, header);
    Rng rng(header.txid_first.value);
    Checksum after = header.before;
    for (size_t i = 0; i < pages; ++i) {
      Pgno pgno = static_cast<Pgno>(i + 1);
      Bytes page = random_bytes(rng, kPageSize);
      Checksum hash = page_hash(pgno, page);
      after ^= hash;
      encoder.add_page(pgno, page, hash, {});
    }
    encoder.finish(after);
    MadeRecord made;
    made.bytes = encoder.take();
    made.info.position = {epoch_, header.txid_last, after};
    made.info.before = header.before;
    made.info.txid_first = header.txid_first;
    made.info.wall_ms = header.wall_ms;
    made.info.record_bytes = made.bytes.size();
    made.info.note.fill(static_cast<uint8_t>(header.txid_first.value));
    made.info.before_epoch = position_.epoch;
    position_ = made.info.position;
    return made;
  }

 private:
  Position position_;
  Epoch epoch_;
};

inline bool same_info(const LogEntryInfo& a, const LogEntryInfo& b) {
  return a.position == b.position && a.before == b.before && a.txid_first == b.txid_first && a.wall_ms == b.wall_ms &&
         a.record_bytes == b.record_bytes && a.note == b.note && a.before_epoch == b.before_epoch;
}

inline Result<Bytes> read_record(RecordSource& source) {
  Bytes bytes(static_cast<size_t>(source.size_bytes()));
  TRY(source.read(0, bytes));
  return bytes;
}

// A sink that keeps the lines.
class LinesSink final : public LogSink {
 public:
  void write(LogLevel, std::string_view line) override { lines.emplace_back(line); }
  std::vector<std::string> lines;
};

}  // namespace litefs::test
