// PRAGMA locking_mode=EXCLUSIVE in WAL mode, on the primary's mount, with a replica.
#include <signal.h>
#include <unistd.h>

#include "system/process.h"
#include "system/system_test.h"

using namespace litefs::test;

namespace {

constexpr Millis kSoon{10000};

const std::string kSpill =
    "WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 300) "
    "INSERT INTO t(v) SELECT randomblob(1000) FROM c";

struct Pair {
  Pair() : cluster(cluster_options(2)) { start_pair(cluster); }
  // Before it looks at the database, so that it makes no wal-index.
  App open_exclusive() {
    App app = cluster.open(0, "db");
    CHECK(app.value("PRAGMA locking_mode=EXCLUSIVE") == "exclusive");
    return app;
  }
  uint64_t txid() { return std::stoull(cluster.position(0, "db"), nullptr, 16); }
  bool has_index() { return cluster.run_app({"list", cluster.node(0).mount()}).find("db-shm\n") != std::string::npos; }
  std::string on_replica(const std::string& query) {
    cluster.wait_for_equal(kSoon);
    App app = cluster.open(1, "db");
    std::string value = app.value(query);
    app.close();
    return value;
  }
  void check_quiet() {
    CHECK_FALSE(cluster.log_contains(0, "correcting it"));
    CHECK_FALSE(cluster.log_contains(0, "pages that differed"));
  }

  Cluster cluster;
};

}  // namespace

TEST_CASE("each commit in EXCLUSIVE has its position at once and is on the replica soon") {
  Pair pair;
  App app = pair.open_exclusive();
  uint64_t txid = pair.txid();
  for (const char* synchronous : {"OFF", "NORMAL", "FULL"}) {
    app.sql(std::string("PRAGMA synchronous=") + synchronous);
    for (int i = 0; i < 5; i++) {
      app.sql("INSERT INTO t(v) VALUES(1)");
      CHECK(pair.txid() == ++txid);
    }
    // Nobody asks on the primary: what proves the commit is that nothing comes.
    app.sql("INSERT INTO t(v) VALUES(2)");
    txid++;
    App reader = pair.cluster.open(1, "db");
    const std::string expected = app.value("SELECT count(*) FROM t");
    Deadline deadline(kSoon);
    while (reader.value("SELECT count(*) FROM t") != expected && !deadline.passed()) {
    }
    CHECK(reader.value("SELECT count(*) FROM t") == expected);
    reader.close();
  }
  CHECK_FALSE(pair.has_index());
  app.close();
  pair.cluster.check_same("db");
  pair.check_quiet();
}

TEST_CASE(
    "all that a connection in EXCLUSIVE can do is captured, through its close and the next one's "
    "work") {
  Pair pair;
  App app = pair.open_exclusive();
  SUBCASE("every kind of checkpoint") {
    for (const char* kind : {"PASSIVE", "FULL", "RESTART", "TRUNCATE"}) {
      for (int i = 0; i < 10; i++) {
        app.sql("INSERT INTO t(v) VALUES(randomblob(3000))");
        app.sql(std::string("PRAGMA wal_checkpoint(") + kind + ")");
      }
    }
    app.sql("PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=0");
    for (int i = 0; i < 10; i++) app.sql("INSERT INTO t(v) VALUES(randomblob(3000))");
    app.sql("PRAGMA wal_autocheckpoint=1");
    for (int i = 0; i < 10; i++) app.sql("INSERT INTO t(v) VALUES(randomblob(3000))");
  }
  SUBCASE("spilled, rolled back, vacuumed") {
    app.sql("PRAGMA cache_size=5");
    app.sql("BEGIN; " + kSpill + "; ROLLBACK");
    app.sql("BEGIN; " + kSpill + "; COMMIT");
    app.sql("BEGIN; " + kSpill + "; ROLLBACK; DELETE FROM t WHERE id % 2");
    app.sql("VACUUM");
    app.sql("BEGIN; " + kSpill + "; ROLLBACK");
  }
  SUBCASE("another journal mode and back") {
    app.sql("INSERT INTO t(v) VALUES(1)");
    app.sql("PRAGMA journal_mode=DELETE; INSERT INTO t(v) VALUES(2); PRAGMA journal_mode=WAL");
  }
  SUBCASE("changes without right checksums") {
    app.sql(
        "CREATE TABLE u(a, b); CREATE INDEX i ON t(v); PRAGMA cache_size=5; PRAGMA "
        "wal_autocheckpoint=0");
    app.sql("BEGIN; SAVEPOINT s; INSERT INTO u VALUES(1, 2)");
    for (int i = 0; i < 200; i++) app.sql("INSERT INTO t(v) VALUES(randomblob(500))");
    app.sql("ROLLBACK TO s; RELEASE s");
    for (int i = 0; i < 20; i++) app.sql("INSERT INTO t(v) VALUES(randomblob(500))");
    app.sql("COMMIT; INSERT INTO t(v) VALUES('after')");
    SUBCASE("a checkpoint shows them") {
      app.sql("PRAGMA wal_checkpoint(PASSIVE)");
      CHECK(pair.on_replica("SELECT count(*) FROM t") == "21");
    }
    SUBCASE("a truncating checkpoint shows them") {
      app.sql("PRAGMA wal_checkpoint(TRUNCATE)");
      CHECK(pair.on_replica("SELECT count(*) FROM t") == "21");
    }
    SUBCASE("the close shows them") {}
  }
  app.sql("INSERT INTO t(v) VALUES('last')");
  const std::string expected = app.value("SELECT count(*) FROM t");
  CHECK_FALSE(pair.has_index());
  app.close();
  CHECK(pair.on_replica("SELECT count(*) FROM t") == expected);
  App next = pair.cluster.open(0, "db");
  next.sql("INSERT INTO t(v) VALUES('by another')");
  CHECK(pair.has_index());
  next.close();
  pair.cluster.check_same("db");
  pair.check_quiet();
}

TEST_CASE("EXCLUSIVE after the first look goes on with the shared index, and back") {
  Pair pair;
  App app = pair.cluster.open(0, "db");
  app.sql("SELECT * FROM t");
  app.sql("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t(v) VALUES(1)");
  CHECK(pair.has_index());
  App other = pair.cluster.open(0, "db");
  other.sql("PRAGMA busy_timeout=0");
  CHECK(other.try_sql("SELECT * FROM t").error != 0);
  app.sql("INSERT INTO t(v) VALUES(2); PRAGMA locking_mode=NORMAL; INSERT INTO t(v) VALUES(3)");
  CHECK(other.value("SELECT count(*) FROM t") == "3");
  CHECK(pair.on_replica("SELECT count(*) FROM t") == "3");
  app.close();
  other.sql("INSERT INTO t(v) VALUES(4)");
  other.close();
  pair.cluster.check_same("db");
  pair.check_quiet();
}

TEST_CASE("users that are killed leave what they committed, whichever index they and the next ones use") {
  Pair pair;
  int64_t rows = 0;
  for (int round = 0; round < 12; round++) {
    const bool exclusive = round % 3 != 0;
    App app = exclusive ? pair.open_exclusive() : pair.cluster.open(0, "db");
    app.sql("PRAGMA cache_size=5; PRAGMA synchronous=OFF");
    for (int i = 0; i < 3; i++) {
      app.sql("INSERT INTO t(v) VALUES(randomblob(2000))");
      rows++;
    }
    if (round % 4 == 1) app.sql("PRAGMA wal_checkpoint(RESTART)");
    if (round % 2) app.sql("BEGIN; " + kSpill);
    app.process().signal(SIGKILL);
    app.process().join(kSoon);
  }
  App last = pair.cluster.open(0, "db");
  CHECK(last.value("SELECT count(*) FROM t") == std::to_string(rows));
  CHECK(pair.on_replica("SELECT count(*) FROM t") == std::to_string(rows));
  last.close();
  pair.cluster.check_same("db");
  pair.check_quiet();
}

TEST_CASE("an index that somebody else has open for reading is nobody's when its users are dead") {
  Pair pair;
  // A backup program, say. As it has the file open, nothing tells the node that SQLite has not.
  auto hold_index = [&] {
    SpawnOptions options;
    options.argv = {"/bin/sh", "-c", "exec 3<\"$1\" && echo open && read line", "sh",
                    pair.cluster.node(0).path("db-shm")};
    auto holder = Process::spawn(options);
    CHECK(holder->read_line(kSoon) == "open");
    return holder;
  };
  App normal = pair.cluster.open(0, "db");
  normal.sql("INSERT INTO t(v) VALUES(1)");
  auto before = hold_index();
  normal.process().signal(SIGKILL);
  normal.process().join(kSoon);
  uint64_t txid = pair.txid();
  App app = pair.open_exclusive();
  for (int i = 0; i < 5; i++) app.sql("INSERT INTO t(v) VALUES(2)");
  CHECK(pair.txid() == txid + 5);
  auto after = hold_index();
  for (int i = 0; i < 5; i++) app.sql("INSERT INTO t(v) VALUES(3)");
  app.sql("PRAGMA wal_checkpoint(RESTART)");
  for (int i = 0; i < 5; i++) app.sql("INSERT INTO t(v) VALUES(4)");
  CHECK(pair.txid() == txid + 15);
  app.close();
  normal = pair.cluster.open(0, "db");
  normal.sql("INSERT INTO t(v) VALUES(5)");
  App other = pair.cluster.open(0, "db");
  other.sql("INSERT INTO t(v) VALUES(6)");
  CHECK(pair.txid() == txid + 17);
  before->close_input();
  after->close_input();
  before->join(kSoon);
  after->join(kSoon);
  other.close();
  normal.close();
  pair.cluster.check_same("db");
  pair.check_quiet();
}

TEST_CASE("a database is made by a connection in EXCLUSIVE") {
  Pair pair;
  App app = pair.cluster.open(0, "made");
  app.sql(
      "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY "
      "KEY, v)");
  for (int i = 0; i < 20; i++) app.sql("INSERT INTO t(v) VALUES(randomblob(2000))");
  app.sql("PRAGMA wal_checkpoint(RESTART); INSERT INTO t(v) VALUES(1)");
  app.close();
  pair.cluster.check_same("made");
  pair.check_quiet();
}

TEST_CASE(
    "a node that starts while an application from before has the database in EXCLUSIVE waits for "
    "its end") {
  Pair pair;
  App app = pair.open_exclusive();
  app.sql("PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0; INSERT INTO t(v) VALUES(1)");
  pair.cluster.kill9(0);
  app.sql("INSERT INTO t(v) VALUES(2)");
  pair.cluster.start_primary();
  pair.cluster.wait_for_state(0, "db", "fenced", kSoon);
  App::Answer refused = pair.cluster.open(0, "db").try_sql("SELECT * FROM t");
  CHECK(refused.error != 0);
  app.sql("INSERT INTO t(v) VALUES(3)");
  app.process().signal(SIGKILL);
  app.process().join(kSoon);
  pair.cluster.wait_for_state(0, "db", "ready", kSoon);
  CHECK(pair.on_replica("SELECT count(*) FROM t") == "3");
  pair.cluster.check_same("db");
}

// The mount passes the journal through of who has unlinked his last one.
TEST_CASE("each commit in a rollback mode has its position at once, also where its end is not seen") {
  for (const std::string mode : {"locking_mode=EXCLUSIVE", "journal_mode=PERSIST", "journal_mode=TRUNCATE"}) {
    for (const std::string synchronous : {"OFF", "FULL"}) {
      CAPTURE(mode);
      CAPTURE(synchronous);
      Pair pair;
      App app = pair.cluster.open(0, "db");
      CHECK(app.value("PRAGMA journal_mode=DELETE") == "delete");
      app.close();
      app = pair.cluster.open(0, "db");  // so that it is not passed through, and its writes are seen
      app.sql("INSERT INTO t(v) VALUES(1); INSERT INTO t(v) VALUES(1)");
      uint64_t txid = pair.txid();
      app.sql("PRAGMA synchronous=" + synchronous + "; PRAGMA " + mode + "; SELECT count(*) FROM t");
      for (int i = 0; i < 5; i++) {
        app.sql("INSERT INTO t(v) VALUES(randomblob(2000))");
        if (i % 2 == 0) continue;  // and where nobody has asked when the next one comes
        txid += 2;
        CHECK(pair.txid() == txid);
      }
      // Nobody asks at all.
      App reader = pair.cluster.open(1, "db");
      const std::string expected = app.value("SELECT count(*) FROM t");
      Deadline deadline(kSoon);
      while (reader.value("SELECT count(*) FROM t") != expected && !deadline.passed()) usleep(1000);
      CHECK(reader.value("SELECT count(*) FROM t") == expected);
      reader.close();
      app.close();
      pair.cluster.check_same("db");
      pair.check_quiet();
    }
  }
}
