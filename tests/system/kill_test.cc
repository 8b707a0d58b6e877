// SIGKILL at random moments under load: nothing reported committed is lost, nobody hangs, the nodes
// converge.
//
// LITEFS_KILLS (default 3) is how often each kind of process is killed; the full bar is 50.
#include <signal.h>
#include <unistd.h>

#include <optional>
#include <random>

#include "system/system_test.h"

using namespace litefs::test;

namespace {

constexpr size_t kWriters = 4;
constexpr Millis kConvergence{60000};
constexpr Millis kAppEnd{30000};

class KillTest {
 public:
  explicit KillTest(const std::string& mode = "wal")
      : cluster(cluster_options(2)), ledger(cluster, "db"), random_(test_seed()) {
    cluster.start_primary();
    cluster.start_replica(1);
    cluster.run_app({"init", cluster.node(0).path("db"), "4096", mode});
    cluster.wait_for_equal(kConvergence);
  }

  // Writers on the primary, readers on both nodes; none ends by itself. Of writers in EXCLUSIVE one
  // works while the others wait.
  void start_load(const std::string& profile = "") {
    for (size_t i = 0; i < kWriters; i++) {
      std::string one = !profile.empty() ? profile : random_() % 2 ? "mixed" : "checkpoints";
      apps_.push_back(ledger.spawn_writer(0, one, random_()));
      errors_.push_back(ledger.error_path());
    }
    start_reader("visit", 0);
    start_reader("read", 1);
  }

  void random_moment(int64_t milliseconds_max) {
    usleep(static_cast<useconds_t>(random_() % static_cast<uint64_t>(milliseconds_max * 1000)));
  }

  void kill_application() {
    Process& victim = *apps_[random_() % kWriters];
    victim.signal(SIGKILL);
    victim.join(kAppEnd);
  }

  void kill_and_restart(size_t node) {
    random_moment(800);
    cluster.kill9(node);
    random_moment(300);
    cluster.start(node);
    random_moment(100);
  }

  // Applications may have ended with an error, if `errors` says so; none may have seen a wrong
  // snapshot, and none may hang.
  void stop_load(bool errors) {
    for (auto& app : apps_) app->signal(SIGTERM);
    for (size_t i = 0; i < apps_.size(); i++) {
      ExitStatus status = apps_[i]->join(kAppEnd);
      // A page of a file that the dead mount had cached and an application has mapped: no read that
      // could answer an error, as SQLite's manual says of memory-mapped I/O.
      bool expected =
          status.ok() || status.signal == SIGKILL || (errors && (status.code == 3 || status.signal == SIGBUS));
      CHECK_MESSAGE(expected, status.text(), ": ", read_text_file(errors_[i]));
    }
    apps_.clear();
    errors_.clear();
  }

  // What a connection from before a kill reads afterwards: an error, or nothing older than a new
  // one sees.
  void check_left_over(App& app, size_t node) {
    App fresh = cluster.open(node, "db");
    App::Answer newest = fresh.try_sql("SELECT hex(mark) FROM counter");
    App::Answer left_over = app.try_sql("SELECT hex(mark) FROM counter");
    if (newest.error == 0 && left_over.error == 0) CHECK(left_over.rows[0] >= newest.rows[0]);
    fresh.close();
    app.close();
  }

  // A number that is committed after every kill shows whether the database still takes writes.
  void check_round() {
    cluster.wait_for_state(0, "db", "ready", kConvergence);
    auto writer = ledger.spawn_writer(0.2, "small", random_());
    ExitStatus status = writer->join(kAppEnd);
    CHECK_MESSAGE(status.ok(), status.text(), ": ", read_text_file(ledger.error_path()));
    cluster.check_same("db", kConvergence);
    ledger.check(0);
    ledger.check(1);
  }

  // What applications commit while no daemon serves them may become one record with what follows,
  // by comparison: only then may values be missing.
  void check_logs(bool primary_was_away) {
    for (size_t node : {0, 1}) {
      CounterWalk walk = log_counters(cluster.node(node).data(), "db", cluster.scratch("log"));
      for (const std::string& fault : walk.faults) FAIL_CHECK("node ", node, ": ", fault);
      for (const std::string& skip : walk.skipped) {
        if (primary_was_away)
          MESSAGE("node ", node, ": ", skip);
        else
          FAIL_CHECK("node ", node, ": ", skip);
      }
    }
  }

  Cluster cluster;
  Ledger ledger;

 private:
  void start_reader(const std::string& verb, size_t node) {
    errors_.push_back(cluster.scratch(verb + ".errors"));
    apps_.push_back(
        cluster.spawn_app({verb, cluster.node(node).path("db"), std::to_string(random_()), "0"}, errors_.back()));
  }

  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Process>> apps_;
  std::vector<std::string> errors_;
};

int64_t kills() { return environment_number("LITEFS_KILLS", 3); }

// Each round on the same database: some of what a load does is killed, then the load ends and
// everything must be there.
void kill_applications(KillTest& test, const std::string& profile, int victims) {
  for (int64_t i = 0; i < kills(); i++) {
    test.start_load(profile);
    for (int victim = 0; victim < victims; victim++) {
      test.random_moment(800 / victims);
      test.kill_application();
    }
    test.random_moment(200);
    test.stop_load(false);
    test.check_round();
  }
  test.check_logs(false);
  CHECK_FALSE(test.cluster.log_contains(0, "correcting it"));
}

// A connection from before the kill is asked afterwards; not in every round, as nobody leaves the
// WAL while it is open.
void kill_node(KillTest& test, size_t node, const std::string& profile) {
  for (int64_t i = 0; i < kills(); i++) {
    test.start_load(profile);
    std::optional<App> left_over;
    if (i % 2 == 0 || node != 0) {
      left_over = test.cluster.open(node, "db");
      left_over->try_sql("SELECT * FROM counter");
    }
    test.kill_and_restart(node);
    if (left_over) test.check_left_over(*left_over, node);
    test.stop_load(true);
    test.check_round();
  }
  test.check_logs(node == 0);
}

}  // namespace

TEST_CASE("an application is killed: what it committed stays, the others go on") {
  KillTest test;
  kill_applications(test, "", 1);
}

TEST_CASE("an application in EXCLUSIVE is killed: what it committed stays, the others go on") {
  KillTest test;
  kill_applications(test, "exclusive", 3);
}

TEST_CASE("an application in a rollback mode is killed: what it committed stays, the others go on") {
  KillTest test("delete");
  kill_applications(test, "rollback", 3);
}

TEST_CASE("an application that switches modes is killed: what it committed stays, the others go on") {
  KillTest test;
  kill_applications(test, "modes", 3);
}

TEST_CASE("a replica is killed: it catches up, and connections from before read nothing stale") {
  KillTest test;
  kill_node(test, 1, "");
}

TEST_CASE("a replica of a database that switches modes is killed: it catches up") {
  KillTest test;
  kill_node(test, 1, "modes");
}

TEST_CASE("the primary is killed: nothing reported committed is missing") {
  KillTest test;
  kill_node(test, 0, "");
}

TEST_CASE(
    "the primary is killed under applications in EXCLUSIVE: nothing reported committed is "
    "missing") {
  KillTest test;
  kill_node(test, 0, "exclusive");
}

TEST_CASE(
    "the primary is killed under applications in rollback modes: nothing reported committed is "
    "missing") {
  KillTest test("delete");
  kill_node(test, 0, "rollback");
}

TEST_CASE(
    "the primary is killed under applications that switch modes: nothing reported committed is "
    "missing") {
  KillTest test;
  kill_node(test, 0, "modes");
}
