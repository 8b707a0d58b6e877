// WalWriter processes that are killed, and what is found afterwards.
#include <thread>

#include "replica.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

struct KilledReplica : Replica {
  size_t applied = 0;  // transactions that are known to be published

  KilledReplica(const HistoryPlan& plan, std::mt19937_64& random) : Replica(plan, random()) {}

  // Lets a process apply at least `count` transactions, if there are so many, then kills it.
  void run_writer_and_kill(uint64_t count, std::mt19937_64& random) {
    count = std::min<uint64_t>(count, history.transactions.size() - applied);
    Child writer({"writer", dir.file("source.wal"), path, std::to_string(history.page_size), std::to_string(applied),
                  std::to_string(random())});
    size_t published = writer.receive_bytes(count);
    for (uint64_t i = random() % 100; i > 0; --i) std::this_thread::yield();
    writer.kill_now();
    published += writer.receive_bytes(SIZE_MAX);
    applied += published;
    REQUIRE(published >= count);
  }

  void check_state() {
    SqliteProcess app(path);
    CHECK(app.value("PRAGMA integrity_check") == "ok");
    int64_t n = std::stoll(app.value("SELECT n FROM meta"));
    size_t next = std::min(applied + 1, history.transactions.size());
    // The transaction whose publication was not reported may be there.
    CHECK((n == n_after(applied) || n == n_after(next)));
    CHECK(app.value("SELECT n || '|' || rows || '|' || total FROM meta") ==
          app.value("SELECT (SELECT n FROM meta) || '|' || count(*) || '|' || ifnull(sum(h), 0) FROM t"));
  }
};

}  // namespace

TEST_CASE("a writer killed at any moment leaves a published state, which the next one goes on from") {
  std::mt19937_64 random(test_seed("killed writer"));
  for (uint32_t page_size : {512u, 4096u, 65536u}) {
    CAPTURE(page_size);
    KilledReplica replica({.page_size = page_size, .transactions = 300, .vacuum_every = 60}, random);
    for (int round = 0; round < 12 && replica.applied < replica.history.transactions.size(); ++round) {
      // In half of the rounds somebody keeps the wal-index alive, so that it is not recovered but
      // adopted.
      std::unique_ptr<SqliteProcess> reader;
      if (round % 2 == 0) {
        reader = std::make_unique<SqliteProcess>(replica.path);
        reader->exec("SELECT n FROM meta");
        if (round % 4 == 0) reader->exec("BEGIN; SELECT n FROM meta");
      }
      replica.run_writer_and_kill(random() % 40, random);
      if (reader) CHECK(reader->value("PRAGMA integrity_check") == "ok");
      auto writer = attach_writer(replica.path, page_size);
      if (!writer.ok()) {
        // It died between the two copies of the header; recovery waits for readers to leave.
        REQUIRE(writer.error().code() == ErrorCode::kBusy);
        REQUIRE(reader);
        continue;
      }
      replica.check_state();
      if (random() % 2 == 0) CHECK(writer.value()->checkpoint(false).ok());
      replica.check_state();
      if (reader) CHECK(reader->value("PRAGMA integrity_check") == "ok");
    }
    {
      auto writer = attach_writer(replica.path, page_size).value();
      for (size_t i = replica.applied; i < replica.history.transactions.size(); ++i) {
        apply(*writer, replica.history.transactions[i]);
      }
      CheckpointOutcome outcome = writer->checkpoint(true).value();
      CHECK(outcome.backfilled == outcome.max_frame);
      CHECK(writer->size_pages() == replica.history.transactions.back().size_pages);
    }
    CHECK(read_file(replica.path) == replica.history.last);
  }
}

TEST_CASE("SQLite takes over from a killed writer") {
  std::mt19937_64 random(test_seed("takeover"));
  KilledReplica replica({.transactions = 100}, random);
  replica.run_writer_and_kill(50, random);
  SqliteProcess app(replica.path);
  CHECK(app.value("PRAGMA integrity_check") == "ok");
  int64_t n = std::stoll(app.value("SELECT n FROM meta"));
  CHECK((n == replica.n_after(replica.applied) || n == replica.n_after(replica.applied + 1)));
  app.exec("UPDATE meta SET n = -1; PRAGMA wal_checkpoint(TRUNCATE)");
  CHECK(app.value("PRAGMA integrity_check") == "ok");
  CHECK(app.value("SELECT n FROM meta") == "-1");
}
