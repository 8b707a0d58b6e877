#include "sqlite/wal_index.h"

#include "child.h"
#include "history.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

constexpr int kSqliteCantOpen = 14;

WalIndexHeader some_header() {
  WalIndexHeader header;
  header.change = 3;
  header.page_size = 65536;
  header.max_frame = 70;
  header.size_pages = 9;
  header.frame_checksum = {1, 2};
  header.salts = {0x01020304, 5};
  return header;
}

struct Index {
  TempDir dir;
  std::unique_ptr<File> shm = posix_file_system()->open(dir.file("shm"), OpenMode::kCreate).value();
  std::unique_ptr<WalIndexWriter> writer = WalIndexWriter::open(*shm).value();

  Bytes header_bytes() {
    Bytes bytes(2 * kWalIndexHeaderBytes);
    shm->read_exactly(0, bytes).value();
    return bytes;
  }
};

}  // namespace

TEST_CASE("a wal-index header round trips through the file") {
  Index index;
  CHECK_FALSE(index.writer->header());
  index.writer->write_header(some_header());
  CHECK(*index.writer->header() == some_header());
  CHECK(*WalIndexHeader::parse(index.header_bytes()) == some_header());
  WalIndexHeader empty;
  index.writer->write_header(empty);
  CHECK(*index.writer->header() == empty);
  index.writer->reset();
  CHECK_FALSE(index.writer->header());
}

TEST_CASE("a damaged copy of the header is passed over, two are none") {
  Bytes good(2 * kWalIndexHeaderBytes);
  WalIndexHeader older = some_header();
  older.max_frame = 60;
  older.store_copy(good.data());
  some_header().store_copy(good.data() + kWalIndexHeaderBytes);
  for (size_t n = 0; n < good.size(); ++n) CHECK_FALSE(WalIndexHeader::parse(ByteView(good).first(n)));
  CHECK(WalIndexHeader::parse(good)->max_frame == 60);
  for (size_t bit = 0; bit < kWalIndexHeaderBytes * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    REQUIRE(WalIndexHeader::parse(bad));
    CHECK(WalIndexHeader::parse(bad)->max_frame == 70);
    bad[kWalIndexHeaderBytes + 16] ^= 1;
    CHECK_FALSE(WalIndexHeader::parse(bad));
  }
}

TEST_CASE("a writer that died between the copies leaves no valid header to writers") {
  Index index;
  index.writer->write_header(some_header());
  Bytes newer(kWalIndexHeaderBytes);
  WalIndexHeader next = some_header();
  next.max_frame = 71;
  next.store_copy(newer.data());
  index.shm->write_at(kWalIndexHeaderBytes, newer).value();
  CHECK_FALSE(index.writer->header());
  CHECK(WalIndexHeader::parse(index.header_bytes())->max_frame == 70);
}

TEST_CASE("the newest frame of a page is found, within its bounds") {
  std::mt19937_64 random(test_seed("wal-index"));
  Index index;
  constexpr uint32_t kFrames = 20000;  // five blocks
  std::vector<Pgno> page_of = {0};
  for (uint32_t frame = 1; frame <= kFrames; ++frame) {
    page_of.push_back(static_cast<Pgno>(1 + random() % 3000));
    index.writer->append(frame, page_of.back()).value();
  }
  CHECK(index.shm->info().value().size_bytes == 5 * kWalIndexBlockBytes);
  for (int i = 0; i < 5000; ++i) {
    Pgno pgno = static_cast<Pgno>(1 + random() % 3100);
    uint32_t max_frame = static_cast<uint32_t>(random() % (kFrames + 1));
    uint32_t min_frame = random() % 3 == 0 ? static_cast<uint32_t>(random() % (max_frame + 1)) : 0;
    uint32_t expected = max_frame;
    while (expected > min_frame && page_of[expected] != pgno) --expected;
    if (expected <= min_frame) expected = 0;
    REQUIRE(index.writer->find(pgno, max_frame, min_frame) == expected);
  }
  for (uint32_t frame : {1u, 4062u, 4063u, 8158u, 8159u, kFrames}) {
    CHECK(index.writer->page_of(frame) == page_of[frame]);
  }
}

TEST_CASE("leftovers above the last frame are removed by the next append") {
  // At the edges of blocks, and in the middle of the first.
  for (uint32_t published : {0u, 1u, 100u, 4061u, 4062u, 4063u, 8157u, 8158u}) {
    Index index;
    for (uint32_t frame = 1; frame <= published; ++frame) index.writer->append(frame, frame).value();
    for (uint32_t frame = published + 1; frame <= published + 6000; ++frame) {
      index.writer->append(frame, 7).value();
    }
    if (published % 2 == 1) index.writer->clean_above(published);
    for (uint32_t frame = published + 1; frame <= published + 5000; ++frame) {
      index.writer->append(frame, 100000 + frame).value();
    }
    CHECK(index.writer->find(7, published + 5000) == (published >= 7 ? 7 : 0));
    for (uint32_t frame : {published + 1, published + 2, published + 5000}) {
      CHECK(index.writer->find(100000 + frame, published + 5000) == frame);
    }
  }
}

TEST_CASE("a hash table full of nonsense is an error, not a loop") {
  Index index;
  index.writer->append(1, 1).value();
  Bytes garbage(8192 * 2, 0xff);
  index.shm->write_at(4096 * 4, garbage).value();
  CHECK(index.writer->find(1, 1) == 0);
  CHECK(index.writer->append(2, 2).error().code() == ErrorCode::kCorrupt);
}

TEST_CASE("the poison makes a live connection fail") {
  TempDir dir;
  SqliteProcess app(dir.file("a.db"));
  app.exec("PRAGMA journal_mode=WAL; CREATE TABLE t(a); SELECT * FROM t");
  auto shm = posix_file_system()->open(dir.file("a.db-shm"), OpenMode::kReadWrite).value();
  std::optional<WalIndexHeader> said = poison_wal_index(*shm).value();
  REQUIRE(said);
  CHECK(said->max_frame > 0);
  uint8_t header[2 * kWalIndexHeaderBytes];
  shm->read_at(0, header).value();
  CHECK_FALSE(WalIndexHeader::parse(header));
  CHECK_FALSE(poison_wal_index(*shm).value());
  CHECK((app.run("SELECT * FROM t").code & 0xff) == kSqliteCantOpen);
  CHECK((app.run("INSERT INTO t VALUES(1)").code & 0xff) == kSqliteCantOpen);
  SqliteProcess other(dir.file("a.db"));
  CHECK((other.run("SELECT * FROM t").code & 0xff) == kSqliteCantOpen);
}

TEST_CASE("a writer that is in a transaction when the index is poisoned leaves committed frames alone") {
  TempDir dir;
  SqliteProcess app(dir.file("a.db"));
  app.exec(
      "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=5;"
      "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
      "WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 100)"
      "INSERT INTO t SELECT i, randomblob(1000) FROM c");
  auto wal = posix_file_system()->open(dir.file("a.db-wal"), OpenMode::kReadOnly).value();
  auto shm = posix_file_system()->open(dir.file("a.db-shm"), OpenMode::kReadWrite).value();
  auto bytes_of = [](File& file) {
    Bytes bytes(file.info().value().size_bytes);
    file.read_exactly(0, bytes).value();
    return bytes;
  };
  Bytes committed = bytes_of(*wal);
  app.exec("BEGIN; UPDATE t SET v = 'not committed' WHERE id = 1");
  poison_wal_index(*shm).value();
  app.run("UPDATE t SET v = randomblob(1000)");  // spills
  Bytes now = bytes_of(*wal);
  REQUIRE(now.size() > committed.size());
  now.resize(committed.size());
  CHECK(now == committed);
}
