// What happens to names: super-journals beside databases, as every node sees them.
#include "system/system_test.h"

using namespace litefs::test;

namespace {

constexpr Millis kSoon{10000};

}  // namespace

TEST_CASE("a transaction over two attached databases is replicated, and its super-journal is no database") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  {
    App app = cluster.open(0, "a.db");
    app.sql("PRAGMA journal_mode=DELETE");
    app.sql("CREATE TABLE t(id, v)");
    app.sql("ATTACH '" + cluster.node(0).path("b.db") + "' AS b");
    app.sql("CREATE TABLE b.u(id, v)");
    app.sql("BEGIN; INSERT INTO t VALUES(1, 1); INSERT INTO b.u VALUES(2, 2); COMMIT");
    app.close();
  }
  cluster.wait_for_equal(kSoon);
  CHECK(cluster.open(1, "a.db").value("SELECT v FROM t") == "1");
  CHECK(cluster.open(1, "b.db").value("SELECT v FROM u") == "2");
  for (size_t node : {0, 1}) {
    CHECK(cluster.status(node).databases.size() == 2);
    CHECK(cluster.run_app({"list", cluster.node(node).mount()}).find("-mj") == std::string::npos);
  }
  cluster.check_same("a.db");
  cluster.check_same("b.db");
}
