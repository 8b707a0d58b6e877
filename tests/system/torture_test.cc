// Many processes, every kind of transaction and checkpoint: what replicas show is always a
// committed state.
//
// LITEFS_TORTURE_SECONDS (default 30) is the time of the first test, LITEFS_HOLD_SECONDS (default
// 10) how long the second holds its snapshot. The full bar: 300 and 60.
#include <unistd.h>

#include <random>

#include "system/system_test.h"

using namespace litefs::test;

namespace {

constexpr int kPageSizes[] = {512, 4096, 65536};
constexpr size_t kWriters = 5;
constexpr size_t kReaders = 3;  // on the primary
constexpr size_t kReplicas = 2;
constexpr double kRoundSeconds = 8;
constexpr Millis kConvergence{60000};

std::string database_name(size_t i) { return "db" + std::to_string(kPageSizes[i]); }

struct Running {
  std::string what;
  std::string error_path;
  std::unique_ptr<Process> process;
};

// Everybody must end by itself, with exit code 0; answers the outputs' sum of snapshots or
// transactions.
int64_t join_all(std::vector<Running>& running, double seconds) {
  int64_t total = 0;
  for (Running& r : running) {
    ExitStatus status = r.process->join(Millis(static_cast<int64_t>(seconds * 1000) + 60000));
    CHECK_MESSAGE(status.ok(), r.what, ": ", status.text(), " ", read_text_file(r.error_path));
    if (status.ok()) total += std::stoll(r.process->read_all(Millis(5000)));
  }
  return total;
}

// One round on one database: all processes open it, work, and close it (so the last close comes,
// too).
void torture_round(Cluster& cluster, Ledger& ledger, const std::string& database, double seconds,
                   std::mt19937_64& random) {
  std::vector<Running> writers;
  std::vector<Running> readers;
  for (size_t i = 0; i < kWriters; i++) {
    auto process = ledger.spawn_writer(seconds, "mixed", random());
    writers.push_back({"a writer", ledger.error_path(), std::move(process)});
  }
  auto add_reader = [&](size_t node, size_t number) {
    std::string what = "reader" + std::to_string(number) + " on node " + std::to_string(node);
    std::string errors = cluster.scratch(what + " of " + database + ".errors");
    auto process = cluster.spawn_app({"read", cluster.node(node).path(database),
                                      std::to_string(random()), std::to_string(seconds)},
                                     errors);
    readers.push_back({what, errors, std::move(process)});
  };
  for (size_t i = 0; i < kReaders; i++) add_reader(0, i);
  for (size_t i = 1; i <= kReplicas; i++) {
    add_reader(i, 0);
    add_reader(i, 1);
  }
  int64_t transactions = join_all(writers, seconds);
  int64_t snapshots = join_all(readers, seconds);
  MESSAGE(database, ": ", transactions, " transactions, ", snapshots, " snapshots");
  CHECK(transactions > 0);
  CHECK(snapshots > 0);
}

void check_log(Cluster& cluster, size_t node, const std::string& database) {
  CounterWalk walk = log_counters(cluster.node(node).data(), database, cluster.scratch("log"));
  for (const std::string& fault : walk.faults) FAIL_CHECK(database, " on node ", node, ": ", fault);
  for (const std::string& skip : walk.skipped) FAIL_CHECK(database, " on node ", node, ": ", skip);
  int64_t counter = std::stoll(cluster.run_app({"check", cluster.node(node).path(database)}));
  CHECK_MESSAGE(walk.last == counter, database, " on node ", node);
}

}  // namespace

TEST_CASE("every replica read is a committed state, in commit order, and the log skips none") {
  std::mt19937_64 random(test_seed());
  Cluster cluster(cluster_options(1 + kReplicas));
  cluster.start_primary();
  for (size_t i = 1; i <= kReplicas; i++) cluster.start_replica(i);
  for (size_t i = 0; i < std::size(kPageSizes); i++) {
    cluster.run_app(
        {"init", cluster.node(0).path(database_name(i)), std::to_string(kPageSizes[i])});
  }
  cluster.wait_for_equal(kConvergence);

  double seconds = static_cast<double>(environment_number("LITEFS_TORTURE_SECONDS", 30));
  size_t databases = std::size(kPageSizes);
  size_t rounds = std::max<size_t>(databases, static_cast<size_t>(seconds / kRoundSeconds));
  std::vector<Ledger> ledgers;
  for (size_t i = 0; i < databases; i++) ledgers.emplace_back(cluster, database_name(i));
  for (size_t round = 0; round < rounds; round++) {
    size_t i = round % databases;
    torture_round(cluster, ledgers[i], database_name(i), seconds / static_cast<double>(rounds),
                  random);
    cluster.wait_for_equal(kConvergence);
  }
  for (size_t i = 0; i < databases; i++) {
    cluster.check_same(database_name(i), kConvergence);
    for (size_t node = 0; node <= kReplicas; node++) {
      ledgers[i].check(node);
      check_log(cluster, node, database_name(i));
    }
  }
}

TEST_CASE("a read transaction held on a replica neither delays replication nor changes") {
  std::mt19937_64 random(test_seed());
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  std::string path = cluster.node(0).path("db");
  cluster.run_app({"init", path, "4096"});
  Ledger ledger(cluster, "db");
  ledger.spawn_writer(1, "small", random())->join(Millis(30000));
  cluster.wait_for_equal(kConvergence);

  const std::string query =
      "SELECT (SELECT hex(mark) FROM counter), (SELECT count(*) FROM entry), (SELECT sum(link) % "
      "1000000 "
      "FROM (SELECT link % 1000000 AS link FROM entry)), (SELECT count(*) FROM item)";
  App holder = cluster.open(1, "db");
  holder.sql("BEGIN");
  std::vector<std::string> before = holder.sql(query);

  // Writers checkpoint all the time, and yet each transaction becomes visible to others while we
  // hold on.
  double hold_seconds = static_cast<double>(environment_number("LITEFS_HOLD_SECONDS", 10));
  constexpr int kSteps = 5;
  int64_t last = std::stoll(cluster.run_app({"check", cluster.node(1).path("db")}));
  for (int i = 0; i < kSteps; i++) {
    auto writer = ledger.spawn_writer(hold_seconds / kSteps, "mixed", random());
    CHECK(writer->join(Millis(static_cast<int64_t>(hold_seconds * 1000) + 30000)).ok());
    cluster.wait_for_equal(kConvergence);
    int64_t now = std::stoll(cluster.run_app({"check", cluster.node(1).path("db")}));
    CHECK(now > last);
    last = now;
    CHECK(holder.sql(query) == before);
  }
  holder.sql("COMMIT");
  CHECK(holder.sql(query) != before);
  holder.close();
  cluster.check_same("db");
}

TEST_CASE("connections in EXCLUSIVE come and go: replicas show committed states, and the log skips none") {
  std::mt19937_64 random(test_seed());
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  constexpr size_t kExclusiveWriters = 3;
  double seconds = static_cast<double>(environment_number("LITEFS_TORTURE_SECONDS", 30));
  size_t rounds = std::max<size_t>(3, static_cast<size_t>(seconds / kRoundSeconds));
  std::vector<Ledger> ledgers;
  for (size_t i = 0; i < std::size(kPageSizes); i++) {
    cluster.run_app({"init", cluster.node(0).path(database_name(i)), std::to_string(kPageSizes[i])});
    ledgers.emplace_back(cluster, database_name(i));
  }
  cluster.wait_for_equal(kConvergence);
  for (size_t round = 0; round < rounds; round++) {
    Ledger& ledger = ledgers[round % ledgers.size()];
    const std::string database = database_name(round % ledgers.size());
    double round_seconds = seconds / static_cast<double>(rounds);
    std::vector<Running> writers;
    for (size_t i = 0; i < kExclusiveWriters; i++) {
      auto process = ledger.spawn_writer(round_seconds, "exclusive", random());
      writers.push_back({"a writer", ledger.error_path(), std::move(process)});
    }
    std::string errors = cluster.scratch("reader of " + database + ".errors");
    std::vector<Running> readers;
    readers.push_back({"a reader", errors,
                       cluster.spawn_app({"read", cluster.node(1).path(database), std::to_string(random()),
                                          std::to_string(round_seconds)},
                                         errors)});
    int64_t transactions = join_all(writers, round_seconds);
    MESSAGE(database, ": ", transactions, " transactions, ", join_all(readers, round_seconds), " snapshots");
    CHECK(transactions > 0);
    cluster.wait_for_equal(kConvergence);
  }
  for (size_t i = 0; i < ledgers.size(); i++) {
    cluster.check_same(database_name(i), kConvergence);
    for (size_t node : {0, 1}) {
      ledgers[i].check(node);
      check_log(cluster, node, database_name(i));
    }
  }
  CHECK_FALSE(cluster.log_contains(0, "correcting it"));
  CHECK_FALSE(cluster.log_contains(0, "pages that differed"));
}

TEST_CASE("spilled changes that savepoints take back replicate like any others") {
  std::mt19937_64 random(test_seed());
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  cluster.run_app({"init", cluster.node(0).path("db"), "4096"});
  cluster.wait_for_equal(kConvergence);
  Ledger ledger(cluster, "db");
  std::vector<Running> writers;
  for (int i = 0; i < 3; i++) {
    auto process = ledger.spawn_writer(5, "savepoints", random());
    writers.push_back({"a writer", ledger.error_path(), std::move(process)});
  }
  CHECK(join_all(writers, 5) > 0);
  cluster.check_same("db", kConvergence);
  ledger.check(1);
  check_log(cluster, 1, "db");
}

TEST_CASE("without drains transactions are lost, and the torture notices") {
  std::mt19937_64 random(test_seed());
  Cluster cluster(cluster_options(1));
  cluster.start_primary({"LITEFS_TEST_NO_DRAINS=1"});
  std::string path = cluster.node(0).path("db");
  cluster.run_app({"init", path, "4096"});
  Ledger ledger(cluster, "db");
  bool noticed = false;
  constexpr int kRoundsMax = 10;
  for (int round = 0; round < kRoundsMax && !noticed; round++) {
    std::vector<std::unique_ptr<Process>> writers;
    for (int i = 0; i < 4; i++) writers.push_back(ledger.spawn_writer(2, "checkpoints", random()));
    for (auto& writer : writers) writer->join(Millis(60000));
    CounterWalk walk = log_counters(cluster.node(0).data(), "db", cluster.scratch("log"));
    int64_t counter = std::stoll(cluster.run_app({"check", path}));
    CHECK(walk.records > 0);
    noticed = !walk.faults.empty() || !walk.skipped.empty() || walk.last != counter ||
              cluster.status(0).find("db")->state != "ready";
    if (!walk.skipped.empty()) MESSAGE(walk.skipped.front());
  }
  CHECK(noticed);
}
