// Resync by difference, both sides in one process without a network (repl and system tests have that).
#include <functional>

#include "db/lost_state.h"
#include "db/page_copier.h"
#include "db/page_difference.h"
#include "faulty_file_system.h"
#include "node_fixture.h"

using namespace litefs;
using namespace litefs::test;

namespace {

constexpr const char* kDiverged = "the primary does not know its position";

#define REQUIRE_OK(expression)                           \
  do {                                                   \
    auto status = (expression);                          \
    INFO((status.ok() ? "" : status.error().message())); \
    REQUIRE(status.ok());                                \
  } while (false)

std::string rows(int first, int last, const std::string& value = "randomblob(300)") {
  return "WITH RECURSIVE c(n) AS (SELECT " + std::to_string(first) + " UNION ALL SELECT n + 1 FROM c WHERE n < " +
         std::to_string(last) + ") INSERT OR REPLACE INTO t SELECT n, hex(randomblob(20)), " + value + " FROM c;";
}

// A database on two nodes, the same at first: 3,000 rows, some 300 pages of 4096 bytes.
struct Pair {
  TempDir primary_dir, replica_dir;
  std::unique_ptr<FileSystem> posix = posix_file_system();
  FaultyFileSystem faults{*posix};
  TestNode primary{primary_dir.path()};
  TestNode replica{replica_dir.path(), &faults, NodeId{8}};
  std::shared_ptr<Database> source = primary.start_primary("app.db", 1);
  std::shared_ptr<Database> copy = replica.start_replica("app.db");
  std::unique_ptr<Shell> writer;

  Pair() {
    {
      Shell shell(primary.file("app.db"));
      CHECK(shell.run("PRAGMA journal_mode=wal;") == "wal");
    }
    REQUIRE_OK(source->capture_file());
    writer = std::make_unique<Shell>(primary.file("app.db"));
    writer->run("PRAGMA wal_autocheckpoint=0;");
    CHECK(writer->run("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);") == "");
    REQUIRE_OK(source->tail_opened(false));
    REQUIRE_OK(source->tail_opened(true));
    // Twice, as a record over 1 MB is in the log only.
    CHECK(writer->run(rows(1, 1500)) == "");
    CHECK(writer->run(rows(1501, 3000)) == "");
    replicate();
  }

  void write(const std::string& sql) {
    CHECK(writer->run(sql) == "");
    REQUIRE_OK(source->drain(true));
  }
  std::vector<Bytes> take_records() {
    REQUIRE_OK(source->drain(true));
    std::vector<Bytes> records;
    while (!primary.batches().empty()) {
      for (CapturedBatch::Item& item : primary.batches().front().items) records.push_back(std::move(item.record));
      primary.batches().pop_front();
    }
    return records;
  }
  void replicate() { REQUIRE_OK(copy->apply(take_records())); }

  void restart_replica() {
    copy.reset();
    replica.restart();
    copy = replica.start_replica("app.db");
  }
  // The replica's node is a primary for a while; its application dies with it.
  void diverge(const std::vector<std::string>& transactions) {
    REQUIRE_OK(copy->stop());
    copy.reset();
    replica.restart();
    auto alone = replica.start_primary("app.db", 9);
    {
      Shell app(replica.file("app.db"));
      app.run("PRAGMA wal_autocheckpoint=0;");
      for (const std::string& sql : transactions) CHECK(app.run(sql) == "");
      REQUIRE_OK(alone->tail_opened(false));
      REQUIRE_OK(alone->tail_opened(true));
      REQUIRE_OK(alone->drain(true));
      app.kill9();
    }
    alone.reset();
    restart_replica();
  }

  struct Travelled {
    size_t pages = 0;
    size_t sums = 0;
  };
  // `meanwhile` is called between the steps.
  Result<Travelled> resync(
      const std::string& keep_because, const std::function<void()>& meanwhile = [] {}) {
    Travelled travelled;
    take_records();
    DatabaseInfo from = source->info();
    TRY(copy->begin_load({.id = from.id,
                          .start = from.position,
                          .page_size = from.page_size,
                          .size_pages = from.size_pages,
                          .compares = true,
                          .keep_because = keep_because}));
    PageDifference difference(source, from.size_pages);
    for (;;) {
      PageDifference::Step step = TRY(difference.step(20));
      if (step.last) break;
      if (step.question) {
        std::vector<Checksum> sums = TRY(copy->load_sums(*step.question));
        travelled.sums += sums.size();
        difference.answer(std::move(sums));
      } else {
        travelled.pages += step.pages.size() / from.page_size;
        TRY(copy->load_pages(step.pages));
      }
      meanwhile();
    }
    TRY(copy->end_load(source->position()));
    TRY(copy->apply(take_records()));
    return travelled;
  }

  std::string content(const std::string& file) {
    Shell shell(file, true);
    CHECK(shell.run("PRAGMA integrity_check;") == "ok");
    return shell.run(".sha3sum");
  }
  std::string replica_content() { return content(replica.file("app.db")); }
  void check_equal() {
    CHECK_FALSE(copy->loading());
    CHECK(source->position() == copy->position());
    CHECK(replica_content() == content(primary.file("app.db")));
    // Every page is what its hash says, on both sides: reading checks it.
    for (const auto& db : {source, copy}) {
      PageCopier copier(db);
      Pgno next = 1;
      for (;;) {
        Result<Bytes> piece = copier.read_from(&next, 100);
        REQUIRE_OK(piece);
        if (piece.value().empty()) break;
      }
    }
  }
  LostStates lost() { return list_lost_states(*posix, replica_dir.path()).value(); }
  std::string lost_content(const std::string& id) {
    const std::string to = replica_dir.file("export-" + id);
    REQUIRE_OK(export_lost_state(*posix, replica_dir.path(), "app.db", id, to));
    std::string out = content(to);
    std::remove(to.c_str());
    return out;
  }
};

}  // namespace

TEST_CASE("a replica that went another way gets the pages that differ, and what it had alone is kept exactly") {
  Pair pair;
  const Position fork = pair.copy->position();
  pair.diverge({"UPDATE t SET a = 'alone' WHERE id = 5;", "DELETE FROM t WHERE id = 2900;", rows(3001, 3010)});
  const std::string alone = pair.replica_content();
  const Position led_to = pair.copy->position();
  CHECK(led_to.txid.value == fork.txid.value + 3);
  pair.write("UPDATE t SET a = 'primary' WHERE id IN (5, 1500);");

  Pair::Travelled travelled = pair.resync(kDiverged).value();
  CHECK(travelled.pages >= 3);
  CHECK(travelled.pages <= 12);
  pair.check_equal();
  LostStates lost = pair.lost();
  CHECK(lost.unreadable.empty());
  REQUIRE(lost.entries.size() == 1);
  CHECK(lost.entries[0].state.position == led_to);
  CHECK(lost.entries[0].state.diverged_at == fork);
  CHECK(lost.entries[0].state.transactions == 3);
  CHECK(pair.lost_content(lost.entries[0].state.id()) == alone);

  // Later transactions change other pages, and the lost state stays what it was. So it does after another divergence.
  pair.write("UPDATE t SET b = randomblob(300); DELETE FROM t WHERE id % 3 = 0;");
  pair.replicate();
  pair.diverge({"DELETE FROM t WHERE id > 100;", "VACUUM;"});
  const std::string again = pair.replica_content();
  REQUIRE_OK(pair.resync(kDiverged));
  pair.check_equal();
  LostStates both = pair.lost();
  REQUIRE(both.entries.size() == 2);
  CHECK(pair.lost_content(lost.entries[0].state.id()) == alone);
  CHECK(pair.lost_content(both.entries[1].state.id()) == again);
}

TEST_CASE("a resync goes on while the primary writes, grows, shrinks and checkpoints; readers keep their snapshot") {
  Pair pair;
  pair.diverge({"UPDATE t SET b = randomblob(300) WHERE id % 10 = 0;"});
  Shell reader(pair.replica.file("app.db"), true);
  CHECK(reader.run("BEGIN; SELECT count(*) FROM t;") == "3000");
  const std::string before = reader.run("SELECT sum(length(a)), max(a) FROM t;");
  pair.write("UPDATE t SET a = 'moved on' WHERE id % 7 = 0;");
  int step = 0;
  REQUIRE_OK(pair.resync(kDiverged, [&] {
    ++step;
    if (step == 1) pair.write(rows(4000, 5000));
    if (step == 3) pair.write("DELETE FROM t WHERE id > 1000; VACUUM;");
    if (step == 4) CHECK(pair.writer->run("PRAGMA wal_checkpoint(TRUNCATE);") == "0|0|0");
    if (step == 5) pair.write(rows(1001, 2500));
    if (step > 5) pair.write("UPDATE t SET b = randomblob(300) WHERE id % 50 = " + std::to_string(step) + ";");
  }));
  CHECK(step > 8);
  CHECK(reader.run("SELECT sum(length(a)), max(a) FROM t;") == before);
  CHECK(reader.run("END; SELECT count(*) FROM t;") == "2500");
  pair.check_equal();
}

TEST_CASE("a position that is only too old keeps nothing, nor does a divergence to the same content") {
  Pair pair;
  pair.write("UPDATE t SET a = 'missed' WHERE id < 30;");
  SUBCASE("too old") { REQUIRE_OK(pair.resync("")); }
  SUBCASE("the same content") {
    pair.take_records();
    Pair::Travelled travelled = pair.resync("").value();
    CHECK(travelled.pages > 0);
    pair.diverge({"UPDATE t SET a = 'x' WHERE id = 1; UPDATE t SET a = 'missed' WHERE id = 1;"});
    travelled = pair.resync(kDiverged).value();
    CHECK(travelled.pages == 0);
    CHECK(travelled.sums < 10);
  }
  pair.check_equal();
  CHECK(pair.lost().entries.empty());
}

TEST_CASE("a replica whose file was written by somebody else while it was stopped keeps that, and is compared") {
  Pair pair;
  bool in_wal = false;
  SUBCASE("leaving a WAL behind") { in_wal = true; }
  SUBCASE("checkpointed") {}
  SUBCASE("checkpointed, and nothing had been applied since the replica was loaded") {
    REQUIRE_OK(pair.copy->set_aside_and_remove("for the test"));
    for (const LostStates::Entry& e : pair.lost().entries) {
      std::filesystem::remove(lost_manifest_path(pair.copy->paths().lost(), e.state.id()));
    }
    REQUIRE_OK(pair.resync(""));
  }
  const Position before = pair.copy->position();
  REQUIRE_OK(pair.copy->stop());
  pair.copy.reset();
  {
    Shell sqlite(pair.replica.file("app.db"));
    CHECK(sqlite.run("UPDATE t SET a = 'by hand' WHERE id = 77; INSERT INTO t VALUES(9999, 1, 2);") == "");
    if (in_wal) sqlite.kill9();
  }
  pair.restart_replica();
  const std::string by_hand = pair.replica_content();
  CHECK(pair.copy->position() != before);
  CHECK(pair.copy->info().received == pair.copy->position());
  REQUIRE(pair.lost().entries.size() == 1);
  const LostState lost = pair.lost().entries[0].state;
  CHECK(lost.diverged_at == before);
  CHECK(pair.lost_content(lost.id()) == by_hand);

  pair.write("DELETE FROM t WHERE id = 1;");
  Pair::Travelled travelled = pair.resync(kDiverged).value();
  CHECK(travelled.pages <= 8);
  pair.check_equal();
  CHECK(pair.lost().entries.size() == 1);
  CHECK(pair.lost_content(lost.id()) == by_hand);
}

TEST_CASE("a page that has changed under a running replica is found out, kept, and fetched anew") {
  Pair pair;
  REQUIRE_OK(pair.copy->stop());  // with a checkpoint
  std::filesystem::remove(pair.replica.file("app.db-wal"));
  pair.restart_replica();
  {
    auto file = pair.posix->open(pair.replica.file("app.db"), OpenMode::kReadWrite).value();
    REQUIRE_OK(file->write_at(4096 * 100 + 4000, as_bytes("rotten")));
  }
  REQUIRE_OK(pair.copy->stand_apart("for the test"));
  CHECK(pair.lost().entries.size() == 1);
  Pair::Travelled travelled = pair.resync(kDiverged).value();
  CHECK(travelled.pages == 1);
  pair.check_equal();
  CHECK(pair.lost().entries.size() == 1);
}

TEST_CASE("a reader with another history's schema gets an error, not another table's rows") {
  Pair pair;
  // The same schema version, and the same root page, for different tables.
  pair.diverge({"CREATE TABLE mine(a); INSERT INTO mine VALUES('mine');"});
  pair.write("CREATE TABLE theirs(a); INSERT INTO theirs VALUES('theirs');");
  Shell reader(pair.replica.file("app.db"), true);
  CHECK(reader.run("SELECT a FROM mine;") == "mine");
  REQUIRE_OK(pair.resync(kDiverged));
  const std::string answer = reader.run("SELECT a FROM mine;");
  CAPTURE(answer);
  CHECK(answer.find("theirs") == std::string::npos);
  reader.quit();
  pair.check_equal();
  pair.write(rows(1, 10));
  pair.replicate();
  pair.check_equal();
}

TEST_CASE("another page size leads to a whole copy, and the old state is kept") {
  Pair pair;
  const std::string old = pair.replica_content();
  CHECK(pair.writer->run("PRAGMA journal_mode=delete;") == "delete");
  pair.source->index_closed();
  pair.source->tail_unlinked();
  CHECK(pair.writer->run("PRAGMA page_size=1024; VACUUM; PRAGMA journal_mode=wal;") == "wal");
  REQUIRE_OK(pair.source->capture_file());
  CHECK(pair.writer->run("UPDATE t SET a = 'small pages' WHERE id = 3;") == "");
  REQUIRE_OK(pair.source->tail_opened(false));
  REQUIRE_OK(pair.source->tail_opened(true));
  pair.write("UPDATE t SET a = 'small pages again' WHERE id = 3;");
  REQUIRE(pair.source->info().page_size == 1024);
  Pair::Travelled travelled = pair.resync(kDiverged).value();
  CHECK(travelled.pages == pair.source->info().size_pages);
  pair.check_equal();
  REQUIRE(pair.lost().entries.size() == 1);
  CHECK(pair.lost_content(pair.lost().entries[0].state.id()) == old);
}

TEST_CASE("a replica killed at any operation on its files has its old state or the new one, and begins again") {
  uint64_t operations = 0;
  {
    Pair pair;
    pair.diverge({"UPDATE t SET a = 'alone' WHERE id % 100 = 0;"});
    pair.write("UPDATE t SET a = 'primary' WHERE id % 90 = 0;");
    pair.faults.plan({});
    REQUIRE_OK(pair.resync(kDiverged));
    operations = pair.faults.operations();
  }
  REQUIRE(operations > 20);
  Pair pair;
  int round = 0;
  constexpr FaultAction kActions[] = {FaultAction::kKillBefore, FaultAction::kKillHalf, FaultAction::kKillAfter};
  for (uint64_t at = 1; at <= operations; at += 2) {
    const FaultAction action = kActions[at % 3];
    CAPTURE(at);
    const std::string mark = "round" + std::to_string(++round);
    pair.diverge({"UPDATE t SET a = 'alone " + mark + "' WHERE id % 100 = 0;"});
    pair.write("UPDATE t SET a = '" + mark + "' WHERE id % 90 = 0;");
    const std::string old = pair.replica_content();
    const Position old_position = pair.copy->position();
    const std::string wanted = pair.content(pair.primary.file("app.db"));
    pair.faults.plan({.at = at, .action = action});
    try {
      static_cast<void>(pair.resync(kDiverged).ok());
    } catch (const Killed&) {
    }
    pair.faults.revive();
    pair.restart_replica();
    const std::string found = pair.replica_content();
    if (pair.copy->position() == old_position) {
      CHECK(found == old);
      REQUIRE_OK(pair.resync(kDiverged));
    } else {
      CHECK(pair.copy->position() == pair.source->position());
      CHECK(found == wanted);
    }
    pair.check_equal();
    REQUIRE(pair.lost().entries.size() == static_cast<size_t>(round));
    const LostState lost = pair.lost().entries.back().state;
    CHECK(lost.position == old_position);
    CHECK(pair.lost_content(lost.id()) == old);
    std::filesystem::remove(lost_image_path(pair.copy->paths().lost(), lost.id()));  // room
  }
}

TEST_CASE("a position that the log has forgotten is known to have been one, until another history begins") {
  TempDir dir;
  auto files = posix_file_system();
  PastPositions past(*files, dir.file("past"));
  auto at = [](uint64_t n) { return Position{Epoch{n / 1000 + 1}, TxId{n}, Checksum{n * 7}}; };
  CHECK_FALSE(past.has(at(1)).value());
  std::vector<Position> some;
  for (uint64_t n = 5; n <= 2000; ++n) some.push_back(at(n));
  REQUIRE_OK(past.add(some));
  REQUIRE_OK(past.add({at(1990), at(2000), at(2001)}));  // told again after a crash
  for (uint64_t n = 0; n < 2100; ++n) {
    CHECK(past.has(at(n)).value() == (n >= 5 && n <= 2001));
    CHECK_FALSE(past.has(Position{at(n).epoch, at(n).txid, Checksum{1}}).value());
    CHECK_FALSE(past.has(Position{Epoch{9}, at(n).txid, at(n).checksum}).value());
  }
  {
    auto file = files->open(dir.file("past"), OpenMode::kReadWrite).value();
    REQUIRE_OK(file->truncate(file->info().value().size_bytes - 5));
  }
  CHECK_FALSE(past.has(at(2001)).value());
  CHECK(past.has(at(2000)).value());
  REQUIRE_OK(past.add({at(2001), at(2002)}));
  CHECK(past.has(at(2001)).value());
  some.clear();
  for (uint64_t n = 3000; n < 3000 + kPastEntriesMax; ++n) some.push_back(at(n));
  REQUIRE_OK(past.add(some));
  REQUIRE_OK(past.add({at(5'000'000)}));
  CHECK(past.has(at(5'000'000)).value());
  CHECK(past.has(some.back()).value());
  CHECK_FALSE(past.has(at(2000)).value());
  REQUIRE_OK(past.clear());
  CHECK_FALSE(past.has(some.back()).value());
}

TEST_CASE("a copy that does not meet its checksum, and pages that do not belong to it, change nothing") {
  Pair pair;
  pair.diverge({"UPDATE t SET a = 'alone' WHERE id = 5;"});
  const Position before = pair.copy->position();
  const std::string content = pair.replica_content();
  DatabaseInfo from = pair.source->info();
  LoadStart start{.id = from.id,
                  .start = from.position,
                  .total_bytes = 0,
                  .page_size = from.page_size,
                  .size_pages = from.size_pages,
                  .compares = true,
                  .keep_because = kDiverged};
  REQUIRE_OK(pair.copy->begin_load(start));
  auto piece = [&](Pgno pgno, uint32_t page_size) {
    Bytes out;
    ByteWriter w(out);
    w.le32(page_size);
    w.le32(pgno);
    w.bytes(Bytes(page_size, 1));
    return out;
  };
  SUBCASE("nothing comes") {}
  SUBCASE("a page beyond the size") { CHECK_FALSE(pair.copy->load_pages(piece(from.size_pages + 1, 4096)).ok()); }
  SUBCASE("page 0") { CHECK_FALSE(pair.copy->load_pages(piece(0, 4096)).ok()); }
  SUBCASE("another page size") { CHECK_FALSE(pair.copy->load_pages(piece(1, 1024)).ok()); }
  SUBCASE("a page twice") {
    CHECK(pair.copy->load_pages(piece(2, 4096)).ok());
    CHECK_FALSE(pair.copy->load_pages(piece(2, 4096)).ok());
  }
  SUBCASE("a wrong page") { CHECK(pair.copy->load_pages(piece(2, 4096)).ok()); }
  CHECK_FALSE(pair.copy->end_load(from.position).ok());
  pair.copy->abort_load();
  CHECK(pair.copy->position() == before);
  CHECK(pair.replica_content() == content);
  REQUIRE_OK(pair.resync(kDiverged));
  pair.check_equal();
}
