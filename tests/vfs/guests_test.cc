// Several processes on one data directory: one runs the node, the others are its guests (lib/node/member.h).
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <sqlite3.h>
#include <unistd.h>

#include <random>

#include "test.h"
#include "vfs/linked_node.h"

namespace litefs::test {
namespace {

constexpr const char* kTable = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

uint64_t seed_of_now() {
  const char* given = getenv("LITEFS_TEST_SEED");
  return given ? std::stoull(given) : std::random_device()();
}

int environment_number(const char* name, int otherwise) {
  const char* given = getenv(name);
  return given ? std::stoi(given) : otherwise;
}

TEST_CASE("what a guest commits is captured as what the host commits, in every journal mode") {
  for (const std::string mode : {"WAL", "DELETE", "TRUNCATE", "PERSIST"}) {
    for (const std::string locking : {"NORMAL", "EXCLUSIVE"}) {
      CAPTURE(mode);
      CAPTURE(locking);
      TempDir dir;
      LinkedPair pair(dir.path());
      std::unique_ptr<LinkedNode> guest = pair.guest("primary", "2");
      CHECK(guest->address() == pair.primary().address());
      guest->sql("w", "db", "PRAGMA journal_mode=" + mode + "; " + kTable);
      CHECK(guest->command("role") == pair.primary().command("role"));
      guest->sql("w", "db", "PRAGMA locking_mode=" + locking + "; INSERT INTO t(v) VALUES(1)");
      for (int i = 2; i <= 30; ++i) {
        guest->sql("w", "db", "INSERT INTO t(v) VALUES(randomblob(1000))");
        pair.replica().wait("db", guest->position("db"));
        REQUIRE(pair.replica().value("r", "db", "SELECT count(*) FROM t") == std::to_string(i));
        if (locking == "EXCLUSIVE") continue;
        pair.primary().sql("h", "db", "UPDATE t SET v = v || 'x' WHERE id = " + std::to_string(i));
        REQUIRE(pair.primary().position("db") == guest->position("db"));
      }
      guest->sql("w", "db", "PRAGMA locking_mode=NORMAL; SELECT * FROM t; VACUUM");
      guest->command("close w");
      pair.check_same("db");
      guest->stop();
      pair.stop();
    }
  }
}

TEST_CASE("a commit of a guest reaches the replica though nobody asks for it") {
  TempDir dir;
  LinkedPair pair(dir.path());
  std::unique_ptr<LinkedNode> guest = pair.guest("primary", "2");
  guest->sql("w", "db", std::string("PRAGMA journal_mode=WAL; ") + kTable);
  const std::string start = guest->position("db");
  guest->sql("w", "db", "INSERT INTO t(v) VALUES(1)");
  const std::string epoch = start.substr(0, start.find(' '));
  const uint64_t txid = std::stoull(start.substr(epoch.size())) + 1;
  pair.replica().wait("db", epoch + " " + std::to_string(txid) + " 0");
  CHECK(pair.replica().value("r", "db", "SELECT count(*) FROM t") == "1");
  guest->stop();
  pair.stop();
}

TEST_CASE("guests of a replica read, are refused as writers, and follow on when their host ends") {
  TempDir dir;
  LinkedPair pair(dir.path());
  pair.primary().sql("w", "db", std::string("PRAGMA journal_mode=WAL; ") + kTable);
  pair.replica().wait("db", pair.primary().position("db"));
  std::unique_ptr<LinkedNode> guest = pair.guest("replica", "2");
  guest->sql("r", "db", "BEGIN; SELECT count(*) FROM t");
  CHECK(guest->try_command("sql x db INSERT INTO t(v) VALUES(1)").error == SQLITE_READONLY);
  CHECK(guest->log().find("the primary is primary") != std::string::npos);
  for (int round = 0; round < 3; ++round) {
    CAPTURE(round);
    for (int i = 0; i < 20; ++i) pair.primary().sql("w", "db", "INSERT INTO t(v) VALUES(randomblob(3000))");
    const std::string wanted = pair.primary().position("db");
    guest->wait("db", wanted);
    CHECK(guest->value("x", "db", "SELECT count(*) FROM t") == std::to_string(20 * (round + 1)));
    CHECK(guest->value("r", "db", "SELECT count(*) FROM t") == "0");
    if (round == 0) pair.replica().kill9();
    if (round == 1) pair.restart_replica();
  }
  guest->sql("r", "db", "COMMIT");
  pair.check_same("db");
  guest->stop();
  pair.stop();
}

// SQLite holds the database's EXCLUSIVE lock then, for which the node that starts in the same process waits.
TEST_CASE("the last connection to a replica's database closes while its process takes the node over") {
  for (const bool killed : {true, false}) {
    CAPTURE(killed);
    TempDir dir;
    LinkedPair pair(dir.path());
    pair.primary().sql("w", "db", std::string("PRAGMA journal_mode=WAL; ") + kTable);
    pair.replica().wait("db", pair.primary().position("db"));
    for (int round = 0; round < 4; ++round) {
      CAPTURE(round);
      std::unique_ptr<LinkedNode> guest = pair.guest("replica", "2");
      for (LinkedNode* node : {&pair.replica(), guest.get()}) node->sql("r", "db", "SELECT count(*) FROM t");
      killed ? pair.replica().kill9() : pair.replica().stop();
      guest->command("close r");
      CHECK(guest->log().find("cannot be read") == std::string::npos);
      pair.primary().sql("w", "db", "INSERT INTO t(v) VALUES(1)");
      guest->wait("db", pair.primary().position("db"));
      CHECK(guest->value("r", "db", "SELECT count(*) FROM t") == std::to_string(round + 1));
      guest->stop();
      pair.restart_replica();
    }
    pair.stop();
  }
}

TEST_CASE("a guest takes the node over when its host ends, with its connections as they are") {
  for (const std::string mode : {"WAL", "DELETE", "PERSIST"}) {
    for (const bool killed : {true, false}) {
      CAPTURE(mode);
      CAPTURE(killed);
      TempDir dir;
      LinkedPair pair(dir.path());
      std::unique_ptr<LinkedNode> guest = pair.guest("primary", "2");
      pair.primary().sql("w", "db", "PRAGMA journal_mode=" + mode + "; " + kTable);
      for (int round = 0; round < 3; ++round) {
        guest->sql("w", "db", "PRAGMA cache_size=5; BEGIN IMMEDIATE; INSERT INTO t(v) VALUES(1)");
        for (int i = 0; i < 30; ++i) guest->sql("w", "db", "INSERT INTO t(v) VALUES(randomblob(2000))");
        if (killed) {
          pair.primary().kill9();
        } else {
          pair.primary().stop();
        }
        for (int i = 0; i < 30; ++i) guest->sql("w", "db", "INSERT INTO t(v) VALUES(randomblob(2000))");
        guest->sql("w", "db", "COMMIT");
        pair.replica().wait("db", guest->position("db"));
        CHECK(pair.replica().value("r", "db", "SELECT count(*) FROM t") == std::to_string(61 * (round + 1)));
        // What was the host comes back as a guest, and so on.
        pair.restart_primary();
        CHECK(pair.primary().value("c", "db", "SELECT count(*) FROM t") == std::to_string(61 * (round + 1)));
        pair.check_same("db");
        pair.primary().command("close c");
        guest->command("close w");
        guest->stop();
        guest = pair.guest("primary", "2");
      }
      guest->stop();
      pair.stop();
    }
  }
}

// Several processes, which write and read until they are told to end.
class Workers {
 public:
  Workers(LinkedPair& pair, TempDir& dir, std::string profile, uint64_t seed)
      : pair_(pair), dir_(dir), profile_(std::move(profile)), random_(seed) {
    for (int i = 0; i < kCount; ++i) nodes_.push_back(pair.guest("primary", std::to_string(i)));
  }

  void start() {
    for (int i = 0; i < kCount; ++i) start_one(i);
  }
  void end() {
    for (auto& node : nodes_) {
      App::Answer ended = node->try_command("end");
      INFO(ended.message);
      CHECK(ended.error == 0);
      for (const std::string& report : ended.rows) MESSAGE(report);
    }
  }
  // One or two, the host among them at times, come back and go on.
  void kill_some() {
    const bool two = random_() % 3 == 0;
    const int first = static_cast<int>(random_() % kCount), second = static_cast<int>(random_() % kCount);
    nodes_[static_cast<size_t>(first)]->kill9();
    if (two && second != first) nodes_[static_cast<size_t>(second)]->kill9();
    restart(first);
    if (two && second != first) restart(second);
  }
  void kill_all() {
    for (auto& node : nodes_) node->kill9();
    nodes_.clear();
  }
  void stop() {
    for (auto& node : nodes_) node->stop();
  }
  int64_t told() const { return last_committed(files_); }
  void wait_for_commit() const { test::wait_for_commit(files_); }
  uint64_t random() { return random_(); }

 private:
  static constexpr int kCount = 4;

  void restart(int i) {
    nodes_[static_cast<size_t>(i)] = pair_.guest("primary", std::to_string(i));
    start_one(i);
  }
  void start_one(int i) {
    LinkedNode& node = *nodes_[static_cast<size_t>(i)];
    files_.push_back(dir_.file("committed" + std::to_string(files_.size())));
    node.command("start write db " + std::to_string(files_.size()) + " " + std::to_string(random_() % 9999) + " " +
                 "0 " + profile_ + " " + files_.back());
    if (i % 2 == 0) node.command("start visit db 3 0");
    if (i % 2 == 1 && profile_ != "exclusive") node.command("start read db 4 0");
  }

  LinkedPair& pair_;
  TempDir& dir_;
  const std::string profile_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<LinkedNode>> nodes_;
  std::vector<std::string> files_;
};

bool fits(const std::string& mode, const std::string& profile) {
  return (mode == "wal") == (profile == "mixed" || profile == "exclusive");
}

TEST_CASE("writers and readers in five processes on one data directory see committed states only") {
  const uint64_t seed = seed_of_now();
  CAPTURE(seed);
  for (const std::string mode : {"wal", "delete"}) {
    for (const std::string profile : {"mixed", "exclusive", "rollback", "modes"}) {
      if (!fits(mode, profile)) continue;
      CAPTURE(mode);
      CAPTURE(profile);
      TempDir dir;
      LinkedPair pair(dir.path());
      pair.primary().command("start init db 4096 " + mode);
      pair.primary().command("join");
      pair.replica().wait("db", pair.primary().position("db"));
      Workers workers(pair, dir, profile, seed);
      workers.start();
      pair.replica().command("start visit db 5 0");
      usleep(static_cast<useconds_t>(std::stod(workload_seconds()) * 1e6));
      workers.wait_for_commit();
      workers.end();
      App::Answer ended = pair.replica().try_command("end");
      INFO(ended.message);
      CHECK(ended.error == 0);
      pair.check_same("db");
      workers.stop();
      pair.stop();
    }
  }
}

TEST_CASE("processes on one data directory that are killed while they write lose nothing that was committed") {
  const uint64_t seed = seed_of_now();
  const int kills = environment_number("LITEFS_KILLS", 6);
  CAPTURE(seed);
  for (const std::string mode : {"wal", "delete"}) {
    for (const std::string profile : {"mixed", "exclusive", "rollback", "modes"}) {
      if (!fits(mode, profile)) continue;
      CAPTURE(mode);
      CAPTURE(profile);
      TempDir dir;
      LinkedPair pair(dir.path());
      pair.primary().command("start init db 1024 " + mode);
      pair.primary().command("join");
      pair.replica().wait("db", pair.primary().position("db"));
      Workers workers(pair, dir, profile, seed);
      // From here on only the workers have the directory, and one of them runs the node.
      pair.primary().kill9();
      workers.start();
      pair.replica().command("start visit db 1 0");
      for (int i = 0; i < kills; ++i) {
        CAPTURE(i);
        usleep(static_cast<useconds_t>(50'000 + workers.random() % 400'000));
        workers.kill_some();
      }
      workers.wait_for_commit();
      workers.kill_all();
      pair.restart_primary();
      CHECK(std::stoll(pair.primary().value("c", "db", "SELECT ifnull(max(n), 0) FROM entry")) >= workers.told());
      pair.primary().command("close c");
      pair.check_same("db");
      pair.stop();
    }
  }
}

}  // namespace
}  // namespace litefs::test
