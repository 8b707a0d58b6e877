#define DOCTEST_CONFIG_IMPLEMENT
// A node is taken over while other processes use its databases: hosts die and follow each other, guests go on.
#include <filesystem>
#include <iostream>

#include "db/guest.h"
#include "db/log_replay.h"
#include "sqlite/journal.h"

using namespace litefs;
using namespace litefs::test;

int main(int argc, char** argv) {
  if (int code = guest_main(argc, argv); code >= 0) return code;
  return doctest::Context(argc, argv).run();
}

namespace {

// A data directory, the host of the moment, and guests.
struct Story {
  Story() {
    node = std::make_unique<TestNode>(dir.path());
    db = node->start_primary("app.db", epoch);
    db->set_writes_unseen(true);  // as for guests
  }

  Guest::Host host() {
    return [this](const std::string& what, const std::string& file) -> Status {
      if (what == "super") return node->store().capture_group(file);
      return serve_guest(*node->database(file.substr(file.rfind('/') + 1)), what);
    };
  }
  std::unique_ptr<Guest> guest(const std::string& name = "app.db") {
    return std::make_unique<Guest>(node->file(name), host());
  }
  // Nothing of the host is told to stop: it is gone between two instructions.
  void host_dies() {
    db.reset();
    node.reset();
  }
  void take_over() {
    node = std::make_unique<TestNode>(dir.path());
    db = node->take_over("app.db", ++epoch);
    CHECK(db->state() == DatabaseState::kReady);
  }
  void host_changes() {
    host_dies();
    take_over();
  }
  // What the log says, the page sums and the file agree; nobody is in the middle of a transaction.
  void check(Guest& reader) { CHECK(difference(reader) == ""); }
  std::string difference(Guest& reader) {
    Status drained = db->drain(true);
    if (!drained.ok()) return drained.error().message();
    const std::string wrong = replay.follow(*db);
    if (!wrong.empty()) return wrong;
    if (!(replay.position() == db->position())) return "the log ends elsewhere than the database";
    const std::string copy = dir.path() + "/copy.db";
    std::filesystem::remove(copy);
    const std::string version = reader.run("PRAGMA schema_version");
    {
      Shell shell(node->file("app.db"), true);
      const std::string said = shell.run(".backup " + copy);
      if (!said.empty()) return said;
    }
    auto files = posix_file_system();
    Bytes all = files->read_all(copy, 1u << 30).value();
    // The backup has raised it.
    if (!all.empty()) store_be32(all.data() + 40, static_cast<uint32_t>(std::stoul(version)));
    REQUIRE(files->open(copy, OpenMode::kReadWrite).value()->write_at(0, all).ok());
    const std::string differs = replay.difference(copy);
    if (!differs.empty()) return differs;
    return sums_difference(all);
  }
  std::string sums_difference(const Bytes& all) {
    const uint32_t page_size = db->info().page_size;
    const Pgno size_pages = static_cast<Pgno>(all.size() / page_size);
    if (size_pages != db->info().size_pages) return "another size";
    Bytes page(page_size);
    for (Pgno first = 1; first <= size_pages; first += kRangePages) {
      SumsQuestion question;
      question.of_pages = true;
      question.ranges = {(first - 1) / kRangePages};
      std::vector<Checksum> sums = db->sums(question).value();
      for (Pgno pgno = first; pgno < first + kRangePages; ++pgno) {
        Checksum expected;
        if (pgno <= size_pages && pgno != lock_page(page_size)) {
          std::copy_n(all.begin() + static_cast<ptrdiff_t>(pgno - 1) * page_size, page_size, page.begin());
          if (pgno == 1) mask_local_bytes(page);
          expected = page_hash(pgno, page);
        }
        if (sums[pgno - first] != expected) return "the sum of page " + std::to_string(pgno) + " is wrong";
      }
    }
    return "";
  }
  bool journal_is_hot() {
    auto journal = posix_file_system()->open_if_there(node->file("app.db-journal"), OpenMode::kReadOnly).value();
    uint8_t first[kJournalHeaderBytes];
    return journal && litefs::journal_is_hot(ByteView(first, journal->read_at(0, first).value()));
  }
  uint64_t txid() { return db->position().txid.value; }

  TempDir dir;
  uint64_t epoch = 1;
  std::unique_ptr<TestNode> node;
  std::shared_ptr<Database> db;
  LogReplay replay;
};

}  // namespace

TEST_CASE("commits in a WAL that were made while no host was there are captured by the next one") {
  Story story;
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
    Story story;
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
      Story story;
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

TEST_CASE("a writer that is killed at any of its steps is rolled back by the next reader, behind a change of the host") {
  for (const std::string mode : {"delete", "truncate", "persist"}) {
    for (int step = 1;; ++step) {
      CAPTURE(mode);
      CAPTURE(step);
      Story story;
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
