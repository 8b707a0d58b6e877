#define DOCTEST_CONFIG_IMPLEMENT
// A node is taken over while other processes use its databases: hosts die and follow each other, guests go on.
#include "db/live_story.h"

using namespace litefs;
using namespace litefs::test;

int live_replica_host(const std::string& directory);  // live_replica_test.cc

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--live-replica") return live_replica_host(argv[2]);
  if (int code = guest_main(argc, argv); code >= 0) return code;
  return doctest::Context(argc, argv).run();
}

TEST_CASE("commits in a WAL that were made while no host was there are captured by the next one") {
  LiveStory story;
  auto a = story.guest();
  CHECK(a->run("PRAGMA journal_mode=WAL") == "wal");
  CHECK(a->run("CREATE TABLE t(x); INSERT INTO t VALUES(1)") == "");
  auto b = story.guest();
  CHECK(b->run("SELECT count(*) FROM t") == "1");
  REQUIRE(story.db->drain(true).ok());
  const Position before = story.db->position();
  story.host_dies();
  for (int i = 0; i < 5; ++i) CHECK(b->run("INSERT INTO t VALUES(2)") == "");
  CHECK(a->run("BEGIN; INSERT INTO t VALUES(3)") == "");
  story.take_over();
  CHECK(story.txid() == before.txid.value + 5);
  CHECK(story.db->position().epoch == before.epoch);
  CHECK(a->run("COMMIT") == "");
  story.check(*a);
  CHECK(story.txid() == before.txid.value + 6);
  CHECK(story.db->position().epoch.value == 2);
  // A checkpoint goes on as it must.
  CHECK(b->run("PRAGMA wal_checkpoint(TRUNCATE)") == "0|0|0");
  CHECK(a->run("INSERT INTO t VALUES(4)") == "");
  story.check(*b);
  story.host_changes();
  CHECK(a->run("INSERT INTO t VALUES(5)") == "");
  story.check(*b);
}

TEST_CASE("a large transaction that has spilled into the WAL is taken over in flight") {
  for (const char* end : {"COMMIT", "ROLLBACK"}) {
    CAPTURE(end);
    LiveStory story;
    auto a = story.guest();
    a->run("PRAGMA journal_mode=WAL");
    a->run("PRAGMA cache_size=5; CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(100))");
    auto b = story.guest();
    CHECK(b->run("SELECT count(*) FROM t") == "1");
    CHECK(a->run("BEGIN; INSERT INTO t WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 500) "
                 "SELECT randomblob(900) FROM c") == "");
    story.host_changes();
    const uint64_t before = story.txid();
    CHECK(a->run("UPDATE t SET x = randomblob(800) WHERE rowid % 3 = 0") == "");
    story.host_changes();
    CHECK(a->run(end) == "");
    story.check(*b);
    CHECK(story.txid() == before + (std::string(end) == "COMMIT" ? 1 : 0));
    CHECK(b->run("SELECT count(*) FROM t") == (std::string(end) == "COMMIT" ? "501" : "1"));
  }
}

namespace {

const char kBig[] =
    "BEGIN; UPDATE t SET x = randomblob(700) WHERE rowid % 2 = 0; DELETE FROM t WHERE rowid % 5 = 0 OR rowid > 26; "
    "INSERT INTO t SELECT randomblob(600) FROM t LIMIT 5; UPDATE n SET n = n + 1; COMMIT";

void fill(Guest& guest, const std::string& mode) {
  guest.run("PRAGMA page_size=1024");
  CHECK(guest.run("PRAGMA journal_mode=" + mode) == mode);
  guest.run("PRAGMA cache_size=5");
  CHECK(guest.run("CREATE TABLE t(x); CREATE TABLE n(n); INSERT INTO n VALUES(0); INSERT INTO t WITH c(i) AS (SELECT "
                  "1 UNION ALL SELECT i + 1 FROM c WHERE i < 25) SELECT randomblob(500) FROM c; DELETE FROM t WHERE "
                  "rowid % 11 = 0") == "");
}

}  // namespace

// At each of a writer's steps: the host dies before it, or where it asks: behind its answer's work, so that the
// transaction is captured already.
TEST_CASE("a writer in a rollback mode goes on over a change of the host at each of its steps") {
  for (const std::string mode : {"delete", "truncate", "persist"}) {
    for (const bool exclusive : {false, true}) {
      CAPTURE(mode);
      CAPTURE(exclusive);
      LiveStory story;
      auto a = story.guest();
      fill(*a, mode);
      if (exclusive) a->run("PRAGMA locking_mode=EXCLUSIVE");
      CHECK(a->run("UPDATE n SET n = 0") == "");
      int64_t committed = 0;
      for (int step = 1;; ++step) {
        CAPTURE(step);
        if (!a->run_until(kBig, step)) break;
        const bool asks = a->waits_with().rfind("ask journal ", 0) == 0;
        if (asks) REQUIRE(serve_guest(*story.db, "journal").ok());
        const uint64_t captured = story.txid();
        story.host_changes();
        CHECK(story.txid() == captured);
        CHECK(a->go_on() == "");
        if (asks) CHECK(story.txid() == captured);
        ++committed;
        REQUIRE(story.replay.follow(*story.db) == "");
        REQUIRE(story.replay.difference(story.node->file("app.db")) == "");
      }
      ++committed;
      CHECK(a->run("SELECT n FROM n") == std::to_string(committed));
      if (exclusive) a->run("PRAGMA locking_mode=NORMAL; SELECT * FROM n");
      story.check(*a);
    }
  }
}

TEST_CASE(
    "a writer that is killed at any of its steps is rolled back by the next reader, behind a change of the host") {
  for (const std::string mode : {"delete", "truncate", "persist"}) {
    for (int step = 1;; ++step) {
      CAPTURE(mode);
      CAPTURE(step);
      LiveStory story;
      auto a = story.guest();
      fill(*a, mode);
      auto b = story.guest();
      CHECK(b->run("SELECT n FROM n") == "0");
      const uint64_t before = story.txid();
      const Checksum content = story.db->position().checksum;
      if (!a->run_until(kBig, step)) break;
      const bool asks = a->waits_with().rfind("ask journal ", 0) == 0;
      if (asks) REQUIRE(serve_guest(*story.db, "journal").ok());
      const uint64_t captured = story.txid();
      const bool final = captured != before && !story.journal_is_hot();
      story.host_dies();
      a->kill_now();
      story.take_over();
      CHECK(story.txid() == captured);
      // Nobody's transaction is captured before it has been played back.
      Result<bool> unjournaled = story.db->capture_unjournaled();
      CHECK((!unjournaled.ok() || !unjournaled.value()));
      CHECK(b->run("SELECT n FROM n") == (final ? "1" : "0"));
      story.check(*b);
      if (asks) {
        CHECK(captured == before + 1);
        if (!final) CHECK(story.txid() == captured + 1);
      }
      if (!final) CHECK((story.db->position().checksum == content || story.txid() > captured));
      CHECK(b->run("UPDATE n SET n = 7") == "");
      story.check(*b);
    }
  }
}

TEST_CASE("a journal that a guest begins over a dead one's is known though nobody told of the dead one's") {
  LiveStory story;
  auto a = story.guest();
  CHECK(a->run("PRAGMA cache_size=5; CREATE TABLE t(x)") == "");
  CHECK(a->run("INSERT INTO t WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 200) "
               "SELECT randomblob(900) FROM c") == "");
  CHECK(a->run("BEGIN; UPDATE t SET x = randomblob(900)") == "");
  a->kill_now();
  REQUIRE(story.journal_is_hot());
  // SQLite 3.40 may let another in EXCLUSIVE mode write over it. He has no page of the first one's in his journal.
  uint8_t header[512] = {};
  header[15] = 1;     // checksum seed
  header[19] = 1;     // original size
  header[22] = 2;     // sector size
  header[26] = 0x10;  // page size
  REQUIRE(story.db->before_journal_write(0, header).ok());
  static constexpr uint8_t kMagic[12] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};
  std::copy_n(kMagic, sizeof kMagic, header);
  const std::string journal = story.node->file("app.db-journal");
  REQUIRE(posix_file_system()->open(journal, OpenMode::kReadWrite).value()->truncate(0).ok());
  REQUIRE(posix_file_system()->open(journal, OpenMode::kReadWrite).value()->write_at(0, header).ok());
  REQUIRE(serve_guest(*story.db, "journal").ok());
  std::filesystem::remove(journal);
  REQUIRE(serve_guest(*story.db, "journal-unlinked").ok());
  auto b = story.guest();
  story.check(*b);
}
