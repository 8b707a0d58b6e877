// Many processes, every kind of transaction and checkpoint: what replicas show is always a
// committed state.
//
// LITEFS_TORTURE_SECONDS (default 10 or 30) is the time of each test of a profile,
// LITEFS_HOLD_SECONDS (default 10) how long one holds its snapshot. The full bar: 300 and 60.
#include <unistd.h>

#include <array>
#include <random>
#include <sstream>

#include "system/system_test.h"

using namespace litefs::test;

namespace {

constexpr int kPageSizes[] = {512, 4096, 65536};
constexpr size_t kReplicas = 2;
constexpr double kRoundSeconds = 8;
constexpr Millis kConvergence{60000};

std::string database_name(size_t i) { return "db" + std::to_string(kPageSizes[i]); }

struct Running {
  std::string what;
  std::string error_path;
  std::unique_ptr<Process> process;
};

// Everybody must end by itself, with exit code 0; answers the outputs' sums: of snapshots, or of
// transactions and switches.
std::array<int64_t, 2> join_all(std::vector<Running>& running, double seconds) {
  std::array<int64_t, 2> total{};
  for (Running& r : running) {
    ExitStatus status = r.process->join(Millis(static_cast<int64_t>(seconds * 1000) + 60000));
    CHECK_MESSAGE(status.ok(), r.what, ": ", status.text(), " ", read_text_file(r.error_path));
    if (!status.ok()) continue;
    std::istringstream output(r.process->read_all(Millis(5000)));
    int64_t first = 0;
    int64_t second = 0;
    output >> first >> second;
    total[0] += first;
    total[1] += second;
  }
  return total;
}

struct Load {
  std::string profile = "mixed";
  std::string mode = "wal";  // at the beginning
  size_t writers = 5;
  size_t readers = 3;                // on the primary
  std::string reader_verb = "read";  // theirs
};

// One round on one database: all processes open it, work, and close it (so the last close comes,
// too). Answers how often the WAL was switched on or off.
int64_t torture_round(Cluster& cluster, Ledger& ledger, const std::string& database, const Load& load, double seconds,
                      std::mt19937_64& random) {
  std::vector<Running> writers;
  std::vector<Running> readers;
  for (size_t i = 0; i < load.writers; i++) {
    auto process = ledger.spawn_writer(seconds, load.profile, random());
    writers.push_back({"a writer", ledger.error_path(), std::move(process)});
  }
  auto add_reader = [&](const std::string& verb, size_t node, size_t number) {
    std::string what = "reader" + std::to_string(number) + " on node " + std::to_string(node);
    std::string errors = cluster.scratch(what + " of " + database + ".errors");
    auto process = cluster.spawn_app(
        {verb, cluster.node(node).path(database), std::to_string(random()), std::to_string(seconds)}, errors);
    readers.push_back({what, errors, std::move(process)});
  };
  for (size_t i = 0; i < load.readers; i++) add_reader(load.reader_verb, 0, i);
  for (size_t i = 1; i <= kReplicas; i++) {
    add_reader("read", i, 0);
    add_reader("read", i, 1);
  }
  auto [transactions, switches] = join_all(writers, seconds);
  int64_t snapshots = join_all(readers, seconds)[0];
  MESSAGE(database, ": ", transactions, " transactions, ", switches, " switches, ", snapshots, " snapshots");
  CHECK(transactions > 0);
  CHECK(snapshots > 0);
  return switches;
}

void check_log(Cluster& cluster, size_t node, const std::string& database) {
  CounterWalk walk = log_counters(cluster.node(node).data(), database, cluster.scratch("log"));
  for (const std::string& fault : walk.faults) FAIL_CHECK(database, " on node ", node, ": ", fault);
  for (const std::string& skip : walk.skipped) FAIL_CHECK(database, " on node ", node, ": ", skip);
  int64_t counter = std::stoll(cluster.run_app({"check", cluster.node(node).path(database)}));
  CHECK_MESSAGE(walk.last == counter, database, " on node ", node);
}

// Rounds on a database of each page size in turn; then all of them must be equal on all nodes, hold
// what was reported, and have each value of the counter in their logs. Answers the switches.
int64_t torture(const Load& load, double seconds) {
  std::mt19937_64 random(test_seed());
  Cluster cluster(cluster_options(1 + kReplicas));
  cluster.start_primary();
  for (size_t i = 1; i <= kReplicas; i++) cluster.start_replica(i);
  constexpr size_t kDatabases = std::size(kPageSizes);
  std::vector<Ledger> ledgers;
  for (size_t i = 0; i < kDatabases; i++) {
    cluster.run_app({"init", cluster.node(0).path(database_name(i)), std::to_string(kPageSizes[i]), load.mode});
    ledgers.emplace_back(cluster, database_name(i));
  }
  cluster.wait_for_equal(kConvergence);

  size_t rounds = std::max<size_t>(kDatabases, static_cast<size_t>(seconds / kRoundSeconds));
  int64_t switches = 0;
  for (size_t round = 0; round < rounds; round++) {
    size_t i = round % kDatabases;
    switches +=
        torture_round(cluster, ledgers[i], database_name(i), load, seconds / static_cast<double>(rounds), random);
    cluster.wait_for_equal(kConvergence);
  }
  for (size_t i = 0; i < kDatabases; i++) {
    cluster.check_same(database_name(i), kConvergence);
    for (size_t node = 0; node <= kReplicas; node++) {
      ledgers[i].check(node);
      check_log(cluster, node, database_name(i));
    }
  }
  CHECK_FALSE(cluster.log_contains(0, "correcting it"));
  CHECK_FALSE(cluster.log_contains(0, "pages that differed"));
  return switches;
}

double torture_seconds(int64_t otherwise) {
  return static_cast<double>(environment_number("LITEFS_TORTURE_SECONDS", otherwise));
}

}  // namespace

TEST_CASE("every replica read is a committed state, in commit order, and the log skips none") {
  torture({}, torture_seconds(30));
}

TEST_CASE("replica reads of databases in rollback modes are committed states, and the log skips none") {
  torture({.profile = "rollback", .mode = "delete"}, torture_seconds(10));
}

TEST_CASE(
    "the journal mode is switched again and again: replicas show committed states, and the log "
    "skips none") {
  // Fewer, that somebody is alone at times.
  Load load{.profile = "modes", .writers = 3, .readers = 2, .reader_verb = "visit"};
  CHECK(torture(load, torture_seconds(10)) > 0);
}

TEST_CASE(
    "connections in EXCLUSIVE come and go: replicas show committed states, and the log skips "
    "none") {
  torture({.profile = "exclusive", .writers = 3, .readers = 0}, torture_seconds(30));
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
  CHECK(join_all(writers, 5)[0] > 0);
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
  // The capture may notice it by itself, and stops the database.
  auto is_stopped = [&] { return cluster.status(0).find("db")->state != "ready"; };
  bool noticed = false;
  constexpr int kRoundsMax = 10;
  for (int round = 0; round < kRoundsMax && !noticed; round++) {
    std::vector<std::unique_ptr<Process>> writers;
    for (int i = 0; i < 4; i++) writers.push_back(ledger.spawn_writer(2, "checkpoints", random()));
    for (auto& writer : writers) writer->join(Millis(60000));
    CounterWalk walk = log_counters(cluster.node(0).data(), "db", cluster.scratch("log"));
    CHECK(walk.records > 0);
    noticed = !walk.faults.empty() || !walk.skipped.empty() || is_stopped();
    if (!walk.skipped.empty()) MESSAGE(walk.skipped.front());
    if (noticed) break;
    try {
      noticed = walk.last != std::stoll(cluster.run_app({"check", path})) || is_stopped();
    } catch (const std::runtime_error&) {
      noticed = is_stopped();
      if (!noticed) throw;
    }
  }
  CHECK(noticed);
}
