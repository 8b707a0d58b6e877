// Nodes that went different ways, and come together again: only what differs travels, and nothing that a node had alone
// is missing from what it keeps.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "system/process.h"
#include "system/sql.h"
#include "system/system_test.h"

using namespace litefs::test;

namespace {

constexpr Millis kSoon{20000};
constexpr Millis kSlow{120000};

std::string rows(int first, int last) {
  return "WITH c(i) AS (SELECT " + std::to_string(first) + " UNION ALL SELECT i + 1 FROM c WHERE i < " +
         std::to_string(last) + ") INSERT OR REPLACE INTO t SELECT i, randomblob(1000) FROM c";
}

// A primary and a replica, equal, with a database of some 5,000 rows and as many KB.
struct Nodes {
  Cluster cluster;

  explicit Nodes(const ClusterOptions& options = cluster_options(2)) : cluster(options) {
    cluster.start_primary();
    cluster.start_replica(1);
    App app = cluster.open(0, "db");
    app.sql("PRAGMA journal_mode=WAL");
    app.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    app.sql(rows(1, 5000));
    app.close();
    cluster.wait_for_equal(kSoon);
  }

  void write(size_t node, const std::vector<std::string>& transactions) {
    App app = cluster.open(node, "db");
    for (const std::string& sql : transactions) app.sql(sql);
    app.close();
  }
  // Node 1 as a primary, apart from node 0, which must not run.
  void run_alone(const std::vector<std::string>& transactions) {
    set_candidate(true);
    cluster.start(1);
    write(1, transactions);
    cluster.stop(1);
    set_candidate(false);
  }
  void set_candidate(bool candidate) {
    const std::string path = cluster.node(1).directory() + "/litefs.yml";
    std::string text = read_text_file(path);
    const std::string from = std::string("candidate: ") + (candidate ? "false" : "true");
    const size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    text.replace(at, from.size(), std::string("candidate: ") + (candidate ? "true" : "false"));
    std::ofstream(path) << text;
  }

  std::string litefs(std::vector<std::string> words) {
    words.insert(words.begin(), std::getenv("LITEFS_BIN"));
    words.insert(words.end(), {"-data", cluster.node(1).data()});
    return run_command(words, kSoon);
  }
  // IDs of what node 1 keeps, oldest first.
  std::vector<std::string> lost_ids() {
    std::vector<std::string> ids;
    const std::string json = litefs({"lost", "--json"});
    const std::string key = "\"id\": \"";
    for (size_t at = json.find(key); at != std::string::npos; at = json.find(key, at + 1)) {
      ids.push_back(json.substr(at + key.size(), 33));
    }
    return ids;
  }
  // A lost state as an application sees it.
  std::string exported(const std::string& id, const std::string& query) {
    const std::string to = cluster.scratch("export-" + id);
    std::filesystem::remove(to);
    litefs({"lost", "export", "db", id, to});
    Sql db(to, SQLITE_OPEN_READWRITE);
    CHECK(db.text("PRAGMA integrity_check") == "ok");
    return db.text(query);
  }
};

const std::string kAll = "SELECT group_concat(id || hex(v)) FROM (SELECT * FROM t ORDER BY id)";

}  // namespace

TEST_CASE(
    "a replica that was primary for a while rejoins: what differs is replaced, what it had alone can be exported") {
  Nodes nodes;
  Cluster& cluster = nodes.cluster;
  const std::string fork = cluster.position(1, "db");
  cluster.stop(1);
  cluster.stop(0);
  nodes.run_alone({"UPDATE t SET v = 'alone' WHERE id = 17", "DELETE FROM t WHERE id > 4990",
                   "INSERT INTO t VALUES(9000, 'alone')"});
  std::string alone;
  {
    Sql db(cluster.node(1).data() + "/db/db", SQLITE_OPEN_READWRITE);
    alone = db.text(kAll);
  }
  cluster.start_primary();
  nodes.write(0, {"UPDATE t SET v = 'primary' WHERE id IN (17, 2000)"});
  cluster.start_replica(1);
  cluster.check_same("db");
  CHECK(cluster.log_contains(1, "loading the difference to the primary"));
  CHECK(cluster.open(1, "db").value("SELECT v FROM t WHERE id = 17") == "primary");

  std::vector<std::string> ids = nodes.lost_ids();
  REQUIRE(ids.size() == 1);
  CHECK(nodes.litefs({"lost"}).find(fork) != std::string::npos);
  CHECK(nodes.litefs({"lost"}).find("3 transactions") != std::string::npos);
  CHECK(nodes.exported(ids[0], kAll) == alone);

  // Exact also after transactions that change everything else.
  nodes.write(0, {"UPDATE t SET v = randomblob(900)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"});
  cluster.check_same("db");
  CHECK(nodes.exported(ids[0], kAll) == alone);
  CHECK_THROWS(nodes.litefs({"lost", "export", "db", "no-such-id", cluster.scratch("none")}));
}

TEST_CASE("a replica whose epoch is above the primary's is followed after one restart of the primary") {
  Nodes nodes;
  nodes.cluster.stop(1);
  nodes.cluster.stop(0);
  for (int i = 0; i < 5; i++) nodes.run_alone({rows(1, 2)});
  nodes.cluster.start(0);
  nodes.cluster.launch(1);
  nodes.cluster.wait_until_up(1, kSoon);
  const auto deadline = std::chrono::steady_clock::now() + kSoon;
  while (!nodes.cluster.log_contains(1, "restart the primary")) {
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    std::this_thread::sleep_for(Millis(20));
  }
  nodes.cluster.restart(0);
  nodes.cluster.check_same("db");
}

TEST_CASE(
    "a replica whose file was written with plain SQLite while it was stopped rejoins, and keeps what was written") {
  Nodes nodes;
  Cluster& cluster = nodes.cluster;
  for (int round = 1; round <= 2; ++round) {
    cluster.stop(1);
    std::string by_hand;
    {
      Sql db(cluster.node(1).data() + "/db/db", SQLITE_OPEN_READWRITE);
      db.exec("UPDATE t SET v = 'by hand' WHERE id % 1000 = " + std::to_string(round));
      by_hand = db.text(kAll);
    }
    nodes.write(0, {"UPDATE t SET v = 'meanwhile' WHERE id = 3"});
    cluster.start_replica(1);
    cluster.check_same("db");
    std::vector<std::string> ids = nodes.lost_ids();
    REQUIRE(ids.size() == static_cast<size_t>(round));
    CHECK(nodes.exported(ids.back(), kAll) == by_hand);
  }
}

TEST_CASE("a replica that was away for longer than the log reaches gets what differs, and keeps nothing") {
  ClusterOptions options = cluster_options(2);
  options.data_settings = {"retention-size: 1MB", "retention-monitor-interval: 1s"};
  Nodes nodes(options);
  Cluster& cluster = nodes.cluster;
  cluster.stop(1);
  const std::string log_dir = cluster.node(0).data() + "/meta/db/log";
  auto oldest = [&] {
    std::string name = "~";
    for (const auto& e : std::filesystem::directory_iterator(log_dir))
      name = std::min(name, e.path().filename().string());
    return name;
  };
  const std::string before = oldest();
  App app = cluster.open(0, "db");
  Deadline deadline(Millis(60000));
  while (oldest() == before) {
    REQUIRE_FALSE(deadline.passed());
    app.sql(rows(1, 2000));
  }
  app.close();
  cluster.start_replica(1);
  cluster.check_same("db");
  CHECK(cluster.log_contains(1, "loading the difference to the primary"));
  CHECK(nodes.lost_ids().empty());
}

TEST_CASE("a resync that is interrupted by SIGKILL of either node begins again") {
  Nodes nodes;
  Cluster& cluster = nodes.cluster;
  cluster.stop(1);
  cluster.stop(0);
  nodes.run_alone({"UPDATE t SET v = randomblob(1000) WHERE id % 3 = 0"});
  cluster.start_primary();
  for (int round = 0; round < 6; ++round) {
    cluster.launch(1);
    // Somewhere between its start and the resync's end.
    usleep(static_cast<useconds_t>(test_seed() >> round * 8 & 255) * 3000);
    cluster.kill9(1);
    if (round % 2 == 0) {
      cluster.kill9(0);
      cluster.start_primary();
    }
    nodes.write(0, {"UPDATE t SET v = 'round' WHERE id = " + std::to_string(round)});
  }
  cluster.start_replica(1);
  cluster.check_same("db");
  CHECK(nodes.lost_ids().size() == 1);
}

TEST_CASE("a replica joins while an application in DELETE mode spills large transactions into the database") {
  // Without syncs SQLite spills much more often in the same time.
  std::string synchronous;
  SUBCASE("synced") { synchronous = "NORMAL"; }
  SUBCASE("not synced") { synchronous = "OFF"; }
  ClusterOptions options = cluster_options(2);
  options.data_settings = {"retention-size: 1MB", "retention-monitor-interval: 1s"};
  Cluster cluster(options);
  cluster.start_primary();
  App app = cluster.open(0, "db");
  // Each spill syncs: on a slow disk a statement takes its time.
  auto sql = [&](const std::string& text) { REQUIRE(app.try_sql(text, kSlow).error == 0); };
  app.sql("PRAGMA journal_mode=DELETE");
  app.sql("PRAGMA cache_size=5");
  app.sql("PRAGMA synchronous=" + synchronous);
  app.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  for (int i = 0; i < 5; ++i) sql(rows(i * 10000 + 1, (i + 1) * 10000));
  // So that the whole log is too long, or cut already: either leads to a copy.
  sql("UPDATE t SET v = randomblob(1000)");
  cluster.launch(1);
  const std::string done = "copy from the primary complete";
  Deadline deadline(kSlow);
  int transactions = 0;
  for (; !cluster.log_contains(1, done); ++transactions) {
    REQUIRE_FALSE(deadline.passed());
    const std::string slice = std::to_string(transactions % 97);
    sql("BEGIN");
    sql("UPDATE t SET v = randomblob(1000) WHERE id % 97 = " + slice);
    // Free pages that it uses again, and a size that it may take back.
    sql("DELETE FROM t WHERE id > 45000 AND id % 97 = " + slice);
    sql(rows(45000 + transactions * 100, 45200 + transactions * 100));
    sql(transactions % 3 == 0 ? "ROLLBACK" : "COMMIT");
  }
  MESSAGE(transactions, " large transactions during the join");
  CHECK(transactions > 0);
  sql("UPDATE t SET v = 'the last' WHERE id = 1");
  app.close();
  cluster.wait_until_up(1, kSoon);
  cluster.check_same("db");
  CHECK(cluster.open(1, "db").value("SELECT v FROM t WHERE id = 1") == "the last");
  CHECK_FALSE(cluster.log_contains(0, "sending a database failed"));
}

TEST_CASE("a replica that joined by a copy is not behind") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  App app = cluster.open(0, "db");
  app.sql("PRAGMA journal_mode=wal; CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1, 0)");
  // So that the log is longer than the database.
  std::string updates;
  for (int i = 0; i < 100; i++) updates += "UPDATE t SET v = v + 1;";
  for (int i = 0; i < 60; i++) app.sql(updates);
  app.close();
  cluster.start_replica(1);
  cluster.wait_for_equal(kSoon);
  CHECK(cluster.log_contains(1, "loading a copy"));
  sleep(2);  // else it could not be far behind
  int64_t lag_ms = -1;
  for (Deadline deadline(kSoon); !deadline.passed() && (lag_ms < 0 || lag_ms > 1000); usleep(100000)) {
    lag_ms = std::stoll(cluster.run_app({"cat", cluster.node(1).path(".lag")}));
  }
  CHECK(lag_ms >= 0);
  CHECK(lag_ms <= 1000);
}
