// The VFS of one node in this process: names, refusals, and that what is captured is what SQLite committed.
#include <unistd.h>

#include "litefs/litefs.hpp"
#include "node/c_api.h"
#include "random_application.h"
#include "system/cluster.h"
#include "system/content.h"
#include "test.h"

namespace litefs::test {
namespace {

std::string logged;

// A primary with the VFS, and what SQLite logs.
struct Fixture {
  Fixture() : data(dir.file("data")), node(options()) {
    logged.clear();
    node.register_vfs();
  }
  litefs_options options() {
    litefs_options options = LITEFS_OPTIONS_INIT;
    options.data_dir = data.c_str();
    options.listen = "127.0.0.1:0";
    options.candidate = 1;
    if (std::getenv("LITEFS_TEST_LOG")) {
      options.log_level = LITEFS_LOG_DEBUG;
      options.log = [](void*, int level, const char* line) { std::fprintf(stderr, "%d %s\n", level, line); };
    }
    return options;
  }
  Sql open(const std::string& name) {
    return Sql("file:" + name + "?vfs=litefs", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI);
  }
  // That the captured state is the content, by a reckoning of its own.
  void check_captured(const std::string& name) {
    const litefs_position position = node.position(name);
    REQUIRE(dump_pages("file:" + name + "?vfs=litefs", dir.file("pages")));
    CHECK(position.checksum == pages_checksum(dir.file("pages")));
  }

  TempDir dir;
  std::string data;
  OpenNode node;
};

int open_code(const std::string& uri) {
  sqlite3* db = nullptr;
  const int code =
      sqlite3_open_v2(uri.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, nullptr);
  sqlite3_close(db);
  return code;
}

std::string error_of(Sql& db, const std::string& text) {
  try {
    db.exec(text);
  } catch (const SqlError& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("a name is a database's below DATA/db, and nothing else opens") {
  Fixture f;
  { f.open("a.db").exec("CREATE TABLE t(v)"); }
  CHECK(std::filesystem::exists(f.data + "/db/a.db"));
  { f.open(f.data + "/db/a.db").exec("INSERT INTO t VALUES(1)"); }
  { f.open("tenants/17/b.db").exec("CREATE TABLE t(v)"); }
  CHECK(f.node.position("tenants/17/b.db").txid == 1);
  // Written otherwise it is the same database.
  for (const std::string name : {"./a.db", "tenants/../a.db", ".//a.db"}) {
    CAPTURE(name);
    CHECK(f.open(name).integer("SELECT v FROM t") == 1);
  }
  std::filesystem::create_symlink(f.dir.path(), f.data + "/db/out");
  for (const std::string name : {"/elsewhere.db", "../x", "a.db-wal", "a/../../x", ".hidden", "out/x"}) {
    CAPTURE(name);
    logged.clear();
    CHECK(open_code("file:" + name + "?vfs=litefs") == SQLITE_CANTOPEN);
    CHECK(logged.find("litefs: ") != std::string::npos);
  }
  std::filesystem::create_symlink("a.db", f.data + "/db/link.db");
  CHECK(f.open("link.db").integer("SELECT v FROM t") == 1);
  for (const std::string name : {"a.db", "link.db"}) {
    CAPTURE(name);
    sqlite3* db = nullptr;
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI | SQLITE_OPEN_NOFOLLOW;
    CHECK((sqlite3_open_v2(("file:" + name + "?vfs=litefs").c_str(), &db, flags, nullptr) == SQLITE_OK) ==
          (name == "a.db"));
    sqlite3_close(db);
  }
  CHECK(open_code("file:a.db?vfs=litefs&nolock=1") == SQLITE_CANTOPEN);
  CHECK(logged.find("nolock") != std::string::npos);
  sqlite3* db = nullptr;
  CHECK(sqlite3_open_v2("file:none.db?vfs=litefs", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI, nullptr) ==
        SQLITE_CANTOPEN);
  sqlite3_close(db);
  CHECK(f.node.databases().size() == 2);
}

TEST_CASE("a data directory may be named by a symbolic link") {
  Fixture f;
  const std::string link = f.dir.file("link"), data = f.dir.file("other");
  std::filesystem::create_directory(data);
  std::filesystem::create_symlink(data, link);
  f.node.close();
  litefs_options options = f.options();
  options.data_dir = link.c_str();
  f.node = OpenNode(options);
  f.node.register_vfs();
  { f.open("a.db").exec("PRAGMA journal_mode=WAL; CREATE TABLE t(v)"); }
  { f.open(link + "/db/a.db").exec("INSERT INTO t VALUES(1)"); }
  { f.open(data + "/db/a.db").exec("INSERT INTO t VALUES(1)"); }
  CHECK(f.node.databases().size() == 1);
  f.check_captured("a.db");
}

TEST_CASE("temporary and in-memory databases are SQLite's own") {
  Fixture f;
  Sql db = f.open("a.db");
  db.exec("PRAGMA temp_store=FILE; PRAGMA cache_size=5; CREATE TEMP TABLE big(v)");
  db.exec(
      "WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000) INSERT INTO big SELECT randomblob(999) "
      "FROM c");
  db.exec(
      "ATTACH ':memory:' AS m; CREATE TABLE m.t(v); INSERT INTO m.t VALUES(1); ATTACH '' AS t2; CREATE TABLE t2.t(v)");
  CHECK(db.integer("SELECT count(*) FROM big") == 2000);
  CHECK(open_code("file::memory:?vfs=litefs") == SQLITE_OK);
  CHECK(f.node.databases().empty());
}

TEST_CASE("journals that cannot be captured are refused when they are asked for") {
  Fixture f;
  Sql db = f.open("a.db");
  db.exec("CREATE TABLE t(v)");
  for (const std::string mode : {"MEMORY", "off", "Memory"}) {
    CAPTURE(mode);
    CHECK(error_of(db, "PRAGMA journal_mode=" + mode).find("captured") != std::string::npos);
    CHECK(error_of(db, "PRAGMA main.journal_mode='" + mode + "'").find("captured") != std::string::npos);
  }
  CHECK(db.text("PRAGMA journal_mode") == "delete");
  db.exec("INSERT INTO t VALUES(1)");
  // Asked for where the VFS is not asked.
  Sql other(":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI);
  other.exec("ATTACH 'file:a.db?vfs=litefs' AS a; PRAGMA journal_mode=MEMORY");
  CHECK(error_of(other, "INSERT INTO a.t VALUES(2)") != "");
  CHECK(db.integer("SELECT count(*) FROM t") == 1);
  f.check_captured("a.db");
}

TEST_CASE("no atomic write of the device hides a transaction") {
  Fixture f;
  Sql db = f.open("a.db");
  sqlite3_file* file = nullptr;
  REQUIRE(sqlite3_file_control(db.handle(), "main", SQLITE_FCNTL_FILE_POINTER, &file) == SQLITE_OK);
  CHECK((file->pMethods->xDeviceCharacteristics(file) & (0x1ff | SQLITE_IOCAP_BATCH_ATOMIC)) == 0);
  char* name = nullptr;
  REQUIRE(sqlite3_file_control(db.handle(), "main", SQLITE_FCNTL_VFSNAME, &name) == SQLITE_OK);
  CHECK(std::string(name) == "litefs/unix");
  sqlite3_free(name);
}

TEST_CASE("each transaction is one, in every journal and locking mode, and is there when it is asked for") {
  Fixture f;
  for (const std::string mode : {"DELETE", "TRUNCATE", "PERSIST", "WAL"}) {
    for (const std::string locking : {"NORMAL", "EXCLUSIVE"}) {
      for (const std::string mmap : {"0", "100000000"}) {
        CAPTURE(mode);
        CAPTURE(locking);
        CAPTURE(mmap);
        const std::string name = mode + locking + mmap;
        {
          Sql db = f.open(name);
          db.exec("PRAGMA mmap_size=" + mmap + "; PRAGMA locking_mode=" + locking + "; PRAGMA journal_mode=" + mode);
          db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE INDEX i ON t(v)");
          litefs_position before = f.node.position(name);
          for (int i = 0; i < 30; ++i) {
            db.exec("INSERT INTO t(v) VALUES(randomblob(2000))");
            const litefs_position after = f.node.position(name);
            REQUIRE(after.txid == before.txid + 1);
            before = after;
          }
          db.exec("BEGIN; DELETE FROM t; ROLLBACK");
          CHECK(f.node.position(name).txid == before.txid);
          db.exec(
              "DELETE FROM t WHERE id % 3 = 0; VACUUM; PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t(v) VALUES(1)");
        }
        f.check_captured(name);
      }
    }
  }
}

TEST_CASE("no checkpoint overwrites what is not captured") {
  Fixture f;
  Sql db = f.open("db");
  db.exec("PRAGMA journal_mode=WAL; CREATE TABLE t(v)");
  const litefs_position before = f.node.position("db");
  constexpr int kRounds = 300;
  for (int i = 0; i < kRounds; ++i) {
    db.exec("INSERT INTO t VALUES(1); INSERT INTO t VALUES(2); PRAGMA wal_checkpoint(TRUNCATE)");
  }
  CHECK(f.node.position("db").txid == before.txid + 2 * kRounds);
  f.check_captured("db");
}

TEST_CASE("a commit wakes the capture, which nobody has to ask for") {
  Fixture f;
  for (const std::string locking : {"NORMAL", "EXCLUSIVE"}) {
    CAPTURE(locking);
    const std::string name = "db" + locking;
    Sql db = f.open(name);
    db.exec("PRAGMA journal_mode=WAL; CREATE TABLE t(v); SELECT * FROM t; PRAGMA locking_mode=" + locking);
    uint64_t wanted = f.node.position(name).txid;
    for (int i = 0; i < 20; ++i) {
      db.exec("INSERT INTO t VALUES(1)");
      ++wanted;
      // Not by litefs_wait_position, which captures.
      InProcessNode& node = *f.node.handle()->member()->hosted();
      const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(5);
      while (node.node().store().find(name)->position().txid.value < wanted &&
             std::chrono::steady_clock::now() < until) {
        std::this_thread::yield();
      }
      REQUIRE(node.node().store().find(name)->position().txid.value == wanted);
    }
  }
}

// As a guest finds it whose host has died after it had removed the journal, and who is the host himself now.
TEST_CASE("a commit whose journal has been removed already is one") {
  Fixture f;
  Sql db = f.open("db");
  db.exec("CREATE TABLE t(v)");
  const uint64_t before = f.node.position("db").txid;
  db.exec("BEGIN; INSERT INTO t VALUES(1)");
  REQUIRE(unlink((f.data + "/db/db-journal").c_str()) == 0);
  CHECK(error_of(db, "COMMIT") == "");
  CHECK(f.node.position("db").txid == before + 1);
  f.check_captured("db");
  db.exec("INSERT INTO t VALUES(2)");
  CHECK(f.node.position("db").txid == before + 2);
  f.check_captured("db");
}

TEST_CASE("several databases in one transaction are captured together") {
  Fixture f;
  Sql db = f.open("a");
  f.open("b").exec("CREATE TABLE t(v)");
  db.exec("CREATE TABLE t(v); ATTACH 'file:b?vfs=litefs' AS b");
  for (int i = 0; i < 10; ++i) db.exec("BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO b.t VALUES(1); COMMIT");
  CHECK(f.node.position("a").txid == 11);
  CHECK(f.node.position("b").txid == 11);
  f.check_captured("a");
  f.check_captured("b");
}

TEST_CASE("whatever an application does at random is captured") {
  for (uint64_t round = 0; round < 6; ++round) {
    Fixture f;
    const uint64_t seed = std::random_device()();
    CAPTURE(seed);
    {
      RandomApplication app({.vfs = "litefs", .path = "r.db", .seed = seed, .wal = round % 3 != 0});
      for (int i = 0; i < 400; ++i) app.step();
      app.close();
      CHECK(app.committed() > 0);
    }
    f.check_captured("r.db");
    const litefs_position position = f.node.position("r.db");
    // The next start finds the same.
    f.node.close();
    f.node = OpenNode(f.options());
    f.node.register_vfs();
    CHECK(f.node.position("r.db").checksum == position.checksum);
    f.check_captured("r.db");
  }
}

TEST_CASE("switches between WAL and a rollback mode keep no descriptor for each") {
  Fixture f;
  Sql db = f.open("a.db");
  db.exec("CREATE TABLE t(v)");
  for (int i = 0; i < 30; ++i) {
    db.exec("PRAGMA journal_mode=WAL; INSERT INTO t VALUES(1); PRAGMA journal_mode=DELETE; INSERT INTO t VALUES(1)");
  }
  CHECK(f.node.handle()->member()->files().kept() < 4);
  f.check_captured("a.db");
}

TEST_CASE("a database that is stopped takes no writes, and goes on being read") {
  for (const std::string mode : {"WAL", "DELETE"}) {
    CAPTURE(mode);
    Fixture f;
    Sql db = f.open("a.db");
    db.exec("PRAGMA journal_mode=" + mode + "; CREATE TABLE t(v); INSERT INTO t VALUES(1)");
    f.node.position("a.db");
    f.node.handle()->member()->hosted()->node().store().find("a.db")->stop_for(Error(ErrorCode::kIo, "for a test"));
    logged.clear();
    CHECK(error_of(db, "INSERT INTO t VALUES(2)").find("disk I/O error") != std::string::npos);
    CHECK(logged.find("for a test") != std::string::npos);
    CHECK(db.integer("SELECT count(*) FROM t") == 1);
    CHECK(open_code("file:a.db?vfs=litefs") == SQLITE_CANTOPEN);
    CHECK(f.node.databases().at(0).state == "stopped");
  }
}

TEST_CASE("a database is opened by no other node's VFS, and by none when the node is gone") {
  Fixture f;
  TempDir other_dir;
  const std::string other_data = other_dir.file("data");
  litefs_options options = f.options();
  options.data_dir = other_data.c_str();
  OpenNode other(options);
  CHECK(sqlite3_litefs_register(other.handle(), 0) == SQLITE_BUSY);
  f.node.close();
  CHECK(open_code("file:a.db?vfs=litefs") == SQLITE_ERROR);  // no such vfs
  CHECK(sqlite3_litefs_register(other.handle(), 0) == SQLITE_OK);
  CHECK(open_code("file:a.db?vfs=litefs") == SQLITE_OK);
}

}  // namespace

void log_to_test(void*, int, const char* text) { logged += text; }

}  // namespace litefs::test
