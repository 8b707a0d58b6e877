// Which index is in use, or none, when a WAL is taken over; transactions over several databases; and hosts that follow
// each other through random work.
//
// LITEFS_TRANSACTIONS: how many random steps in the last test (default 150).
#include <iostream>
#include <random>

#include "db/live_story.h"

using namespace litefs;
using namespace litefs::test;

namespace {

std::unique_ptr<Guest> wal_writer(LiveStory& story) {
  auto guest = story.guest();
  CHECK(guest->run("PRAGMA journal_mode=WAL") == "wal");
  CHECK(guest->run("CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES(1)") == "");
  return guest;
}

void tear_index(LiveStory& story) {
  const Bytes zeros(kWalIndexHeaderBytes);
  auto files = posix_file_system();
  REQUIRE(files->open(story.node->file("app.db-shm"), OpenMode::kReadWrite).value()->write_at(0, zeros).ok());
}

}  // namespace

TEST_CASE("an index torn by its dead writer does not hold up a primary's start, and loses nothing") {
  LiveStory story;
  auto a = wal_writer(story);
  REQUIRE(story.db->drain(true).ok());
  const uint64_t before = story.txid();
  auto b = story.guest();
  CHECK(b->run("SELECT count(*) FROM t") == "1");
  story.host_dies();
  CHECK(a->run("INSERT INTO t VALUES(2)") == "");
  CHECK(b->run("SELECT count(*) FROM t") == "2");
  story.node = std::make_unique<TestNode>(story.dir.path());
  tear_index(story);
  story.db = story.node->take_over("app.db", ++story.epoch);
  CHECK(story.db->state() == DatabaseState::kReady);
  CHECK(b->run("SELECT count(*) FROM t") == "2");  // recovers it
  story.check(*b);
  CHECK(story.txid() == before + 1);
  CHECK(a->run("INSERT INTO t VALUES(3); PRAGMA wal_checkpoint(TRUNCATE)") == "0|0|0");
  story.check(*b);
}

TEST_CASE("what killed processes have committed is captured though nobody uses the index they left") {
  for (const bool index_lost : {false, true}) {
    CAPTURE(index_lost);
    LiveStory story;
    auto a = wal_writer(story);
    REQUIRE(story.db->drain(true).ok());
    const uint64_t before = story.txid();
    story.host_dies();
    for (int i = 0; i < 3; ++i) CHECK(a->run("INSERT INTO t VALUES(2)") == "");
    a->kill_now();
    story.node = std::make_unique<TestNode>(story.dir.path());
    if (index_lost) std::filesystem::remove(story.node->file("app.db-shm"));
    story.db = story.node->take_over("app.db", ++story.epoch);
    CHECK(story.txid() == before + 3);
    auto b = story.guest();
    CHECK(b->run("SELECT count(*) FROM t") == "4");
    CHECK(b->run("INSERT INTO t VALUES(5)") == "");
    story.check(*b);
    CHECK(story.txid() == before + 4);
  }
}

TEST_CASE("a WAL without an index, under locking_mode=EXCLUSIVE, is taken over in the middle of a transaction") {
  LiveStory story;
  wal_writer(story)->close();
  auto a = story.guest();
  CHECK(a->run("PRAGMA locking_mode=EXCLUSIVE") == "exclusive");
  CHECK(a->run("INSERT INTO t VALUES(2)") == "");
  REQUIRE(story.db->drain(true).ok());
  const uint64_t before = story.txid();
  for (int i = 1; i <= 4; ++i) {
    story.host_dies();
    CHECK(a->run("INSERT INTO t VALUES(3); BEGIN; INSERT INTO t VALUES(4)") == "");
    story.take_over();
    CHECK_FALSE(story.db->index_may_be_in_use());
    CHECK(story.txid() == before + static_cast<uint64_t>(i) * 2 - 1);
    CHECK(a->run("COMMIT") == "");
    REQUIRE(story.db->drain(true).ok());
    CHECK(story.txid() == before + static_cast<uint64_t>(i) * 2);
  }
  CHECK(a->run("PRAGMA wal_checkpoint(TRUNCATE)") == "0|0|0");
  a->close();
  auto b = story.guest();
  CHECK(b->run("SELECT count(*) FROM t") == "10");
  story.check(*b);
}

TEST_CASE("the last user's closing, and the change to and from WAL, go on over a change of the host at each step") {
  for (const std::string sql : {".close", "PRAGMA journal_mode=DELETE", "PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM"}) {
    for (int step = 1;; ++step) {
      CAPTURE(sql);
      CAPTURE(step);
      LiveStory story;
      auto a = wal_writer(story);
      CHECK(a->run("INSERT INTO t WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 40) SELECT "
                   "randomblob(300) FROM c; DELETE FROM t WHERE rowid % 3 = 0") == "");
      if (!a->run_until(sql, step)) break;
      story.host_changes();
      a->go_on();
      a->kill_now();
      auto b = story.guest();
      CHECK(b->run("PRAGMA integrity_check") == "ok");
      story.check(*b);
      CHECK(b->run("PRAGMA journal_mode=WAL") == "wal");
      CHECK(b->run("INSERT INTO t VALUES(7)") == "");
      story.check(*b);
    }
  }
}

TEST_CASE("a database that is being made when its host dies is captured by the next one") {
  for (const bool killed : {false, true}) {
    for (int step = 1;; ++step) {
      CAPTURE(killed);
      CAPTURE(step);
      LiveStory story;
      auto a = story.guest();
      if (!a->run_until("CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(9000))", step)) break;
      story.host_dies();
      if (killed) a->kill_now();
      story.take_over();
      if (!killed) CHECK(a->go_on() == "");
      auto b = killed ? story.guest() : std::move(a);
      CHECK(b->run("CREATE TABLE u(x)") == "");
      story.check(*b);
    }
  }
}

TEST_CASE("a transaction over two databases goes on, or is taken back in both, over a change of the host") {
  for (const bool killed : {false, true}) {
    for (int step = 1;; ++step) {
      CAPTURE(killed);
      CAPTURE(step);
      LiveStory story;
      story.node->start_primary("other.db", 1)->set_writes_unseen(true);
      auto a = story.guest();
      CHECK(a->run("ATTACH '" + story.node->file("other.db") + "' AS o") == "");
      CHECK(a->run("CREATE TABLE t(x); CREATE TABLE o.t(x); INSERT INTO t VALUES(0); INSERT INTO o.t VALUES(0)") == "");
      if (!a->run_until("BEGIN; UPDATE t SET x = 1; UPDATE o.t SET x = 1; COMMIT", step)) break;
      const std::string at = a->waits_with();
      // The host is killed behind its work, before its answer.
      if (at.rfind("ask ", 0) == 0)
        REQUIRE(story.host()(at.substr(4, at.find(' ', 4) - 4), at.substr(at.find(' ', 4) + 1)).ok());
      story.host_dies();
      if (killed) a->kill_now();
      story.take_over();
      auto other = story.node->take_over("other.db", story.epoch);
      if (!killed) CHECK(a->go_on() == "");
      auto b = story.guest();
      CHECK(b->run("ATTACH '" + story.node->file("other.db") + "' AS o") == "");
      const std::string x = b->run("SELECT x FROM t");
      CHECK(b->run("SELECT x FROM o.t") == x);
      if (!killed) CHECK(x == "1");
      CHECK(b->run("INSERT INTO t VALUES(2); INSERT INTO o.t VALUES(2)") == "");
      story.check(*b);
      LogReplay replay;
      CHECK(replay.follow(*other) == "");
      CHECK(replay.difference(story.node->file("other.db")) == "");
    }
  }
}

TEST_CASE("random work of three processes over hosts that follow each other") {
  const char* given = std::getenv("LITEFS_TRANSACTIONS");
  const char* seeded = std::getenv("LITEFS_TEST_SEED");
  const int steps = given ? std::atoi(given) : 150;
  const uint64_t seed = seeded ? std::strtoull(seeded, nullptr, 0) : std::random_device{}();
  std::cout << "LITEFS_TEST_SEED=" << seed << std::endl;
  std::mt19937_64 random(seed);
  auto below = [&](int n) { return static_cast<int>(random() % static_cast<uint64_t>(n)); };
  LiveStory story;
  std::vector<std::unique_ptr<Guest>> guests;
  auto fresh = [&] {
    auto guest = story.guest();
    guest->run("PRAGMA cache_size=" + std::to_string(5 + below(40)));
    return guest;
  };
  for (int i = 0; i < 3; ++i) guests.push_back(fresh());
  guests[0]->run("PRAGMA page_size=1024; PRAGMA auto_vacuum=" + std::to_string(below(3)));
  REQUIRE(guests[0]->run("CREATE TABLE t(id INTEGER PRIMARY KEY, x)") == "");
  int changes = 0;
  for (int step = 0; step < steps; ++step) {
    CAPTURE(step);
    std::unique_ptr<Guest>& guest = guests[static_cast<size_t>(below(3))];
    static const char* const kModes[] = {"delete", "truncate", "persist", "wal", "wal"};
    std::string sql =
        "BEGIN IMMEDIATE; INSERT OR REPLACE INTO t WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c "
        "WHERE i < " +
        std::to_string(1 + below(60)) + ") SELECT abs(random()) % 200, randomblob(" + std::to_string(below(900)) +
        ") FROM c; DELETE FROM t WHERE id % 17 = " + std::to_string(below(17)) +
        (below(5) == 0 ? "; ROLLBACK" : "; COMMIT");
    const int kind = below(12);
    if (kind == 0) sql = std::string("PRAGMA journal_mode=") + kModes[below(5)];
    if (kind == 1) sql = "PRAGMA wal_checkpoint(TRUNCATE)";
    if (kind == 2) sql = "VACUUM";
    if (guest->run_until(sql, 1 + below(120))) {
      const int what = below(4);
      if (what == 0) {
        story.host_changes();
        ++changes;
      } else if (what == 1) {
        story.host_dies();
        guest->kill_now();
        story.take_over();
        ++changes;
      } else if (what == 2) {
        guest->kill_now();
        story.host_changes();
        ++changes;
      }
      if (guest->waiting()) {
        guest->go_on();
        guest->run("ROLLBACK");
      } else {
        guest = fresh();
      }
    } else if (sql.rfind("BEGIN", 0) == 0) {
      guest->run("ROLLBACK");
    }
    CHECK(guests[0]->run("SELECT count(*) >= 0 FROM t") == "1");  // plays back what a death left
    REQUIRE(story.difference(*guests[0]) == "");
  }
  CHECK(guests[0]->run("PRAGMA integrity_check") == "ok");
  guests.clear();
  story.host_dies();
  // And a fresh start finds nothing more than that.
  story.node = std::make_unique<TestNode>(story.dir.path());
  story.db = story.node->start_primary("app.db", ++story.epoch);
  CHECK(story.replay.follow(*story.db) == "");
  auto last = story.guest();
  story.check(*last);
  MESSAGE(changes << " changes of the host, " << story.replay.records() << " records");
}
