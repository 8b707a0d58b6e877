// Two applications with a node each, which replicate to each other over real sockets.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <litefs/litefs.h>
#include <sqlite3.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "test.h"
#include "vfs/linked_node.h"

namespace litefs::test {
namespace {

TEST_CASE("what one application commits the other reads, in every journal mode") {
  for (const std::string mode : {"WAL", "DELETE", "TRUNCATE", "PERSIST"}) {
    CAPTURE(mode);
    TempDir dir;
    LinkedPair pair(dir.path());
    pair.primary().sql("w", "db", "PRAGMA journal_mode=" + mode + "; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    pair.replica().wait("db", pair.primary().position("db"));
    for (int i = 1; i <= 50; ++i) {
      pair.primary().sql("w", "db", "INSERT INTO t(v) VALUES(randomblob(1000))");
      pair.replica().wait("db", pair.primary().position("db"));
      REQUIRE(pair.replica().value("r", "db", "SELECT count(*) FROM t") == std::to_string(i));
    }
    CHECK(pair.replica().command("role").at(0) == "2 primary");
    pair.check_same("db");
    pair.stop();
  }
}

TEST_CASE("a writer on a replica is told at once that it is read-only, and where the primary is") {
  TempDir dir;
  LinkedPair pair(dir.path());
  pair.primary().sql("w", "db", "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  pair.replica().wait("db", pair.primary().position("db"));
  for (const std::string write :
       {"INSERT INTO t(v) VALUES(1)", "BEGIN IMMEDIATE", "CREATE TABLE u(a, b)", "VACUUM", "PRAGMA user_version=7"}) {
    CAPTURE(write);
    pair.replica().log();
    CHECK(pair.replica().try_command("sql r db " + write).error == SQLITE_READONLY);
    CHECK(pair.replica().log().find("the primary is primary (http://" + pair.primary().address()) != std::string::npos);
  }
  CHECK(pair.replica().try_command("sql n new.db CREATE TABLE t(id INTEGER PRIMARY KEY, v)").error == SQLITE_CANTOPEN);
  CHECK(pair.replica().log().find("this node is a replica; the primary is primary") != std::string::npos);
  // A checkpoint is no write of the application's.
  pair.replica().sql("r", "db", "PRAGMA wal_checkpoint; SELECT * FROM t");
  pair.primary().sql("w", "db", "INSERT INTO t(v) VALUES(1)");
  pair.check_same("db");
  pair.stop();
}

TEST_CASE("a commit that a restored backup has lost is not waited for as if it were there") {
  TempDir dir;
  LinkedPair pair(dir.path());
  pair.primary().sql("w", "db", "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  const std::string kept = pair.primary().position("db");
  pair.replica().wait("db", kept);
  pair.stop();
  const std::string data = dir.file("primary/data"), backup = dir.file("backup");
  std::filesystem::copy(data, backup, std::filesystem::copy_options::recursive);

  pair.restart_primary();
  pair.primary().sql("w", "db", "INSERT INTO t(v) VALUES('lost')");
  const std::string lost = pair.primary().position("db");
  pair.primary().stop();
  std::filesystem::remove_all(data);
  std::filesystem::rename(backup, data);

  pair.restart_primary();
  pair.restart_replica();
  const std::string any_epoch = "0" + lost.substr(lost.find(' '));
  for (int i = 0; i < 3; ++i) {
    pair.primary().sql("w", "db", "INSERT INTO t(v) VALUES('other')");
    pair.check_same("db");
    for (LinkedNode* node : {&pair.primary(), &pair.replica()}) {
      for (const std::string& position : {lost, any_epoch}) {
        CHECK(node->try_command("wait db " + position + " 100").error == LITEFS_DIVERGED);
      }
      node->wait("db", kept);
    }
  }
  pair.stop();
}

TEST_CASE("a replica that comes while the primary commits gets all of it, without a further commit") {
  TempDir dir;
  LinkedPair pair(dir.path());
  pair.primary().command("start init db 4096 wal");
  pair.primary().command("join");
  for (int round = 0; round < 20; ++round) {
    CAPTURE(round);
    pair.replica().kill9();
    pair.primary().command("start write db 1 " + std::to_string(round) + " 0.1 mixed " + dir.file("committed"));
    pair.restart_replica();
    pair.primary().command("join");
    pair.check_same("db");
  }
  pair.stop();
}

TEST_CASE("writers and readers in threads of both applications see committed states only") {
  for (const std::string mode : {"wal", "delete", "truncate", "persist"}) {
    for (const std::string profile : {"mixed", "exclusive", "rollback", "modes"}) {
      const bool fits = mode == "wal" ? profile != "rollback" && profile != "modes" : profile == "rollback";
      if (!fits && !(mode == "delete" && profile == "modes")) continue;
      CAPTURE(mode);
      CAPTURE(profile);
      TempDir dir;
      LinkedPair pair(dir.path());
      pair.primary().command("start init db 4096 " + mode);
      pair.primary().command("join");
      pair.replica().wait("db", pair.primary().position("db"));
      const std::string file = dir.file("committed");
      for (int i = 0; i < 3; ++i) {
        pair.primary().command("start write db " + std::to_string(i) + " " + std::to_string(i + 7) + " " +
                               workload_seconds() + " " + profile + " " + file + std::to_string(i));
      }
      pair.primary().command("start visit db 3 " + workload_seconds());
      for (const char* verb : {"read", "visit"})
        pair.replica().command(std::string("start ") + verb + " db 5 " + workload_seconds());
      for (LinkedNode* node : {&pair.primary(), &pair.replica()}) {
        App::Answer joined = node->try_command("join");
        INFO(joined.message);
        CHECK(joined.error == 0);
        for (const std::string& report : joined.rows) MESSAGE(report);
      }
      pair.check_same("db");
      pair.stop();
    }
  }
}

TEST_CASE("a connection that was forked is refused, and the parent's goes on") {
  TempDir dir;
  LinkedPair pair(dir.path());
  pair.primary().sql("w", "db", "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  pair.primary().sql("w", "db", "INSERT INTO t(v) VALUES(1)");
  const std::vector<std::string> rows = pair.primary().command("fork w");
  REQUIRE(rows.size() == 1);
  // SQLITE_IOERR, SQLITE_IOERR, SQLITE_CANTOPEN, LITEFS_FORKED
  CHECK(rows[0] == "10 10 14 15");
  pair.primary().sql("w", "db", "INSERT INTO t(v) VALUES(2)");
  CHECK(pair.primary().value("x", "db", "SELECT count(*) FROM t") == "2");
  pair.check_same("db");
  pair.stop();
}

TEST_CASE("a killed application's last commits are there after its restart") {
  for (const std::string mode : {"WAL", "DELETE"}) {
    CAPTURE(mode);
    TempDir dir;
    LinkedPair pair(dir.path());
    pair.primary().sql("w", "db", "PRAGMA journal_mode=" + mode + "; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    for (int round = 0; round < 4; ++round) {
      for (int i = 0; i < 25; ++i) pair.primary().sql("w", "db", "INSERT INTO t(v) VALUES(randomblob(3000))");
      if (round % 2 == 0) {
        pair.primary().kill9();
        pair.restart_primary();
      } else {
        pair.replica().wait("db", pair.primary().position("db"));
        pair.replica().value("r", "db", "SELECT count(*) FROM t");
        pair.replica().kill9();
        pair.restart_replica();
      }
      CHECK(pair.primary().value("w", "db", "SELECT count(*) FROM t") == std::to_string(25 * (round + 1)));
      pair.check_same("db");
    }
    pair.stop();
  }
}

TEST_CASE("an application that is killed while it writes loses nothing that it was told was committed") {
  const char* given = getenv("LITEFS_TEST_SEED");
  const uint64_t seed = given ? std::stoull(given) : std::random_device()();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  for (const std::string mode : {"wal", "delete"}) {
    for (const std::string profile : {"mixed", "exclusive", "rollback", "modes"}) {
      if ((mode == "wal") != (profile == "mixed" || profile == "exclusive")) continue;
      CAPTURE(mode);
      CAPTURE(profile);
      TempDir dir;
      LinkedPair pair(dir.path());
      pair.primary().command("start init db 1024 " + mode);
      pair.primary().command("join");
      pair.replica().wait("db", pair.primary().position("db"));
      std::vector<std::string> files;
      for (int round = 0; round < 6; ++round) {
        CAPTURE(round);
        for (int i = 0; i < 2; ++i) {
          const std::string writer = std::to_string(files.size());
          files.push_back(dir.file("committed" + writer));
          pair.primary().command("start write db " + writer + " " + std::to_string(random() % 9999) + " 0 " + profile +
                                 " " + files.back());
        }
        pair.replica().command("start visit db 1 0");
        wait_for_commit(files);
        usleep(static_cast<useconds_t>(50'000 + random() % 500'000));
        const bool both = random() % 2 == 0;
        pair.primary().kill9();
        if (both) pair.replica().kill9();
        pair.restart_primary();
        if (both) pair.restart_replica();
        CHECK(std::stoll(pair.primary().value("c", "db", "SELECT ifnull(max(n), 0) FROM entry")) >=
              last_committed(files));
        pair.primary().command("close c");
        pair.check_same("db");
      }
      pair.stop();
    }
  }
}

}  // namespace
}  // namespace litefs::test
