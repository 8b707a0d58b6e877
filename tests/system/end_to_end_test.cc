// The whole path in a few seconds: what one node's mount takes appears on every other's.
#include <signal.h>

#include "system/system_test.h"

using namespace litefs::test;

namespace {

constexpr Millis kSoon{10000};

// A database in WAL with a table, made through the primary's mount by an application.
void make_database(Cluster& cluster, const std::string& name) {
  App app = cluster.open(0, name);
  app.sql("PRAGMA journal_mode=WAL");
  app.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  app.close();
}

}  // namespace

TEST_CASE("a write on the primary's mount appears on the replica's") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  make_database(cluster, "db");
  App writer = cluster.open(0, "db");
  writer.sql("INSERT INTO t(v) VALUES('hello')");
  cluster.wait_for_equal(kSoon);

  App reader = cluster.open(1, "db");
  CHECK(reader.value("SELECT v FROM t") == "hello");
  CHECK(cluster.position(0, "db") == cluster.position(1, "db"));
  CHECK(cluster.position(0, "db").size() == 33);

  SUBCASE("an open connection on the replica sees what comes later") {
    writer.sql("INSERT INTO t(v) VALUES('again')");
    cluster.wait_for_equal(kSoon);
    CHECK(reader.value("SELECT count(*) FROM t") == "2");
  }
  SUBCASE("a write on the replica is refused and changes nothing") {
    std::string before = cluster.position(1, "db");
    App::Answer answer = reader.try_sql("INSERT INTO t(v) VALUES('here')");
    CHECK(answer.error != 0);
    CHECK(cluster.position(1, "db") == before);
    CHECK(reader.value("SELECT count(*) FROM t") == "1");
    App creator = cluster.open(1, "other");
    CHECK(creator.try_sql("CREATE TABLE x(a)").error != 0);
  }
  SUBCASE("the root names the primary and the lag on a replica") {
    CHECK(cluster.run_app({"cat", cluster.node(1).path(".primary")}).rfind("node0", 0) == 0);
    CHECK_THROWS(cluster.run_app({"cat", cluster.node(0).path(".primary")}));
    CHECK_NOTHROW(std::stoll(cluster.run_app({"cat", cluster.node(1).path(".lag")})));
  }
  SUBCASE("a large transaction arrives whole") {
    writer.sql(
        "WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 20000) "
        "INSERT INTO t(v) SELECT randomblob(1000) FROM c");
    cluster.wait_for_equal(kSoon);
    CHECK(reader.value("SELECT count(*) FROM t") == "20001");
  }
  SUBCASE("a rolled back transaction that spilled leaves no trace") {
    std::string before = cluster.position(0, "db");
    writer.sql("PRAGMA cache_size=5");
    writer.sql(
        "BEGIN; WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 500) "
        "INSERT INTO t(v) SELECT randomblob(1000) FROM c; ROLLBACK");
    CHECK(cluster.position(0, "db") == before);
  }
  SUBCASE(
      "spilled changes undone by a savepoint, which SQLite 3.40 commits with wrong frame "
      "checksums") {
    // A page spilled once, then others spilled twice: on commit SQLite rewrites checksums from the
    // first of those, a frame that the savepoint has undone, so that frames before it keep none.
    // Readers never check.
    writer.sql("CREATE TABLE u(a, b); CREATE INDEX i ON t(v); PRAGMA cache_size=5");
    writer.sql("BEGIN; SAVEPOINT s; INSERT INTO u VALUES(1, 2)");
    for (int i = 0; i < 200; i++) writer.sql("INSERT INTO t(v) VALUES(randomblob(500))");
    writer.sql("ROLLBACK TO s; RELEASE s");
    for (int i = 0; i < 20; i++) writer.sql("INSERT INTO t(v) VALUES(randomblob(500))");
    writer.sql("COMMIT");
    cluster.wait_for_equal(kSoon);
    CHECK(reader.value("SELECT count(*) FROM t") == "21");
    writer.sql("INSERT INTO t(v) VALUES('after')");
    cluster.wait_for_equal(kSoon);
    CHECK(reader.value("SELECT count(*) FROM t") == "22");
  }
  SUBCASE("a vacuum and a truncating checkpoint are followed") {
    writer.sql("DELETE FROM t; VACUUM; PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t(v) VALUES('new')");
    cluster.wait_for_equal(kSoon);
    CHECK(reader.value("SELECT v FROM t") == "new");
  }
  reader.close();
  writer.close();
  cluster.check_same("db");
}

TEST_CASE("every journal mode is replicated, and changes of it while others have the database open") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  App writer = cluster.open(0, "db");
  writer.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v); PRAGMA cache_size=5");
  App other = cluster.open(0, "db");
  App reader = cluster.open(1, "db");
  for (const std::string mode : {"TRUNCATE", "PERSIST", "WAL", "DELETE"}) {
    CAPTURE(mode);
    // Only one connection can leave the WAL.
    other.close();
    writer.sql("PRAGMA journal_mode=" + mode);
    other = cluster.open(0, "db");
    for (int i = 0; i < 3; i++) {
      writer.sql(
          "WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 100) "
          "INSERT INTO t(v) SELECT randomblob(700) FROM c");
      other.sql("UPDATE t SET v = randomblob(300) WHERE id % 7 = 0; DELETE FROM t WHERE id % 3 = 0");
      writer.sql("BEGIN; UPDATE t SET v = randomblob(900); ROLLBACK");
    }
    if (mode != "WAL") writer.sql("VACUUM");
    cluster.wait_for_equal(kSoon);
    CHECK(reader.value("SELECT count(*) FROM t") == writer.value("SELECT count(*) FROM t"));
  }
  SUBCASE("an application that is killed in a transaction leaves nothing of it") {
    writer.sql("BEGIN; UPDATE t SET v = randomblob(900)");
    other.close();
    writer.process().signal(SIGKILL);
    writer.process().join(kSoon);
    other = cluster.open(0, "db");
    other.sql("INSERT INTO t(v) VALUES('after')");
    cluster.wait_for_equal(kSoon);
    CHECK(reader.value("SELECT v FROM t ORDER BY id DESC LIMIT 1") == "after");
  }
  SUBCASE("the node is killed in the middle of a transaction") {
    writer.sql("BEGIN; UPDATE t SET v = randomblob(900)");
    cluster.kill9(0);
    CHECK(writer.try_sql("COMMIT").error != 0);
    cluster.start_primary();
  }
  other.close();
  writer.process().signal(SIGKILL);
  reader.close();
  cluster.check_same("db");
}

TEST_CASE("a replica that was away continues from its position") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  make_database(cluster, "db");
  cluster.wait_for_equal(kSoon);
  cluster.stop(1);
  App writer = cluster.open(0, "db");
  for (int i = 0; i < 50; i++) writer.sql("INSERT INTO t(v) VALUES(" + std::to_string(i) + ")");
  cluster.start_replica(1);
  writer.close();
  cluster.check_same("db");
}

TEST_CASE("a new replica loads what is there") {
  Cluster cluster(cluster_options(1));
  cluster.start_primary();
  make_database(cluster, "db");
  App writer = cluster.open(0, "db");
  writer.sql(
      "WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 20000) "
      "INSERT INTO t(v) SELECT randomblob(1000) FROM c");
  cluster.add_node();
  cluster.start_replica(1);
  writer.sql("INSERT INTO t(v) VALUES('while it loads')");
  cluster.check_same("db");
  writer.close();
}

TEST_CASE("a database that applications asked for in vain before it came is readable when it has come") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  make_database(cluster, "db");
  cluster.stop(0);
  cluster.start_replica(1);
  // The kernel keeps it as a missing name.
  for (const std::string suffix : {"", "-wal", "-shm"}) {
    CHECK_THROWS(cluster.run_app({"cat", cluster.node(1).path("db" + suffix)}));
  }
  cluster.start_primary();
  cluster.wait_for_equal(kSoon);
  CHECK(cluster.open(1, "db").value("SELECT count(*) FROM t") == "0");
  CHECK_FALSE(cluster.log_contains(1, "failed"));
  cluster.check_same("db");
}

TEST_CASE("a primary that was stopped goes on where it was") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  make_database(cluster, "db");
  cluster.wait_for_equal(kSoon);
  cluster.restart(0);
  App writer = cluster.open(0, "db");
  writer.sql("INSERT INTO t(v) VALUES('after')");
  writer.close();
  cluster.check_same("db");
}

TEST_CASE("a deleted database disappears from the replica, whoever has it open") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  make_database(cluster, "db");
  make_database(cluster, "kept");
  cluster.wait_for_equal(kSoon);
  App reader = cluster.open(1, "db");
  reader.sql("SELECT * FROM t");
  cluster.run_app({"remove", cluster.node(0).path("db")});
  cluster.wait_for_equal(kSoon);
  CHECK(cluster.status(1).find("db") == nullptr);
  CHECK(cluster.status(1).find("kept") != nullptr);
  std::string names = cluster.run_app({"list", cluster.node(1).mount()});
  CHECK(names.find("db") == std::string::npos);
  reader.close();

  make_database(cluster, "db");
  cluster.check_same("db");
}
