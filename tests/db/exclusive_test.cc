// WAL databases under locking_mode=EXCLUSIVE, which use no wal-index: real SQLite on plain files.
// The test calls what the mount would call, at the moments at which it would.
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <random>

#include "db/page_copier.h"
#include "node_fixture.h"
#include "sqlite/wal.h"

using namespace litefs;
using namespace litefs::test;

namespace {

const std::string kSpill =
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 150) "
    "INSERT INTO t(a, b) SELECT n, randomblob(700) FROM c; ";

// A primary and a replica, and a WAL database on the primary that nobody has open.
class Pair {
 public:
  Pair() {
    {
      Shell shell(path());
      shell.run("PRAGMA journal_mode=wal;");
      shell.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);");
      REQUIRE(source->tail_opened(false).ok());
      REQUIRE(source->tail_opened(true).ok());
      REQUIRE(source->drain(true).ok());
    }
    source->index_closed();
    source->tail_unlinked();
  }

  std::string path() const { return primary.file("app.db"); }
  // An application that sets the locking mode before it looks at the database.
  std::unique_ptr<Shell> open_exclusive() {
    auto shell = std::make_unique<Shell>(path());
    CHECK(shell->run("PRAGMA locking_mode=EXCLUSIVE;") == "exclusive");
    CHECK(shell->run("PRAGMA wal_autocheckpoint=0; BEGIN IMMEDIATE; ROLLBACK;") == "0");
    CHECK(access((path() + "-wal").c_str(), F_OK) == 0);
    REQUIRE(source->tail_opened(false).ok());
    return shell;
  }
  std::unique_ptr<Shell> open_normal() {
    auto shell = std::make_unique<Shell>(path());
    CHECK(shell->run("PRAGMA wal_autocheckpoint=0; BEGIN IMMEDIATE; ROLLBACK;") == "0");
    REQUIRE(source->tail_opened(false).ok());
    REQUIRE(source->tail_opened(true).ok());
    return shell;
  }
  // A complete checkpoint: the mount's requests around it.
  void checkpoint(Shell& shell, const std::string& kind) {
    REQUIRE(source->drain(true).ok());
    // The database's truncation comes before the WAL's.
    const bool truncates = kind == "TRUNCATE";
    CHECK(shell.run("PRAGMA wal_checkpoint(" + (truncates ? "PASSIVE" : kind) + ");").starts_with("0|"));
    struct stat info;
    REQUIRE(stat(path().c_str(), &info) == 0);
    REQUIRE(source->before_database_resize(static_cast<uint64_t>(info.st_size)).ok());
    if (truncates) CHECK(shell.run("PRAGMA wal_checkpoint(TRUNCATE);") == "0|0|0");
  }
  void close(std::unique_ptr<Shell> shell) {
    checkpoint(*shell, "PASSIVE");
    shell->quit();
    source->index_closed();
    CHECK(access((path() + "-wal").c_str(), F_OK) != 0);
    source->tail_unlinked();
  }
  // Bytes behind the WAL's last committed frame: a one-page commit that is chained to it, of this
  // page's image.
  void append_commit_frame(Pgno pgno, const Bytes& page, Pgno size_pages) {
    std::unique_ptr<File> wal = files_->open(path() + "-wal", OpenMode::kReadWrite).value();
    uint8_t bytes[kWalHeaderBytes];
    REQUIRE(wal->read_exactly(0, bytes).ok());
    WalHeader header = WalHeader::parse(ByteView(bytes, sizeof bytes)).value().value();
    WalAnchor start{header.salts, 0, header.checksum};
    WalAnchor end = scan_wal(*wal, header, start, [](uint32_t, const WalFrame&, ByteView) { return true; }).value().end;
    Bytes frame(header.frame_bytes());
    store_be32(frame.data(), pgno);
    store_be32(frame.data() + 4, size_pages);
    store_be32(frame.data() + 8, header.salts.salt1);
    store_be32(frame.data() + 12, header.salts.salt2);
    std::copy(page.begin(), page.end(), frame.begin() + kWalFrameHeaderBytes);
    WalChecksum sum = wal_checksum(header.big_endian, ByteView(frame).first(8), end.checksum);
    sum = wal_checksum(header.big_endian, page, sum);
    store_be32(frame.data() + 16, sum.a);
    store_be32(frame.data() + 20, sum.b);
    REQUIRE(wal->write_at(header.frame_offset(end.frame + 1), frame).ok());
  }
  // What a transaction whose sync fails leaves: a commit frame that its writer does not count. It
  // changes the table's leaf in a way that would show.
  void leave_phantom() {
    Bytes page(4096);
    std::unique_ptr<File> file = files_->open(path(), OpenMode::kReadOnly).value();
    REQUIRE(file->read_exactly(4096, page).ok());
    page[4095] ^= 0xff;
    append_commit_frame(Pgno{2}, page, source->info().size_pages);
  }
  uint64_t txid() { return source->position().txid.value; }
  void wait_for_trust() {
    // The poller would look again and again.
    for (int64_t until = clock_->monotonic_ns() + 2 * ChainTrust::kAcceptedAfterNs; clock_->monotonic_ns() <= until;) {
      REQUIRE(source->poll().ok());
    }
    REQUIRE(source->poll().ok());
  }
  void replicate() {
    std::vector<Bytes> records;
    while (!primary.batches().empty()) {
      for (CapturedBatch::Item& item : primary.batches().front().items) records.push_back(std::move(item.record));
      primary.batches().pop_front();
    }
    Status applied = copy->apply(records);
    INFO((applied.ok() ? "" : applied.error().message()));
    REQUIRE(applied.ok());
  }
  // Nobody has the database open.
  void check_equal() {
    replicate();
    CHECK(source->position() == copy->position());
    Shell original(path());
    Shell reader(replica.file("app.db"), true);
    CHECK(original.run("PRAGMA integrity_check;") == "ok");
    CHECK(original.run(".sha3sum") == reader.run(".sha3sum"));
    for (auto [shell, dir] : {std::pair(&original, &primary_dir), std::pair(&reader, &replica_dir)}) {
      std::string to = dir->file("copy.db");
      CHECK(shell->run(".backup " + to) == "");
      uint32_t schema_version = static_cast<uint32_t>(std::stoul(shell->run("PRAGMA schema_version;")));
      CHECK(TestNode::content_checksum(to, schema_version) == source->position().checksum);
      std::remove(to.c_str());
    }
  }

  TempDir primary_dir, replica_dir;
  TestNode primary{primary_dir.path()};
  TestNode replica{replica_dir.path()};
  std::shared_ptr<Database> source = primary.start_primary("app.db", 1);
  std::shared_ptr<Database> copy = replica.start_replica("app.db");

 private:
  std::unique_ptr<FileSystem> files_ = posix_file_system();
  std::unique_ptr<Clock> clock_ = system_clock();
};

}  // namespace

TEST_CASE("a connection without an index is followed by the chain, its last commit a little later") {
  Pair pair;
  uint64_t before = pair.txid();
  auto shell = pair.open_exclusive();
  for (int i = 0; i < 5; ++i) shell->run("INSERT INTO t(a) VALUES(" + std::to_string(i) + ");");
  CHECK(access((pair.path() + "-shm").c_str(), F_OK) != 0);
  REQUIRE(pair.source->poll().ok());
  CHECK(pair.txid() == before + 4);
  pair.wait_for_trust();
  CHECK(pair.txid() == before + 5);
  shell->run("INSERT INTO t(a) VALUES('read');");
  SUBCASE("who asks for the position has it at once") { REQUIRE(pair.source->drain(false).ok()); }
  SUBCASE("a checkpoint may only follow a commit") { REQUIRE(pair.source->drain(true).ok()); }
  SUBCASE("a sync that has succeeded makes it one") {
    pair.source->wal_sync_begins();
    pair.source->wal_sync_ended({});
  }
  CHECK(pair.txid() == before + 6);
  pair.close(std::move(shell));
  pair.check_equal();
}

TEST_CASE("a commit whose sync fails is not captured, and what its writer does next is") {
  Pair pair;
  auto shell = pair.open_exclusive();
  shell->run("INSERT INTO t(a, b) VALUES(1, randomblob(100));");
  REQUIRE(pair.source->drain(true).ok());
  uint64_t before = pair.txid();
  pair.leave_phantom();
  pair.source->wal_sync_begins();
  pair.wait_for_trust();
  CHECK(pair.txid() == before);
  pair.source->wal_sync_ended(Error(ErrorCode::kIo, "sync failed"));
  pair.wait_for_trust();
  REQUIRE(pair.source->drain(true).ok());
  CHECK(pair.txid() == before);
  SUBCASE("it goes on") {
    shell->run("INSERT INTO t(a) VALUES(2);");
    REQUIRE(pair.source->drain(true).ok());
    CHECK(pair.txid() == before + 1);
    pair.close(std::move(shell));
  }
  SUBCASE("it closes") {
    pair.close(std::move(shell));
    CHECK(pair.txid() == before);
  }
  SUBCASE("it is killed, and the next one recovers the commit") {
    shell->kill9();
    shell = pair.open_exclusive();
    REQUIRE(pair.source->drain(true).ok());
    CHECK(pair.txid() == before + 1);
    pair.close(std::move(shell));
  }
  pair.check_equal();
}

TEST_CASE("a captured commit that its writer overwrites is corrected by a transaction") {
  Pair pair;
  auto shell = pair.open_exclusive();
  shell->run("INSERT INTO t(a, b) VALUES(1, randomblob(100));");
  REQUIRE(pair.source->drain(true).ok());
  uint64_t before = pair.txid();
  pair.leave_phantom();
  pair.wait_for_trust();
  CHECK(pair.txid() == before + 1);
  SUBCASE("by the next transaction") { shell->run("INSERT INTO t(a) VALUES(2);"); }
  SUBCASE("by one that spills") { shell->run("PRAGMA cache_size=5; BEGIN; " + kSpill + "COMMIT;"); }
  SUBCASE("by one that spills and is rolled back") {
    shell->run("PRAGMA cache_size=5; BEGIN; " + kSpill);
    pair.wait_for_trust();
    CHECK(pair.txid() == before + 2);
    shell->run("ROLLBACK;");
  }
  REQUIRE(pair.source->drain(true).ok());
  CHECK(pair.txid() >= before + 2);
  shell->run("INSERT INTO t(a) VALUES(3);");
  pair.close(std::move(shell));
  pair.check_equal();
}

TEST_CASE("an index whose user had not locked it yet when somebody asked is in use all the same") {
  Pair pair;
  // The first user has opened -shm; before it locks and truncates it another asks, and opens -wal
  // when it has.
  REQUIRE(pair.source->tail_opened(false).ok());
  std::ofstream(pair.path() + "-shm").put('x');
  REQUIRE(pair.source->index_opened().ok());
  const uint64_t opens = pair.source->index_opens();
  REQUIRE(pair.source->index_begins(3).ok());
  pair.source->note_index_unused(opens);
  REQUIRE(pair.source->tail_opened(false).ok());
  CHECK(pair.source->index_may_be_in_use());
}

TEST_CASE("an index left by a killed process is nobody's") {
  Pair pair;
  auto shell = pair.open_normal();
  shell->run("INSERT INTO t(a) VALUES('published');");
  REQUIRE(pair.source->drain(true).ok());
  uint64_t before = pair.txid();
  shell->kill9();
  CHECK(access((pair.path() + "-shm").c_str(), F_OK) == 0);
  // The kernel has not yet told that it was closed; who opens -wal asks whether it is locked.
  CHECK(pair.source->index_may_be_in_use());
  pair.source->note_index_unused(pair.source->index_opens());
  auto exclusive = pair.open_exclusive();
  for (int i = 0; i < 3; ++i) exclusive->run("INSERT INTO t(a) VALUES(1);");
  pair.checkpoint(*exclusive, "RESTART");
  for (int i = 0; i < 3; ++i) exclusive->run("INSERT INTO t(a) VALUES(2);");
  REQUIRE(pair.source->drain(true).ok());
  CHECK(pair.txid() == before + 6);
  SUBCASE("and the next index is everybody's again") {
    exclusive->kill9();
    shell = pair.open_normal();
    pair.source->note_index_unused(pair.source->index_opens() - 1);
    shell->run("INSERT INTO t(a) VALUES(3);");
    Shell other(pair.path());
    other.run("SELECT * FROM t;");
    REQUIRE(pair.source->tail_opened(false).ok());
    CHECK(pair.source->index_may_be_in_use());
    REQUIRE(pair.source->poll().ok());
    CHECK(pair.txid() == before + 7);
    other.quit();
    pair.close(std::move(shell));
  }
  SUBCASE("and its user closes") { pair.close(std::move(exclusive)); }
  pair.check_equal();
}

TEST_CASE("a killed writer's phantom is not captured while the last close goes from -shm to -wal") {
  Pair pair;
  auto shell = pair.open_normal();
  shell->run("INSERT INTO t(a) VALUES(1);");
  REQUIRE(pair.source->drain(true).ok());
  uint64_t before = pair.txid();
  pair.leave_phantom();
  std::remove((pair.path() + "-shm").c_str());
  pair.source->index_closed();
  pair.wait_for_trust();
  REQUIRE(pair.source->drain(true).ok());
  CHECK(pair.txid() == before);
  SUBCASE("where -wal is left the next one recovers it") {
    shell->kill9();
    shell = pair.open_exclusive();
    REQUIRE(pair.source->drain(true).ok());
    CHECK(pair.txid() == before + 1);
    pair.close(std::move(shell));
    pair.check_equal();
  }
}

TEST_CASE("commits that the chain does not show are captured when a checkpoint has moved them") {
  Pair pair;
  auto shell = pair.open_exclusive();
  shell->run("CREATE TABLE u(a, b); CREATE INDEX i ON t(a);");
  // The same each time: the content decides in which order SQLite writes the pages, and so whether the chain shows
  // them.
  std::mt19937_64 random(5);
  auto insert = [&](int rows) {
    for (int i = 0; i < rows; ++i) {
      std::string bytes;
      while (bytes.size() < 1000) bytes += hex16(random());
      shell->run("INSERT INTO t(a) VALUES(x'" + bytes + "');");
    }
  };
  for (int round = 0; round < 3; ++round) {
    CAPTURE(round);
    shell->run("PRAGMA cache_size = 5; BEGIN; SAVEPOINT s; INSERT INTO u VALUES(1, 2);");
    insert(200);
    shell->run("ROLLBACK TO s; RELEASE s;");
    insert(20);
    CHECK(shell->run("COMMIT;") == "");
    CHECK(shell->run("INSERT INTO t(a) VALUES('after');") == "");
    REQUIRE(pair.source->drain(true).ok());
    uint64_t before = pair.txid();
    pair.checkpoint(*shell, round == 1 ? "TRUNCATE" : "PASSIVE");
    // In later rounds SQLite may come upon another order of pages, and do it right.
    if (round == 0) CHECK(pair.txid() == before + 1);
    before = pair.txid();
    CHECK(shell->run("INSERT INTO t(a) VALUES('next');") == "");
    REQUIRE(pair.source->drain(true).ok());
    CHECK(pair.txid() == before + 1);
    Pgno next = 1;
    PageCopier copier(pair.source);
    while (!copier.read_from(&next, 1000).value().empty()) {
    }
    CHECK(next == pair.source->info().size_pages + 1);
  }
  CHECK(shell->run("SELECT count(*) FROM t;") == "66");
  pair.close(std::move(shell));
  pair.check_equal();
}

TEST_CASE("random transactions of users that come and go, with and without an index, replicate exactly") {
  uint32_t seed = std::random_device()();
  if (const char* given = std::getenv("LITEFS_TEST_SEED")) seed = static_cast<uint32_t>(std::stoul(given));
  std::printf("LITEFS_TEST_SEED=%u\n", seed);
  CAPTURE(seed);
  std::mt19937 random(seed);
  Pair pair;
  constexpr const char* kKinds[] = {"PASSIVE", "FULL", "RESTART", "TRUNCATE"};
  constexpr const char* kSynchronous[] = {"OFF", "NORMAL", "FULL"};
  for (int round = 0; round < 40; ++round) {
    const bool exclusive = random() % 3 != 0;
    auto shell = exclusive ? pair.open_exclusive() : pair.open_normal();
    shell->run(std::string("PRAGMA synchronous=") + kSynchronous[random() % 3] + ";");
    if (random() % 2) shell->run("PRAGMA cache_size=5;");
    // Larger records would only be in the log.
    shell->run("DELETE FROM t WHERE id < (SELECT max(id) FROM t) - 150;");
    if (random() % 3 == 0) shell->run("PRAGMA journal_size_limit=1000;");
    // Afterwards it has its index still.
    if (!exclusive && random() % 2) shell->run("PRAGMA locking_mode=EXCLUSIVE;");
    for (uint32_t steps = random() % 20; steps > 0; --steps) {
      switch (random() % 8) {
        case 0: shell->run("BEGIN; " + kSpill + "ROLLBACK;"); break;
        case 1: shell->run("BEGIN; " + kSpill + "DELETE FROM t WHERE id % 3; COMMIT;"); break;
        case 2: pair.checkpoint(*shell, kKinds[random() % 4]); break;
        case 3:
          if (random() % 3 == 0) {
            REQUIRE(pair.source->drain(true).ok());
            shell->run("VACUUM;");
          }
          break;
        default:
          shell->run("INSERT INTO t(a, b) VALUES(1, randomblob(" + std::to_string(random() % 6000) + "));");
          break;
      }
      if (random() % 2) REQUIRE(pair.source->poll().ok());
    }
    REQUIRE(pair.source->drain(true).ok());
    if (random() % 3 == 0) {
      if (random() % 2) shell->run("BEGIN; " + kSpill);
      shell->kill9();
      // Told late, or in time.
      if (random() % 2) {
        pair.source->index_closed();
      } else {
        pair.source->note_index_unused(pair.source->index_opens());
      }
    } else {
      pair.close(std::move(shell));
    }
  }
  auto last = pair.open_exclusive();
  pair.close(std::move(last));
  pair.check_equal();
}
