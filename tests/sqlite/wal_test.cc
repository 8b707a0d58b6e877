#include "sqlite/wal.h"

#include "child.h"
#include "history.h"
#include "sqlite/wal_index.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

struct Scan {
  std::optional<WalHeader> header;
  WalScanResult result;
  uint32_t frames = 0;
};

Scan scan_file(const std::string& path, std::optional<WalAnchor> from = std::nullopt, uint32_t stop_at = UINT32_MAX) {
  auto wal = posix_file_system()->open(path, OpenMode::kReadOnly).value();
  Bytes bytes(kWalHeaderBytes);
  size_t n = wal->read_at(0, bytes).value();
  Scan scan;
  scan.header = WalHeader::parse(ByteView(bytes).first(n)).value();
  if (!scan.header) return scan;
  WalAnchor start{scan.header->salts, 0, {}};
  scan.result = scan_wal(*wal, *scan.header, from.value_or(start), [&](uint32_t frame, const WalFrame&, ByteView) {
                  ++scan.frames;
                  return frame < stop_at;
                }).value();
  return scan;
}

// A WAL of a few transactions, of small pages.
Bytes small_wal(const TempDir& dir) {
  std::mt19937_64 random(1);
  make_history(dir.path(), {.page_size = 512, .transactions = 5}, random);
  return read_file(dir.file("source.wal"));
}

}  // namespace

TEST_CASE("a WAL header round trips") {
  TempDir dir;
  Bytes file = small_wal(dir);
  WalHeader header = *WalHeader::parse(file).value();
  CHECK(header.page_size == 512);
  Bytes again(kWalHeaderBytes);
  header.store(again.data());
  CHECK(std::equal(again.begin(), again.end(), file.begin()));
  header.big_endian = true;
  header.store(again.data());
  CHECK(WalHeader::parse(again).value()->big_endian);
}

TEST_CASE("a WAL of another version is refused, a damaged header means no WAL") {
  TempDir dir;
  Bytes good = small_wal(dir);
  good.resize(kWalHeaderBytes);
  for (size_t n = 0; n < good.size(); ++n) CHECK_FALSE(WalHeader::parse(ByteView(good).first(n)).value());
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    CHECK_FALSE(WalHeader::parse(bad).value());
  }
  store_be32(good.data() + 4, 3007001);
  WalChecksum sum = wal_checksum(false, ByteView(good).first(24), {});
  store_be32(good.data() + 24, sum.a);
  store_be32(good.data() + 28, sum.b);
  CHECK(WalHeader::parse(good).error().code() == ErrorCode::kUnsupported);
}

TEST_CASE("an anchor round trips") {
  WalAnchor anchor{{1, 0xfffffffe}, 77, {0x12345678, 9}};
  uint8_t bytes[WalAnchor::kBytes];
  anchor.store(bytes);
  CHECK(WalAnchor::load(bytes) == anchor);
}

TEST_CASE("a scan goes on from any commit and finds the same end") {
  TempDir dir;
  small_wal(dir);
  std::string path = dir.file("source.wal");
  Scan whole = scan_file(path);
  REQUIRE(whole.result.end.frame == whole.frames);
  WalAnchor at{whole.header->salts, 0, {}};
  uint32_t seen = 0;
  for (uint32_t stop = 1; stop <= whole.frames; ++stop) {
    Scan part = scan_file(path, at, stop);
    seen += part.frames;
    if (part.result.end.frame < stop) {  // no commit frame: start over from the same anchor
      seen -= part.frames;
      continue;
    }
    CHECK(part.result.end.frame == stop);
    CHECK(part.result.size_pages > 0);
    at = part.result.end;
  }
  CHECK(seen == whole.frames);
  CHECK(at == whole.result.end);
  Scan nothing = scan_file(path, at);
  CHECK(nothing.frames == 0);
  CHECK(nothing.result.end == at);
  CHECK(nothing.result.size_pages == 0);
  at.salts.salt2 ^= 1;
  CHECK(scan_file(path, at).frames == 0);
}

TEST_CASE("a WAL that is cut anywhere ends at the commit before") {
  TempDir dir;
  Bytes good = small_wal(dir);
  Scan whole = scan_file(dir.file("source.wal"));
  std::vector<uint32_t> commits = {0};
  for (uint32_t stop = 1; stop <= whole.frames; ++stop) {
    uint32_t end = scan_file(dir.file("source.wal"), std::nullopt, stop).result.end.frame;
    if (end == stop) commits.push_back(end);
  }
  auto file = posix_file_system()->open(dir.file("cut.wal"), OpenMode::kCreate).value();
  file->write_at(0, good).value();
  size_t step = 7;  // every byte of the last frames, some of the others
  for (size_t size = good.size(); size-- > 0; size -= std::min(size, size + 1200 < good.size() ? step : 0)) {
    file->truncate(size).value();
    Scan scan = scan_file(dir.file("cut.wal"));
    uint32_t frames = size < kWalHeaderBytes ? 0 : static_cast<uint32_t>((size - kWalHeaderBytes) / (24 + 512));
    CHECK(scan.frames == frames);
    uint32_t expected = *std::prev(std::upper_bound(commits.begin(), commits.end(), frames));
    CHECK(scan.result.end.frame == expected);
  }
}

TEST_CASE("a flipped bit ends a WAL at the frame before it") {
  TempDir dir;
  Bytes bytes = small_wal(dir);
  size_t frames = std::min<size_t>(3, (bytes.size() - kWalHeaderBytes) / (24 + 512));
  bytes.resize(kWalHeaderBytes + frames * (24 + 512));
  auto file = posix_file_system()->open(dir.file("flipped.wal"), OpenMode::kCreate).value();
  file->write_at(0, bytes).value();
  for (size_t bit = kWalHeaderBytes * 8; bit < bytes.size() * 8; ++bit) {
    uint8_t flipped = bytes[bit / 8] ^ static_cast<uint8_t>(1u << (bit % 8));
    file->write_at(bit / 8, ByteView(&flipped, 1)).value();
    CHECK(scan_file(dir.file("flipped.wal")).frames == (bit / 8 - kWalHeaderBytes) / (24 + 512));
    file->write_at(bit / 8, ByteView(&bytes[bit / 8], 1)).value();
  }
}

TEST_CASE("after a SQLite writer was killed a scan finds what SQLite recovers") {
  uint64_t seed = test_seed("wal recovery");
  std::mt19937_64 random(seed);
  for (int round = 0; round < 20; ++round) {
    TempDir dir;
    std::string path = dir.file("a.db");
    {
      SqliteProcess app(path);
      app.exec("PRAGMA page_size=" + std::to_string(512 << random() % 8) + "; PRAGMA journal_mode=WAL");
      // Spills, so that the kill leaves frames of an open transaction.
      app.exec("PRAGMA cache_size=5; PRAGMA synchronous=OFF; CREATE TABLE t(a, b)");
      if (random() % 3 == 0) app.exec("PRAGMA wal_autocheckpoint=20");
      for (uint64_t i = random() % 40; i-- > 0;) app.exec("INSERT INTO t VALUES(randomblob(2000), random())");
      app.exec("BEGIN");
      for (uint64_t i = random() % 40; i-- > 0;) app.exec("INSERT INTO t VALUES(randomblob(2000), random())");
      app.kill_now();
    }
    Scan ours = scan_file(path + "-wal");
    SqliteProcess recovering(path);
    recovering.exec("BEGIN; SELECT count(*) FROM t");
    Bytes shm = read_file(path + "-shm");
    std::optional<WalIndexHeader> theirs = WalIndexHeader::parse(shm);
    REQUIRE(theirs);
    CHECK(ours.result.end.frame == theirs->max_frame);
    CHECK(ours.result.size_pages == theirs->size_pages);
    if (theirs->max_frame > 0) {
      CHECK(ours.result.end == theirs->anchor());
      CHECK(ours.header->page_size == theirs->page_size);
    }
  }
}
