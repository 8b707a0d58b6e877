#include "sqlite/header.h"

#include "child.h"
#include "history.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

TEST_CASE("the header that SQLite writes is read") {
  for (uint32_t page_size : {512u, 4096u, 65536u}) {
    TempDir dir;
    std::string path = dir.file("a.db");
    {
      SqliteProcess app(path);
      app.exec("PRAGMA page_size=" + std::to_string(page_size));
      app.exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    }
    Bytes file = read_file(path);
    DatabaseHeader header = DatabaseHeader::parse(file).value();
    CHECK(header.page_size == page_size);
    CHECK(header.size_pages == file.size() / page_size);
    CHECK(header.effective_size(file.size()) == file.size() / page_size);
    CHECK_FALSE(header.is_wal());
    SqliteProcess app(path);
    app.exec("PRAGMA journal_mode=WAL");
    CHECK(DatabaseHeader::parse(read_file(path)).value().is_wal());
  }
}

TEST_CASE("what is no database is refused") {
  TempDir dir;
  {
    SqliteProcess app(dir.file("a.db"));
    app.exec("CREATE TABLE t(a)");
  }
  Bytes good = read_file(dir.file("a.db"));
  good.resize(kDatabaseHeaderBytes);
  CHECK(DatabaseHeader::parse(good).ok());
  for (size_t n = 0; n < good.size(); ++n) {
    Result<DatabaseHeader> r = DatabaseHeader::parse(ByteView(good).first(n));
    REQUIRE_FALSE(r.ok());
    CHECK(r.error().code() == ErrorCode::kInvalid);
  }
  auto with = [&](size_t offset, uint8_t value) {
    Bytes bad = good;
    bad[offset] = value;
    return DatabaseHeader::parse(bad).ok();
  };
  for (size_t i = 0; i < 16; ++i) CHECK_FALSE(with(i, good[i] ^ 1));
  CHECK_FALSE(with(16, 0x11));
  CHECK_FALSE(with(17, 0x02));
  CHECK_FALSE(with(18, 3));
  CHECK_FALSE(with(19, 3));
  for (size_t i = 21; i < 24; ++i) CHECK_FALSE(with(i, 0));
  CHECK(with(20, 32));
  Bytes small = good;
  store_be16(small.data() + 16, 512);
  small[20] = 32;
  CHECK(DatabaseHeader::parse(small).ok());
  small[20] = 33;
  CHECK_FALSE(DatabaseHeader::parse(small).ok());
}

TEST_CASE("the size in the header counts only when its two counters agree") {
  DatabaseHeader header;
  header.page_size = 512;
  header.size_pages = 7;
  header.change_counter = header.version_valid_for = 3;
  CHECK(header.effective_size(512 * 9) == 7);
  header.version_valid_for = 2;
  CHECK(header.effective_size(512 * 9) == 9);
  CHECK(header.effective_size(512 * 9 + 1) == 10);
  header.version_valid_for = 3;
  header.size_pages = 0;
  CHECK(header.effective_size(512 * 9) == 9);
}

TEST_CASE("local bytes are masked, and set so that SQLite trusts the right size") {
  Bytes page(512);
  for (size_t i = 0; i < page.size(); ++i) page[i] = static_cast<uint8_t>(i + 1);
  Bytes masked = page;
  mask_local_bytes(masked);
  for (size_t i = 0; i < page.size(); ++i) {
    bool local = i == 18 || i == 19 || (i >= 24 && i < 28) || (i >= 92 && i < 96);
    CHECK(masked[i] == (local ? 0 : page[i]));
  }
  store_be32(masked.data() + 28, 5);
  set_local_bytes(masked, true, 77, 5);
  CHECK(masked[18] == 2);
  CHECK(masked[19] == 2);
  CHECK(load_be32(masked.data() + 24) == 77);
  CHECK(load_be32(masked.data() + 92) == 77);
  set_local_bytes(masked, false, 77, 6);
  CHECK(masked[18] == 1);
  CHECK(load_be32(masked.data() + 24) == 77);
  CHECK(load_be32(masked.data() + 92) != 77);
}

TEST_CASE("the lock page and page sizes") {
  CHECK(lock_page(4096) == 262145);
  CHECK(lock_page(65536) == 16385);
  CHECK(valid_page_size(512));
  CHECK(valid_page_size(65536));
  for (uint64_t bad : {0ull, 256ull, 513ull, 1000ull, 131072ull, 1ull << 40}) CHECK_FALSE(valid_page_size(bad));
}
