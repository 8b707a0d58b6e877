// Copies of a database in a rollback mode, made in the middle of its transactions.
#include <sqlite3.h>

#include <atomic>
#include <thread>

#include "db/capture_vfs.h"
#include "db/page_copier.h"
#include "node_fixture.h"

using namespace litefs;
using namespace litefs::test;

namespace {

constexpr size_t kPiecePages = 20;
constexpr int kBusyTriesMax = 100000;

#define REQUIRE_OK(expression)                           \
  do {                                                   \
    auto status = (expression);                          \
    INFO((status.ok() ? "" : status.error().message())); \
    REQUIRE(status.ok());                                \
  } while (false)

std::string fill(int rows) {
  return "WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < " + std::to_string(rows) +
         ") INSERT OR REPLACE INTO t SELECT i, randomblob(900) FROM c";
}

// An application on a primary, and a replica that copies from it.
struct Story {
  explicit Story(const std::string& mode, bool unseen = false) : mode_(mode) {
    vfs.set_databases([this](const std::string&) { return db; });
    vfs.set_unseen(unseen);
    db->set_writes_unseen(unseen);
    open();
    exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    exec(fill(2000));
  }
  ~Story() { sqlite3_close(app); }

  void open() {
    REQUIRE(sqlite3_open_v2(primary.file("app.db").c_str(), &app, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                            "copies") == SQLITE_OK);
    exec("PRAGMA secure_delete=OFF; PRAGMA cache_size=5; PRAGMA journal_mode=" + mode_);
  }
  bool try_exec(const std::string& sql) {
    return sqlite3_exec(app, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK;
  }
  void exec(const std::string& sql) {
    const bool done = try_exec(sql);
    INFO(sql, ": ", sqlite3_errmsg(app));
    REQUIRE(done);
  }

  // Gives the replica the records that it has not got yet.
  void replicate(Position* from) {
    std::unique_ptr<LogCursor> cursor = db->read_log_after(*from).value();
    while (cursor->next().value()) {
      Bytes record(cursor->info().record_bytes);
      REQUIRE_OK(cursor->record().read(0, record));
      REQUIRE_OK(copy->apply({record}));
      *from = cursor->info().position;
    }
  }
  // The XOR over all pages, each of which has been compared with its hash.
  Checksum checksum(const std::shared_ptr<Database>& of) {
    PageCopier copier(of);
    Checksum sum;
    Pgno next = 1;
    for (;;) {
      Bytes piece = copier.read_from(&next, kPiecePages).value();
      if (piece.empty()) return sum;
      const size_t page_size = load_le32(piece.data());
      for (size_t at = 4; at < piece.size(); at += 4 + page_size) {
        sum ^= page_hash(load_le32(piece.data() + at), ByteView(piece).subspan(at + 4, page_size));
      }
    }
  }
  void begin_load(const Position& start) {
    REQUIRE_OK(copy->begin_load({.id = db->id(), .start = start, .keep_because = {}}));
  }

  std::string mode_;
  TempDir primary_dir, replica_dir;
  TestNode primary{primary_dir.path()};
  TestNode replica{replica_dir.path(), nullptr, NodeId{8}};
  std::shared_ptr<Database> db = primary.start_primary("app.db", 1);
  std::shared_ptr<Database> copy = replica.start_replica("app.db");
  CaptureVfs vfs{"copies"};
  sqlite3* app = nullptr;
};

}  // namespace

TEST_CASE("a copy takes the pages that a transaction in flight has spilled as they were before it") {
  for (const std::string mode : {"DELETE", "TRUNCATE", "PERSIST"}) {
    for (const std::string synchronous : {"OFF", "FULL"}) {
      for (bool unseen : {false, true}) {
        CAPTURE(mode);
        CAPTURE(synchronous);
        CAPTURE(unseen);
        Story story(mode, unseen);
        story.exec("PRAGMA synchronous=" + synchronous);
        const Checksum before = story.db->position().checksum;
        for (const std::string end : {"ROLLBACK", "COMMIT"}) {
          story.exec("BEGIN; UPDATE t SET v = randomblob(900)");
          story.exec(fill(2500));
          // Some of it is in the database file now.
          CHECK(story.checksum(story.db) == before);
          CHECK(story.db->position().checksum == before);
          story.exec(end);
          CHECK(story.checksum(story.db) == story.db->position().checksum);
        }
        CHECK(story.db->position().checksum != before);
      }
    }
  }
}

TEST_CASE("a copy stops before a page that SQLite does not journal, and goes on after the transaction") {
  for (const std::string end : {"ROLLBACK", "COMMIT"}) {
    CAPTURE(end);
    Story story("DELETE");
    // Free pages in the middle, which SQLite uses again without having read them.
    story.exec("CREATE TABLE u(v)");
    story.exec("DELETE FROM t WHERE id BETWEEN 500 AND 1500");
    Position at = story.db->position();
    story.begin_load(at);
    story.exec("BEGIN");
    for (int i = 0; i < 300; ++i) story.exec("INSERT INTO u VALUES(randomblob(900))");
    PageCopier copier(story.db);
    Pgno next = 1;
    auto load = [&] {
      for (;;) {
        Result<Bytes> piece = copier.read_from(&next, kPiecePages);
        if (!piece.ok()) return piece.error().code();
        if (piece.value().empty()) return ErrorCode::kNotFound;
        REQUIRE_OK(story.copy->load_pages(piece.value()));
      }
    };
    REQUIRE(load() == ErrorCode::kBusy);
    const Pgno stands_at = next;
    CHECK(stands_at > 20);
    CHECK(stands_at < story.db->info().size_pages);
    REQUIRE(load() == ErrorCode::kBusy);
    CHECK(next == stands_at);
    story.exec(end);
    REQUIRE(load() == ErrorCode::kNotFound);
    REQUIRE_OK(story.copy->end_load(story.db->position()));
    story.replicate(&at);
    CHECK_FALSE(story.copy->loading());
    CHECK(story.copy->position() == story.db->position());
    CHECK(story.checksum(story.copy) == story.db->position().checksum);
  }
}

TEST_CASE("copies are made beside an application that never rests") {
  for (const std::string mode : {"DELETE", "TRUNCATE", "PERSIST"}) {
    CAPTURE(mode);
    Story story(mode);
    std::atomic<bool> over{false};
    std::thread writer([&] {
      for (int i = 0; !over; ++i) {
        const std::string n = std::to_string(i % 2000 + 1);
        // Small ones, and such as spill, reuse free pages, or are taken back.
        story.try_exec("UPDATE t SET v = randomblob(900) WHERE id = " + n);
        if (i % 10 == 0)
          story.try_exec("BEGIN; UPDATE t SET v = randomblob(900) WHERE id % 7 = " + std::to_string(i / 10 % 7) +
                         "; COMMIT");
        if (i % 25 == 0) story.try_exec("BEGIN; DELETE FROM t WHERE id < " + n + "; ROLLBACK");
        if (i % 50 == 0) story.try_exec("DELETE FROM t WHERE id % 5 = 0");
        if (i % 50 == 25) story.try_exec(fill(2000));
      }
    });
    int copies = 0;
    int64_t busy = 0;
    for (; copies < 40; ++copies) {
      Position at = story.db->position();
      story.begin_load(at);
      PageCopier copier(story.db);
      Pgno next = 1;
      for (int tries = 0;;) {
        Result<Bytes> piece = copier.read_from(&next, kPiecePages);
        if (!piece.ok()) {
          if (piece.error().code() != ErrorCode::kBusy || ++tries > kBusyTriesMax) break;
          ++busy;
          std::this_thread::yield();
          continue;
        }
        tries = 0;
        if (piece.value().empty()) break;
        Status loaded = story.copy->load_pages(piece.value());
        CHECK(loaded.ok());
      }
      const Position end = story.db->position();
      CHECK(next > 100);
      CHECK(story.copy->end_load(end).ok());
      story.replicate(&at);
      CHECK_FALSE(story.copy->loading());
    }
    over = true;
    writer.join();
    CHECK(story.vfs.take_refusal() == "");
    Position at = story.copy->position();
    story.replicate(&at);
    CHECK(story.copy->position() == story.db->position());
    CHECK(story.checksum(story.copy) == story.db->position().checksum);
    MESSAGE(mode, ": ", copies, " copies up to TXID ", story.db->position().txid.value, ", not settled ", busy,
            " times");
  }
}
