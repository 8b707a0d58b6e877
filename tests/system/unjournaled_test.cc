// Writes without a rollback journal to a database that the mount passes through, where they are not seen and cannot be
// refused.
#include <signal.h>

#include "system/process.h"
#include "system/system_test.h"

using namespace litefs::test;

namespace {

constexpr Millis kSoon{10000};
constexpr const char* kSaid = "written without a rollback journal";

struct Pair {
  Pair() : cluster(cluster_options(2)) { start_pair(cluster); }
  // Of a database in WAL, so that its files are passed through; then in this mode.
  App open_unseen(const std::string& mode) {
    App app = cluster.open(0, "db");
    app.sql("INSERT INTO t(v) VALUES('in WAL')");
    CHECK(app.value("PRAGMA journal_mode=" + mode) == mode);
    return app;
  }
  // In EXCLUSIVE, which it keeps: nobody else gets at the database before it ends.
  App write_exclusively() {
    App app = open_unseen("off");
    CHECK(app.value("PRAGMA locking_mode=EXCLUSIVE") == "exclusive");
    for (int i = 0; i < 3; i++) app.sql("INSERT INTO t(v) VALUES(randomblob(5000))");
    return app;
  }
  // Nobody writes on the primary any more.
  void check_arrives(const std::string& count) {
    App reader = cluster.open(1, "db");
    Deadline deadline(kSoon);
    while (reader.value("SELECT count(*) FROM t") != count && !deadline.passed()) {
    }
    CHECK(reader.value("SELECT count(*) FROM t") == count);
    reader.close();
  }

  Cluster cluster;
};

}  // namespace

TEST_CASE("what is written without a journal to a database that is passed through arrives by itself") {
  Pair pair;
  std::string mode;
  SUBCASE("OFF") { mode = "off"; }
  SUBCASE("MEMORY") { mode = "memory"; }
  CAPTURE(mode);
  App app = pair.open_unseen(mode);
  app.sql("INSERT INTO t(v) SELECT randomblob(3000) FROM (VALUES(1),(2),(3))");
  pair.check_arrives("4");
  CHECK(pair.cluster.log_contains(0, kSaid));
  app.sql("UPDATE t SET v = 'changed' WHERE id = 2");
  app.sql("INSERT INTO t(v) VALUES('more')");
  pair.check_arrives("5");
  // With the journal again each transaction is its own.
  CHECK(app.value("PRAGMA journal_mode=delete") == "delete");
  app.sql("INSERT INTO t(v) VALUES('in DELETE')");
  pair.check_arrives("6");
  app.close();
  pair.cluster.check_same("db");
}

TEST_CASE("in EXCLUSIVE it arrives when the lock is given back") {
  Pair pair;
  App app = pair.write_exclusively();
  app.close();
  pair.check_arrives("4");
  pair.cluster.check_same("db");
}

TEST_CASE("a node that stops before it could capture it does so when it starts again") {
  Pair pair;
  App app = pair.write_exclusively();
  app.process().signal(SIGKILL);
  app.process().join(kSoon);
  pair.cluster.stop(0);
  pair.cluster.start_primary();
  pair.check_arrives("4");
  pair.cluster.check_same("db");
}

// SQLite does not take such a journal for hot, and leaves it where it is.
TEST_CASE("a journal that its writer's death left unsynced protects nobody's writes") {
  for (int transactions : {0, 2}) {  // before; after them the mount passes the journal through
    CAPTURE(transactions);
    Pair pair;
    App maker = pair.cluster.open(0, "other");
    maker.sql("PRAGMA journal_mode=delete; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    maker.close();
    App killed = pair.cluster.open(0, "other");
    for (int i = 0; i < transactions; i++) killed.sql("INSERT INTO t(v) VALUES('kept')");
    killed.sql("BEGIN; INSERT INTO t(v) VALUES('lost')");
    killed.process().signal(SIGKILL);
    killed.process().join(kSoon);
    App app = pair.cluster.open(0, "other");
    CHECK(app.value("PRAGMA journal_mode=memory") == "memory");
    CHECK(app.try_sql("INSERT INTO t(v) VALUES('unprotected')").error != 0);
    CHECK(pair.cluster.log_contains(0, kSaid));
    CHECK(app.value("PRAGMA journal_mode=delete") == "delete");
    app.sql("INSERT INTO t(v) VALUES('kept')");
    CHECK(app.value("SELECT count(*) FROM t") == std::to_string(transactions + 1));
    app.close();
    pair.cluster.check_same("other");
    CHECK_FALSE(pair.cluster.log_contains(0, "a journal was begun over"));
  }
}
