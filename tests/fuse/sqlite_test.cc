// Real SQLite over the mount.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <vector>

#include "mount_process.h"
#include "sqlite_app.h"
#include "test.h"

using namespace litefs::test;

namespace {

// Each of `writers` processes inserts `rows` rows, one a transaction; the number of processes that
// failed.
int write_from_many(const std::string& path, int writers, int rows) {
  std::vector<pid_t> pids;
  for (int w = 0; w < writers; ++w) {
    pids.push_back(fork_process([&path, w, rows] {
      App app(path);
      for (int i = 0; i < rows; ++i) {
        std::string value = std::to_string(w * 1'000'000 + i);
        if (app.run("INSERT INTO t VALUES(" + value + ", hex(randomblob(200)))") != SQLITE_OK) return 1;
        if (app.get("SELECT count(*) FROM t WHERE id = " + value) != "1") return 2;
      }
      return 0;
    }));
  }
  int failed = 0;
  for (pid_t pid : pids) failed += wait_process(pid) != 0;
  return failed;
}

}  // namespace

TEST_SUITE_BEGIN("mount");

TEST_CASE("SQLite works in every journal mode, with writers in several processes") {
  for (const char* mode : {"delete", "truncate", "persist", "wal"}) {
    CAPTURE(mode);
    MountProcess mount;
    std::string path = mount.at("a.db");
    {
      App app(path);
      CHECK(app.get(std::string("PRAGMA journal_mode=") + mode) == mode);
      REQUIRE(app.run("PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)") == SQLITE_OK);
    }
    CHECK(write_from_many(path, 3, 40) == 0);
    App app(path);
    CHECK(app.get("SELECT count(*) FROM t") == "120");
    CHECK(app.get("PRAGMA integrity_check") == "ok");
    // A transaction that spills its cache, rolled back: pages come back from the journal.
    CHECK(app.run("PRAGMA cache_size=5; BEGIN; UPDATE t SET v = 'x' || v; DELETE FROM t WHERE id % 2") == SQLITE_OK);
    CHECK(app.run("ROLLBACK") == SQLITE_OK);
    CHECK(app.get("SELECT count(*) FROM t WHERE v LIKE 'x%'") == "0");
    CHECK(app.run("DELETE FROM t WHERE id % 3; VACUUM") == SQLITE_OK);
    CHECK(app.get("PRAGMA integrity_check") == "ok");
    // The mount and the data directory are the same files.
    App real(mount.real("a.db"), SQLITE_OPEN_READONLY);
    CHECK(real.get("SELECT count(*) FROM t") == app.get("SELECT count(*) FROM t"));
  }
}

TEST_CASE("memory-mapped databases see other processes' transactions") {
  for (const char* mode : {"delete", "wal"}) {
    CAPTURE(mode);
    MountProcess mount;
    std::string path = mount.at("a.db");
    App app(path);
    app.get(std::string("PRAGMA journal_mode=") + mode);
    CHECK(app.get("PRAGMA mmap_size=100000000") == "100000000");
    REQUIRE(app.run("PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)") == SQLITE_OK);
    for (int round = 1; round <= 5; ++round) {
      int failed = in_process([&] {
        App other(path);
        other.get("PRAGMA mmap_size=100000000");
        std::string sql =
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) "
            "INSERT INTO t(v) SELECT hex(randomblob(300)) FROM n; UPDATE t SET v = "
            "hex(randomblob(300))";
        if (other.run(sql) != SQLITE_OK) return 1;
        return other.get("PRAGMA wal_checkpoint(TRUNCATE)").find("error") == 0 ? 2 : 0;
      });
      CHECK(failed == 0);
      CHECK(app.get("SELECT count(*) FROM t") == std::to_string(200 * round));
      CHECK(app.get("PRAGMA integrity_check") == "ok");
    }
    CHECK(app.run("DELETE FROM t; VACUUM") == SQLITE_OK);
    CHECK(app.get("PRAGMA integrity_check") == "ok");
  }
}

TEST_CASE("switching between journal modes again and again never shows an old page") {
  MountProcess mount;
  std::string path = mount.at("a.db");
  {
    App app(path);
    REQUIRE(app.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER); PRAGMA synchronous=OFF") == SQLITE_OK);
    REQUIRE(app.run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) "
                    "INSERT INTO t SELECT i, 0 FROM n") == SQLITE_OK);
  }
  // Closed in between, so that the database is cached in one round and passed through in the next.
  for (int round = 1; round <= 8; ++round) {
    {
      App app(path);
      std::string mode = round % 2 ? "wal" : "delete";
      CHECK(app.get("PRAGMA journal_mode=" + mode) == mode);
    }
    {
      App app(path);
      app.run("PRAGMA synchronous=OFF");
      CHECK(app.get("SELECT count(*) FROM t WHERE v = " + std::to_string(round - 1)) == "3000");
      CHECK(app.run("UPDATE t SET v = " + std::to_string(round)) == SQLITE_OK);
    }
    App app(path);
    CHECK(app.get("SELECT count(*) FROM t WHERE v = " + std::to_string(round)) == "3000");
    CHECK(app.get("PRAGMA integrity_check") == "ok");
  }
}

TEST_CASE("turning WAL on while a database is cached by others keeps all of them right") {
  MountProcess mount;
  std::string path = mount.at("a.db");
  App reader(path);
  REQUIRE(reader.run("CREATE TABLE t(v INTEGER); INSERT INTO t VALUES(1)") == SQLITE_OK);
  App writer(path);
  CHECK(writer.get("PRAGMA journal_mode=wal") == "wal");
  for (int i = 2; i < 40; ++i) {
    REQUIRE(writer.run("UPDATE t SET v = " + std::to_string(i)) == SQLITE_OK);
    CHECK(reader.get("SELECT v FROM t") == std::to_string(i));
    if (i % 7 == 0) CHECK(reader.get("PRAGMA wal_checkpoint(TRUNCATE)") == "0");
  }
  CHECK(reader.get("PRAGMA integrity_check") == "ok");
}

TEST_CASE("a transaction that a killed writer left half done rolls back") {
  MountProcess mount;
  std::string path = mount.at("a.db");
  {
    App app(path);
    REQUIRE(app.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES(1, 'old')") == SQLITE_OK);
  }
  int pipes[2];
  REQUIRE(pipe(pipes) == 0);
  pid_t writer = fork_process([&] {
    App app(path);
    // Spills, so that the database itself is changed while the journal is hot.
    app.run(
        "PRAGMA cache_size=2; BEGIN; UPDATE t SET v = 'new'; WITH RECURSIVE n(i) AS (SELECT 2 "
        "UNION "
        "ALL SELECT i+1 FROM n WHERE i<500) INSERT INTO t SELECT i, hex(randomblob(200)) FROM n");
    (void)!write(pipes[1], "x", 1);
    pause();
    return 0;
  });
  char byte;
  REQUIRE(read(pipes[0], &byte, 1) == 1);
  kill(writer, SIGKILL);
  wait_process(writer);
  App app(path);
  CHECK(app.get("SELECT v FROM t WHERE id = 1") == "old");
  CHECK(app.get("SELECT count(*) FROM t") == "1");
  CHECK(app.get("PRAGMA integrity_check") == "ok");
  close(pipes[0]);
  close(pipes[1]);
}

TEST_CASE("two hundred databases are served, and idle ones hold no descriptor") {
  MountProcess mount;
  constexpr int kDatabases = 200;
  int idle = std::stoi(mount.ask("fds"));
  int failed = in_process([&] {
    for (int i = 0; i < kDatabases; ++i) {
      App app(mount.at("db" + std::to_string(i)));
      app.run("PRAGMA synchronous=OFF");
      if (app.get("PRAGMA journal_mode=wal") != "wal") return 1;
      if (app.run("CREATE TABLE t(v); INSERT INTO t VALUES(1)") != SQLITE_OK) return 2;
    }
    std::vector<std::unique_ptr<App>> open;
    for (int i = 0; i < kDatabases; ++i) {
      open.push_back(std::make_unique<App>(mount.at("db" + std::to_string(i))));
      if (open.back()->run("INSERT INTO t VALUES(2)") != SQLITE_OK) return 3;
    }
    // NAME, -wal and -shm of each.
    return std::stoi(mount.ask("fds")) >= idle + 3 * kDatabases ? 0 : 4;
  });
  CHECK(failed == 0);
  CHECK(eventually([&] { return std::stoi(mount.ask("fds")) <= idle + 4; }));
  size_t listed = 0;
  for (const auto& entry : std::filesystem::directory_iterator(mount.mount_dir())) {
    CHECK(entry.path().filename().string().starts_with("db"));
    ++listed;
  }
  CHECK(listed == kDatabases);
  // Removed while they are listed, as `rm *` does.
  for (const auto& entry : std::filesystem::directory_iterator(mount.mount_dir())) {
    CHECK(unlink(entry.path().c_str()) == 0);
  }
  CHECK(std::filesystem::is_empty(mount.mount_dir()));
  CHECK(std::filesystem::is_empty(mount.backing_dir()));
}

TEST_SUITE_END();
