#include "sqlite/journal.h"

#include <filesystem>
#include <map>

#include "child.h"
#include "history.h"
#include "sqlite/header.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

// A database with a transaction that somebody died in.
struct Crash {
  TempDir dir;
  std::string database = dir.file("a.db");
  std::string journal = dir.file("a.db-journal");
  Bytes before;  // the database before the transaction
};

struct CrashPlan {
  std::string mode = "DELETE";
  std::string synchronous = "FULL";
  uint32_t page_size = 4096;
  bool big_sectors = false;  // 4096 bytes: without power-safe overwrite
  int cache_pages = 5;
  uint64_t statements = 30;
  bool vacuum = false;
};

void make_crash(Crash& crash, const CrashPlan& plan, std::mt19937_64& random) {
  SqliteProcess app;
  app.open("file:" + crash.database + (plan.big_sectors ? "?psow=0" : ""));
  app.exec("PRAGMA page_size=" + std::to_string(plan.page_size) + (random() % 2 ? "; PRAGMA auto_vacuum=FULL" : ""));
  app.exec("CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB); CREATE INDEX tv ON t(v)");
  app.exec("PRAGMA journal_mode=" + plan.mode + "; PRAGMA synchronous=" + plan.synchronous +
           "; PRAGMA cache_size=" + std::to_string(plan.cache_pages));
  auto change = [&] {
    std::string k = std::to_string(random() % 200);
    if (random() % 4 == 0) return "DELETE FROM t WHERE k > " + k + " AND k % 3 = 0";
    return "INSERT OR REPLACE INTO t VALUES(" + k + ", randomblob(" + std::to_string(random() % 1500) + "))";
  };
  for (int i = 0; i < 60; ++i) app.exec(change());
  crash.before = read_file(crash.database);
  app.exec("BEGIN");
  for (uint64_t i = 0; i < plan.statements; ++i) app.exec(change());
  app.kill_now();
}

// Lets SQLite recover a copy, and answers its database.
Bytes recover_by_sqlite(SqliteProcess& app, const Crash& crash) {
  TempDir copy;
  copy_file(crash.database, copy.file("a.db"));
  copy_file(crash.journal, copy.file("a.db-journal"));
  app.open(copy.file("a.db"));
  app.run("PRAGMA schema_version");
  app.close();
  return read_file(copy.file("a.db"));
}

Result<bool> play_back_copy(const Crash& crash, Bytes* result) {
  auto files = posix_file_system();
  copy_file(crash.database, crash.dir.file("b.db"));
  auto journal = TRY(files->open(crash.journal, OpenMode::kReadWrite));
  auto database = TRY(files->open(crash.dir.file("b.db"), OpenMode::kReadWrite));
  bool played = TRY(play_back_journal(*journal, *database));
  *result = read_file(crash.dir.file("b.db"));
  return played;
}

}  // namespace

TEST_CASE("a hot journal is played back as SQLite does it") {
  std::mt19937_64 random(test_seed("journal playback"));
  SqliteProcess recovering;
  int played = 0;
  for (std::string mode : {"DELETE", "PERSIST", "TRUNCATE"}) {
    for (std::string synchronous : {"OFF", "NORMAL", "FULL"}) {
      for (uint32_t page_size : {512u, 4096u, 65536u}) {
        for (bool big_sectors : {false, true}) {
          CAPTURE(mode);
          CAPTURE(synchronous);
          CAPTURE(page_size);
          CAPTURE(big_sectors);
          Crash crash;
          make_crash(crash,
                     {.mode = mode,
                      .synchronous = synchronous,
                      .page_size = page_size,
                      .big_sectors = big_sectors,
                      .cache_pages = static_cast<int>(random() % 20),
                      .statements = random() % 50},
                     random);
          if (!std::filesystem::exists(crash.journal)) continue;
          Bytes ours;
          Result<bool> r = play_back_copy(crash, &ours);
          REQUIRE(r.ok());
          played += r.value();
          // Before the transaction, byte for byte: not even the pages that SQLite does not journal
          // differ, as it had none to reuse that it had written.
          CHECK(ours == recover_by_sqlite(recovering, crash));
        }
      }
    }
  }
  CHECK(played > 10);
}

TEST_CASE("a journal in which only zeros were synced is not hot") {
  std::mt19937_64 random(2);
  Crash crash;
  // Nothing spills, so nothing was synced and the database is as it was.
  make_crash(crash, {.synchronous = "FULL", .cache_pages = 1000}, random);
  Bytes journal = read_file(crash.journal);
  CHECK(journal_is_begun(journal));
  CHECK_FALSE(journal_is_hot(journal));
  CHECK_FALSE(JournalHeader::parse(journal));
  Bytes ours;
  CHECK_FALSE(play_back_copy(crash, &ours).value());
  CHECK(ours == crash.before);
}

TEST_CASE("a finished journal is not active") {
  TempDir dir;
  SqliteProcess app(dir.file("a.db"));
  app.exec("PRAGMA journal_mode=PERSIST; CREATE TABLE t(a); INSERT INTO t VALUES(1)");
  Bytes journal = read_file(dir.file("a.db-journal"));
  CHECK(journal.size() > kJournalHeaderBytes);
  CHECK_FALSE(journal_is_begun(journal));
  CHECK_FALSE(journal_is_begun({}));
  CHECK_FALSE(journal_is_hot({}));
  auto file = posix_file_system()->open(dir.file("a.db-journal"), OpenMode::kReadOnly).value();
  bool visited = false;
  auto visit = [&](Pgno, ByteView) {
    visited = true;
    return Status();
  };
  CHECK_FALSE(read_journal(*file, visit).value());
  CHECK_FALSE(visited);
}

TEST_CASE("reading a journal gives the pages as they were") {
  std::mt19937_64 random(3);
  Crash crash;
  make_crash(crash, {.synchronous = "OFF"}, random);
  auto file = posix_file_system()->open(crash.journal, OpenMode::kReadOnly).value();
  std::map<Pgno, Bytes> originals;
  auto visit = [&](Pgno pgno, ByteView page) {
    originals[pgno].assign(page.begin(), page.end());
    return Status();
  };
  JournalHeader header = *read_journal(*file, visit).value();
  CHECK(header.page_size == 4096);
  CHECK(header.records == 0xffffffff);
  CHECK(header.original_size == crash.before.size() / 4096);
  REQUIRE(originals.size() > 3);
  for (const auto& [pgno, page] : originals) {
    CHECK(std::equal(page.begin(), page.end(), crash.before.begin() + (pgno - 1) * 4096));
  }
  auto refuse = [](Pgno, ByteView) -> Status { return Error(ErrorCode::kCancelled, "enough"); };
  CHECK(read_journal(*file, refuse).error().code() == ErrorCode::kCancelled);
}

TEST_CASE("the originals are found in a journal of any size") {
  for (uint32_t page_size : {512u, 4096u, 65536u}) {
    for (int rows : {1, 40, 2000}) {
      CAPTURE(page_size);
      CAPTURE(rows);
      TempDir dir;
      const std::string path = dir.file("a.db");
      SqliteProcess app;
      app.open("file:" + path);
      app.exec("PRAGMA page_size=" + std::to_string(page_size) + "; PRAGMA synchronous=" + (rows % 2 ? "FULL" : "OFF"));
      app.exec("CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB)");
      app.exec(
          "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
          "INSERT INTO t SELECT i, randomblob(300) FROM n");
      const Bytes before = read_file(path);
      app.exec("PRAGMA cache_size=3; BEGIN; UPDATE t SET v=randomblob(300) WHERE k <= " + std::to_string(rows));
      app.kill_now();
      auto file = posix_file_system()->open_if_there(path + "-journal", OpenMode::kReadOnly).value();
      REQUIRE(file);
      std::optional<JournalIndex> index = JournalIndex::read(std::move(file)).value();
      if (!index) continue;  // of few pages nothing was spilled
      CHECK(!index->places().empty());
      Bytes page(page_size);
      for (const auto& [pgno, offset] : index->places()) {
        REQUIRE(index->original(pgno, page).value());
        CHECK(std::equal(page.begin(), page.end(), before.begin() + static_cast<ptrdiff_t>(pgno - 1) * page_size));
      }
      CHECK_FALSE(index->original(0, page).value());
      if (rows == 2000) CHECK(index->places().size() > (page_size == 65536 ? 1 : 100));
    }
  }
}

TEST_CASE("an empty database is not played back into") {
  std::mt19937_64 random(4);
  Crash crash;
  make_crash(crash, {.synchronous = "OFF"}, random);
  write_file(crash.database, {});
  Bytes ours;
  CHECK_FALSE(play_back_copy(crash, &ours).value());
  CHECK(ours.empty());
}

TEST_CASE("the super-journal that a journal names is the one that SQLite looks for") {
  std::mt19937_64 random(6);
  Crash crash;
  make_crash(crash, {.synchronous = "OFF", .page_size = 512}, random);
  Bytes crashed = read_file(crash.database);
  Bytes bytes = read_file(crash.journal);
  REQUIRE(crashed != crash.before);
  auto file = posix_file_system()->open(crash.journal, OpenMode::kReadOnly).value();
  CHECK(journal_super_name(*file).value().empty());

  std::string name = crash.dir.file("a.db-mj0BADCAFE1");
  uint8_t number[4];
  auto append = [&](uint32_t v) {
    store_be32(number, v);
    bytes.insert(bytes.end(), number, number + 4);
  };
  Bytes magic(bytes.begin(), bytes.begin() + 8);
  append(lock_page(512));
  bytes.insert(bytes.end(), name.begin(), name.end());
  append(static_cast<uint32_t>(name.size()));
  uint32_t sum = 0;
  for (char c : name) sum += static_cast<uint32_t>(c);
  append(sum);
  bytes.insert(bytes.end(), magic.begin(), magic.end());
  write_file(crash.journal, bytes);
  CHECK(journal_super_name(*file).value() == name);
  SqliteProcess recovering;
  CHECK(recover_by_sqlite(recovering, crash) == crashed);  // no such file: committed
  write_file(name, {});
  CHECK(recover_by_sqlite(recovering, crash) == crashed);  // an empty one is none
  write_file(name, Bytes(1));
  Bytes ours;
  CHECK(play_back_copy(crash, &ours).value());
  CHECK(ours == crash.before);
  CHECK(recover_by_sqlite(recovering, crash) == ours);

  auto damaged = posix_file_system()->open(crash.dir.file("damaged"), OpenMode::kCreate).value();
  for (size_t bit = (bytes.size() - 16 - name.size()) * 8; bit < bytes.size() * 8; ++bit) {
    Bytes bad = bytes;
    bad[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    damaged->write_at(0, bad).value();
    CHECK(journal_super_name(*damaged).value() != name);
  }
  damaged->write_at(0, bytes).value();
  for (size_t size = bytes.size(); size-- > bytes.size() - 600;) {
    damaged->truncate(size).value();
    CHECK(journal_super_name(*damaged).value().empty());
  }
}

TEST_CASE("a damaged journal is played back as far as SQLite does it") {
  std::mt19937_64 random(test_seed("damaged journal"));
  SqliteProcess recovering;
  for (std::string synchronous : {"OFF", "FULL"}) {
    Crash crash;
    make_crash(crash, {.synchronous = synchronous, .page_size = 512}, random);
    Bytes good = read_file(crash.journal);
    REQUIRE(good.size() > 4096);
    for (int round = 0; round < 60; ++round) {
      Bytes bad = good;
      if (round % 3 == 0) {
        bad.resize(random() % bad.size());
      } else {
        for (uint64_t flips = 1 + random() % 3; flips-- > 0;) {
          // Any bit of the first segment's header but those of the original size (SQLite, too,
          // makes the file as large as it says), or any record's.
          size_t byte = random() % (random() % 3 == 0 ? 28 : bad.size());
          if (byte >= 16 && byte < 20) continue;
          bad[byte] ^= static_cast<uint8_t>(1u << (random() % 8));
        }
      }
      write_file(crash.journal, bad);
      Bytes ours;
      Result<bool> r = play_back_copy(crash, &ours);
      CAPTURE(round);
      if (!r.ok()) {
        CHECK(r.error().code() == ErrorCode::kUnsupported);  // page size 0
        continue;
      }
      CHECK(ours == recover_by_sqlite(recovering, crash));
    }
  }
}

TEST_CASE("no flipped bit or cut of a journal upsets the reader") {
  std::mt19937_64 random(5);
  Crash crash;
  make_crash(crash, {.synchronous = "OFF", .page_size = 512, .statements = 1}, random);
  Bytes good = read_file(crash.journal);
  good.resize(std::min<size_t>(good.size(), 512 + 2 * 520));
  auto file = posix_file_system()->open(crash.dir.file("damaged"), OpenMode::kCreate).value();
  size_t records = 0;
  auto visit = [&](Pgno pgno, ByteView page) {
    CHECK(pgno > 0);
    CHECK(page.size() <= 65536);
    ++records;
    return Status();
  };
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    file->write_at(0, bad).value();
    records = 0;
    (void)read_journal(*file, visit);
    CHECK(records <= 2);
  }
  file->write_at(0, good).value();
  for (size_t size = good.size(); size-- > 0;) {
    file->truncate(size).value();
    records = 0;
    Result<std::optional<JournalHeader>> r = read_journal(*file, visit);
    CHECK(r.ok());
    CHECK(records == (size < 512 ? 0 : (size - 512) / 520));
  }
}
