#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "db/page_copier.h"
#include "node_fixture.h"

using namespace litefs;
using namespace litefs::test;

namespace {

// A primary and a replica on plain files, and the application on the primary.
struct Pair {
  TempDir primary_dir, replica_dir;
  TestNode primary{primary_dir.path()};
  TestNode replica{replica_dir.path()};
  std::shared_ptr<Database> source = primary.start_primary("app.db", 1);
  std::shared_ptr<Database> copy = replica.start_replica("app.db");

  // Creates the database in WAL mode with one table, checkpoints by hand only.
  std::unique_ptr<Shell> create(const std::string& page_size = "4096") {
    {
      Shell shell(primary.file("app.db"));
      shell.run("PRAGMA page_size=" + page_size + ";");
      CHECK(shell.run("PRAGMA journal_mode=wal;") == "wal");
    }
    REQUIRE(source->capture_file().ok());
    auto shell = std::make_unique<Shell>(primary.file("app.db"));
    shell->run("PRAGMA wal_autocheckpoint=0;");
    CHECK(shell->run("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);") == "");
    REQUIRE(source->tail_opened(false).ok());
    REQUIRE(source->tail_opened(true).ok());
    return shell;
  }
  // Sends what the primary captured.
  void replicate() {
    Status drained = source->drain(true);
    INFO((drained.ok() ? "" : drained.error().message()));
    REQUIRE(drained.ok());
    std::vector<Bytes> records;
    while (!primary.batches().empty()) {
      for (CapturedBatch::Item& item : primary.batches().front().items) records.push_back(std::move(item.record));
      primary.batches().pop_front();
    }
    Status applied = copy->apply(records);
    INFO((applied.ok() ? "" : applied.error().message()));
    REQUIRE(applied.ok());
  }
  void check_equal() {
    CHECK(source->position() == copy->position());
    Shell original(primary.file("app.db"));
    Shell reader(replica.file("app.db"), true);
    CHECK(original.run("PRAGMA integrity_check;") == "ok");
    CHECK(reader.run("PRAGMA integrity_check;") == "ok");
    CHECK(original.run(".sha3sum") == reader.run(".sha3sum"));
    for (auto [shell, dir] : {std::pair(&original, &primary_dir), std::pair(&reader, &replica_dir)}) {
      std::string to = dir->file("copy.db");
      CHECK(shell->run(".backup " + to) == "");
      uint32_t schema_version = static_cast<uint32_t>(std::stoul(shell->run("PRAGMA schema_version;")));
      CHECK(TestNode::content_checksum(to, schema_version) == source->position().checksum);
      std::remove(to.c_str());
    }
  }
};

}  // namespace

TEST_CASE("transactions of a WAL database are applied to a replica, pages equal") {
  for (std::string page_size : {"512", "4096", "65536"}) {
    CAPTURE(page_size);
    Pair pair;
    auto shell = pair.create(page_size);
    pair.replicate();
    pair.check_equal();
    shell->run("INSERT INTO t VALUES(1, 'one', zeroblob(100)), (2, 'two', randomblob(9000));");
    shell->run("UPDATE t SET a = 'changed' WHERE id = 1;");
    pair.replicate();
    pair.check_equal();
    shell->run(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000) "
        "INSERT INTO t(a, b) SELECT hex(randomblob(20)), randomblob(n % 500) FROM c;");
    shell->run("CREATE INDEX i ON t(a);");
    pair.replicate();
    pair.check_equal();
    shell->run("DELETE FROM t WHERE id % 3 = 0;");
    shell->run("VACUUM;");
    pair.replicate();
    pair.check_equal();
  }
}

TEST_CASE("a checkpoint between two drains loses nothing, and the WAL begins anew") {
  Pair pair;
  auto shell = pair.create();
  for (int i = 0; i < 20; ++i) {
    shell->run("INSERT INTO t(a) VALUES(randomblob(300));");
    REQUIRE(pair.source->drain(true).ok());
    CHECK(shell->run("PRAGMA wal_checkpoint(" + std::string(i % 2 ? "TRUNCATE" : "RESTART") + ");").starts_with("0|"));
  }
  pair.replicate();
  pair.check_equal();
  CHECK(pair.source->position().txid.value == 22);
}

TEST_CASE("what was committed while the node was dead is captured at its next start, under the same TXIDs") {
  Pair pair;
  auto shell = pair.create();
  pair.replicate();
  Position before = pair.source->position();
  for (int i = 0; i < 5; ++i) shell->run("INSERT INTO t(a) VALUES(" + std::to_string(i) + ");");
  shell->kill9();
  pair.source.reset();
  pair.primary.restart();
  pair.source = pair.primary.start_primary("app.db", 2);
  CHECK(pair.source->position().txid.value == before.txid.value + 5);
  CHECK(pair.source->position().epoch.value == 1);
  pair.replicate();
  pair.check_equal();
}

TEST_CASE("a replica that restarts stands where it stood, and goes on") {
  Pair pair;
  auto shell = pair.create();
  for (int i = 0; i < 5; ++i) {
    shell->run("INSERT INTO t(a, b) VALUES(" + std::to_string(i) + ", randomblob(5000));");
    pair.replicate();
    Position before = pair.copy->position();
    pair.copy.reset();
    pair.replica.restart();
    pair.copy = pair.replica.start_replica("app.db");
    CHECK(pair.copy->position() == before);
  }
  pair.check_equal();
}

TEST_CASE("a database is deleted and made anew under its name") {
  Pair pair;
  auto shell = pair.create();
  pair.replicate();
  shell->quit();
  REQUIRE(pair.source->drop().ok());
  std::remove(pair.primary.file("app.db").c_str());
  pair.replicate();
  CHECK_FALSE(pair.copy->exists());
  CHECK(access(pair.replica.file("app.db").c_str(), F_OK) != 0);
  pair.source->index_closed();
  shell = pair.create("1024");
  shell->run("INSERT INTO t(a) VALUES('again');");
  pair.replicate();
  pair.check_equal();
}

TEST_CASE("a fuzzy copy taken while writers go on becomes consistent by the records since its start") {
  Pair pair;
  auto shell = pair.create();
  shell->run(
      "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3000) "
      "INSERT INTO t(a, b) SELECT hex(randomblob(20)), randomblob(300) FROM c;");
  REQUIRE(pair.source->drain(true).ok());
  pair.primary.batches().clear();
  Position start = pair.source->position();
  REQUIRE(pair.copy->begin_load({.id = pair.source->id(), .start = start, .keep_because = {}}).ok());
  PageCopier copier(pair.source);
  Pgno next = 1;
  for (int i = 0;; ++i) {
    Bytes piece = copier.read_from(&next, 50).value();
    if (piece.empty()) break;
    REQUIRE(pair.copy->load_pages(piece).ok());
    shell->run("UPDATE t SET b = randomblob(300) WHERE id % 97 = " + std::to_string(i) +
               "; INSERT INTO t(a) VALUES(1);");
    if (i == 5) shell->run("DELETE FROM t WHERE id > 2500;");
    REQUIRE(pair.source->drain(true).ok());
    if (i == 7) CHECK(shell->run("PRAGMA wal_checkpoint(TRUNCATE);") == "0|0|0");
  }
  REQUIRE(pair.source->drain(true).ok());
  REQUIRE(pair.copy->end_load(pair.source->position()).ok());
  pair.replicate();
  CHECK_FALSE(pair.copy->loading());
  pair.check_equal();
}

TEST_CASE("frames that SQLite published without checksums survive a crash of application and node") {
  Pair pair;
  auto shell = pair.create();
  shell->run("CREATE TABLE u(a, b); CREATE INDEX i ON t(a);");
  pair.replicate();
  Position before = pair.source->position();
  shell->run("PRAGMA cache_size = 5; BEGIN; SAVEPOINT s; INSERT INTO u VALUES(1, 2);");
  for (int i = 0; i < 200; ++i) shell->run("INSERT INTO t(a) VALUES(randomblob(500));");
  shell->run("ROLLBACK TO s; RELEASE s;");
  for (int i = 0; i < 20; ++i) shell->run("INSERT INTO t(a) VALUES(randomblob(500));");
  CHECK(shell->run("COMMIT;") == "");
  CHECK(shell->run("INSERT INTO t(a) VALUES('after');") == "");
  CHECK(shell->run("SELECT count(*) FROM t;") == "21");
  shell->kill9();
  pair.source.reset();
  pair.primary.restart();
  pair.source = pair.primary.start_primary("app.db", 2);
  CHECK(pair.source->position().txid.value == before.txid.value + 2);
  pair.replicate();
  Shell again(pair.primary.file("app.db"));
  CHECK(again.run("SELECT count(*) FROM t;") == "21");
  pair.check_equal();
}
