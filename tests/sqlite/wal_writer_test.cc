#include "sqlite/wal_writer.h"

#include "replica.h"
#include "sqlite/header.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

constexpr int kSqliteBusy = 5;

}  // namespace

TEST_CASE("a replica follows its source byte for byte while others read and checkpoint") {
  uint64_t seed = test_seed("replica");
  std::mt19937_64 random(seed);
  for (uint32_t page_size : {512u, 4096u, 65536u}) {
    CAPTURE(page_size);
    // With small pages the big transaction needs several blocks of the wal-index.
    Replica replica(
        {.page_size = page_size, .transactions = 300, .vacuum_every = 70, .big_rows = page_size == 512 ? 4000 : 500},
        seed);
    auto writer = replica.attach();
    Child reader({"reader", replica.path, "0"});
    Child checkpointer({"reader", replica.path, "1"});
    CHECK(reader.receive() == "reading");
    CHECK(checkpointer.receive() == "reading");
    uint32_t restarts = 0;
    for (const Transaction& t : replica.history.transactions) {
      WalSalts before = writer->end().salts;
      apply(*writer, t);
      if (writer->end().salts != before) ++restarts;
      CHECK(writer->size_pages() == t.size_pages);
      if (random() % 10 != 0) continue;
      Result<CheckpointOutcome> outcome = writer->checkpoint(random() % 8 == 0);
      if (!outcome.ok()) CHECK(outcome.error().code() == ErrorCode::kBusy);
    }
    for (Child* child : {&reader, &checkpointer}) {
      child->send("stop");
      std::string rounds = child->receive();
      CHECK(rounds.rfind("wrong", 0) == std::string::npos);
      INFO(rounds);
      child->finish();
    }
    CHECK(restarts > 0);
    CheckpointOutcome outcome = writer->checkpoint(true).value();
    CHECK(outcome.backfilled == outcome.max_frame);
    CHECK(writer->frames_to_checkpoint() == 0);
    CHECK(read_file(replica.path) == replica.history.last);
  }
}

TEST_CASE("a long reader keeps its snapshot while transactions are published and checkpointed") {
  Replica replica({.transactions = 120});
  auto writer = replica.attach();
  replica.apply_range(*writer, 0, 40);
  uint32_t reader_frame = writer->end().frame;
  SqliteProcess reader(replica.path);
  const std::string look = "SELECT n || '|' || rows || '|' || total || '|' || (SELECT sum(length(v)) FROM t) FROM meta";
  reader.exec("BEGIN");
  std::string seen = reader.value(look);
  CHECK(seen.rfind(std::to_string(replica.n_after(40)) + "|", 0) == 0);

  replica.apply_range(*writer, 40, 80);
  CheckpointOutcome outcome = writer->checkpoint(false).value();
  CHECK(outcome.backfilled == reader_frame);
  CHECK(outcome.max_frame == writer->end().frame);
  CHECK(writer->frames_to_checkpoint() == outcome.max_frame - reader_frame);
  CHECK(reader.value(look) == seen);
  CHECK(reader.value("PRAGMA integrity_check") == "ok");
  SqliteProcess other(replica.path);
  CHECK(other.value("SELECT n FROM meta") == std::to_string(replica.n_after(80)));
  replica.apply_range(*writer, 80, 81);
  CHECK(writer->end().frame > outcome.max_frame);

  reader.exec("COMMIT");
  CHECK(reader.value("SELECT n FROM meta") == std::to_string(replica.n_after(81)));
  outcome = writer->checkpoint(false).value();
  CHECK(outcome.backfilled == outcome.max_frame);
  WalAnchor old = writer->end();
  replica.apply_range(*writer, 81, 82);
  CHECK(writer->end().salts.salt1 == old.salts.salt1 + 1);
  CHECK(writer->end().salts.salt2 != old.salts.salt2);
  CHECK(writer->end().frame == replica.history.transactions[81].frames.size());
  CHECK(reader.value("SELECT n FROM meta") == std::to_string(replica.n_after(82)));
  CHECK(other.value("PRAGMA integrity_check") == "ok");

  // A reader of all that is in the WAL lets it be moved, but not be restarted.
  reader.exec("BEGIN");
  seen = reader.value(look);
  outcome = writer->checkpoint(false).value();
  CHECK(outcome.backfilled == outcome.max_frame);
  WalSalts salts = writer->end().salts;
  replica.apply_range(*writer, 82, 83);
  CHECK(writer->end().salts == salts);
  CHECK(writer->end().frame > outcome.max_frame);
  CHECK(reader.value(look) == seen);
  reader.exec("COMMIT");

  // A reader of the database alone keeps the WAL from being moved there, but not from growing.
  replica.apply_range(*writer, 83, 90);
  CHECK(writer->checkpoint(false).value().backfilled == writer->end().frame);
  reader.exec("BEGIN");
  seen = reader.value(look);
  replica.apply_range(*writer, 90, 100);
  CHECK(writer->checkpoint(false).value().backfilled == 0);
  CHECK(reader.value(look) == seen);
  reader.exec("COMMIT");
  replica.apply_range(*writer, 100, 120);
  writer.reset();
  CHECK(other.value("SELECT n FROM meta") == std::to_string(replica.n_after(120)));
}

TEST_CASE("applications can read but not write beside a writer, and do all when it is gone") {
  Replica replica({.transactions = 20});
  SqliteProcess app(replica.path);
  app.exec("BEGIN IMMEDIATE");
  CHECK(replica.attach_error() == ErrorCode::kBusy);
  app.exec("COMMIT");
  {
    auto writer = replica.attach();
    CHECK(replica.attach_error() == ErrorCode::kBusy);
    replica.apply_range(*writer, 0, 20);
    CHECK(app.run("UPDATE meta SET n = -1").code == kSqliteBusy);
    CHECK(app.value("SELECT n FROM meta") == std::to_string(replica.n_after(20)));
    // Not even the last connection takes the files with it.
    app.close();
    CHECK(posix_file_system()->exists(replica.path + "-wal").value());
    app.open(replica.path);
  }
  app.exec("UPDATE meta SET n = -1");
  CHECK(app.value("PRAGMA integrity_check") == "ok");
  app.close();
  CHECK_FALSE(posix_file_system()->exists(replica.path + "-wal").value());
  app.open(replica.path);
  CHECK(app.value("SELECT n FROM meta") == "-1");
  app.exec("PRAGMA locking_mode=EXCLUSIVE; BEGIN IMMEDIATE; COMMIT");
  CHECK(replica.attach_error() == ErrorCode::kBusy);
}

TEST_CASE("a transaction can be seen only when it is published") {
  Replica replica({.transactions = 3});
  auto writer = replica.attach();
  replica.apply_range(*writer, 0, 1);
  SqliteProcess reader(replica.path);
  WalAnchor old = writer->end();
  const Transaction& t = replica.history.transactions[1];
  writer->begin().value();
  for (const auto& [pgno, page] : t.frames) writer->add_page(pgno, page).value();
  WalAnchor next = writer->prepare(t.size_pages).value();
  CHECK(next.frame == old.frame + t.frames.size());
  CHECK(writer->end() == old);
  CHECK(replica.scan().end == old);  // nor would a crash publish it
  CHECK(reader.value("SELECT n FROM meta") == "1");
  writer->publish().value();
  CHECK(writer->end() == next);
  CHECK(replica.scan().end == next);
  CHECK(reader.value("SELECT n FROM meta") == "2");
}

TEST_CASE("an aborted transaction leaves nothing behind, however large") {
  Replica replica({.transactions = 30});
  auto writer = replica.attach();
  replica.apply_range(*writer, 0, 5);
  SqliteProcess reader(replica.path);
  std::mt19937_64 random(7);
  Bytes page(4096);
  for (size_t i = 5; i < 30; ++i) {
    WalAnchor old = writer->end();
    writer->begin().value();
    for (uint64_t k = random() % (i % 5 == 0 ? 6000 : 10); k-- > 0;) {
      for (size_t b = 0; b < page.size(); b += 512) store_le64(page.data() + b, random());
      writer->add_page(static_cast<Pgno>(1 + random() % 50), page).value();
    }
    if (i % 2 == 0) (void)writer->prepare(10);
    writer->abort();
    CHECK(writer->end() == old);
    if (i % 7 == 0) CHECK(reader.value("PRAGMA integrity_check") == "ok");
    replica.apply_range(*writer, i, i + 1);
    CHECK(reader.value("SELECT n FROM meta") == std::to_string(replica.n_after(i + 1)));
  }
  CHECK(writer->checkpoint(false).value().backfilled == writer->end().frame);
  CHECK(read_file(replica.path) == replica.history.last);
}

TEST_CASE("of two images of a page the later wins") {
  Replica replica({.transactions = 2});
  auto writer = replica.attach();
  const Transaction& t = replica.history.transactions[0];
  writer->begin().value();
  for (const auto& [pgno, page] : t.frames) writer->add_page(pgno, Bytes(4096, 0xab)).value();
  for (const auto& [pgno, page] : t.frames) writer->add_page(pgno, page).value();
  CHECK(writer->prepare(t.size_pages).ok());
  writer->publish().value();
  SqliteProcess reader(replica.path);
  CHECK(reader.value("PRAGMA integrity_check") == "ok");
  CHECK(reader.value("SELECT n FROM meta") == "1");
  Bytes page(4096);
  writer->read_page(t.frames[0].first, page).value();
  CHECK(page == t.frames.back().second);
}

TEST_CASE("a transaction of nothing, and pages that cannot be, are refused") {
  Replica replica({.transactions = 2});
  auto writer = replica.attach();
  Bytes page(4096);
  writer->begin().value();
  CHECK(writer->prepare(1).error().code() == ErrorCode::kInvalid);
  writer->abort();
  writer->begin().value();
  CHECK(writer->add_page(0, page).error().code() == ErrorCode::kInvalid);
  writer->abort();
  writer->begin().value();
  CHECK(writer->add_page(lock_page(4096), page).error().code() == ErrorCode::kInvalid);
  writer->abort();
  writer->begin().value();
  writer->add_page(1, page).value();
  CHECK(writer->prepare(0).error().code() == ErrorCode::kInvalid);
  writer->abort();
  replica.apply_range(*writer, 0, 2);
  SqliteProcess reader(replica.path);
  CHECK(reader.value("SELECT n FROM meta") == "2");
}

TEST_CASE("the mount is told before readers may rely on a checkpoint") {
  Replica replica({.transactions = 30, .vacuum_every = 10});
  std::vector<std::string> told;
  bool refuse = false;
  WalWriterOptions options;
  options.on_write = [&]() -> Status {
    told.push_back("write");
    if (refuse) return Error(ErrorCode::kIo, "the kernel is not there");
    return {};
  };
  options.on_resize = [&]() -> Status {
    told.push_back("resize");
    return {};
  };
  auto writer = replica.attach(options);
  replica.apply_range(*writer, 0, 20);
  refuse = true;
  CHECK(writer->checkpoint(false).value().backfilled == 0);
  CHECK(told == std::vector<std::string>{"write"});
  refuse = false;
  told.clear();
  CHECK(writer->checkpoint(false).value().backfilled == writer->end().frame);
  told.clear();
  CHECK(writer->checkpoint(false).ok());
  CHECK(told.empty());
  for (size_t i = 20; i < 30; ++i) {
    uint64_t size = writer->database_file().info().value().size_bytes;
    replica.apply_range(*writer, i, i + 1);
    told.clear();
    CHECK(writer->checkpoint(true).ok());
    bool resized = writer->database_file().info().value().size_bytes != size;
    CHECK(told == (resized ? std::vector<std::string>{"write", "resize"} : std::vector<std::string>{"write"}));
  }
}

TEST_CASE("another's checkpoint is respected") {
  Replica replica({.transactions = 30});
  auto writer = replica.attach();
  replica.apply_range(*writer, 0, 20);
  auto files = posix_file_system();
  auto door = direct_lock_door(*files, replica.path).value();
  {
    HeldLock lock = HeldLock::take(*door, LockFile::kShm, kWalCheckpointLock, 1, LockKind::kExclusive).value();
    CHECK(writer->checkpoint(false).error().code() == ErrorCode::kBusy);
  }
  SqliteProcess app(replica.path);
  app.exec("PRAGMA wal_checkpoint(PASSIVE)");
  CHECK(writer->frames_to_checkpoint() == 0);
  {
    // Whoever checkpoints may have the old header in mind: no restart under it.
    HeldLock lock = HeldLock::take(*door, LockFile::kShm, kWalCheckpointLock, 1, LockKind::kExclusive).value();
    uint32_t frame = writer->end().frame;
    replica.apply_range(*writer, 20, 21);
    CHECK(writer->end().frame > frame);
  }
  app.exec("PRAGMA wal_checkpoint(PASSIVE)");
  replica.apply_range(*writer, 21, 22);
  CHECK(writer->end().frame == replica.history.transactions[21].frames.size());
  replica.apply_range(*writer, 22, 30);
  CHECK(app.value("PRAGMA integrity_check") == "ok");
}
