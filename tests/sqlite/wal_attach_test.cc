// How a WalWriter finds its files, and what it makes of them.
#include "replica.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

Bytes page_of(const Bytes& file, Pgno pgno, uint32_t page_size) {
  return Bytes(file.begin() + static_cast<ptrdiff_t>((pgno - 1) * page_size),
               file.begin() + static_cast<ptrdiff_t>(pgno * page_size));
}

}  // namespace

TEST_CASE("a writer goes on in the WAL that SQLite left, alive or dead") {
  Replica replica({.transactions = 10});
  copy_file(replica.dir.file("source.wal"), replica.path + "-wal");
  SqliteProcess app;
  for (bool alive : {false, true}) {
    if (alive) {
      app.open(replica.path);
      app.exec("SELECT n FROM meta");
    }
    auto writer = replica.attach();
    CHECK(writer->end() == replica.scan().end);
    CHECK(writer->size_pages() == replica.history.transactions.back().size_pages);
    for (Pgno pgno = 1; pgno <= writer->size_pages(); ++pgno) {
      Bytes page(4096);
      writer->read_page(pgno, page).value();
      CHECK(page == page_of(replica.history.last, pgno, 4096));
    }
    uint32_t frame = writer->end().frame;
    replica.apply_range(*writer, 9, 10);
    CHECK(writer->end().frame == frame + replica.history.transactions[9].frames.size());
    SqliteProcess reader(replica.path);
    CHECK(reader.value("PRAGMA integrity_check") == "ok");
  }
}

TEST_CASE("without a WAL the size is the database's, and a generation begins") {
  Replica replica({.transactions = 3});
  auto writer = replica.attach();
  CHECK(writer->end().frame == 0);
  CHECK(writer->size_pages() == replica.history.first.size() / 4096);
  CHECK(writer->frames_to_checkpoint() == 0);
  Bytes page(4096);
  writer->read_page(1, page).value();
  CHECK(page == page_of(replica.history.first, 1, 4096));
  writer->read_page(100000, page).value();
  CHECK(page == Bytes(4096));
  SqliteProcess reader(replica.path);
  CHECK(reader.value("SELECT n FROM meta") == "0");
  CHECK(writer->checkpoint(true).value().max_frame == 0);
  replica.apply_range(*writer, 0, 3);
  CHECK(writer->end() == replica.scan().end);
  CHECK(reader.value("SELECT n FROM meta") == "3");
}

TEST_CASE("a left-over wal-index that nobody holds is not believed") {
  Replica replica({.transactions = 10});
  {
    auto writer = replica.attach();
    replica.apply_range(*writer, 0, 10);
  }
  Bytes garbage = read_file(replica.path + "-shm");
  for (size_t i = 136; i < garbage.size(); ++i) garbage[i] = static_cast<uint8_t>(i * 7);
  write_file(replica.path + "-shm", garbage);
  auto writer = replica.attach();
  CHECK(writer->end() == replica.scan().end);
  SqliteProcess reader(replica.path);
  CHECK(reader.value("PRAGMA integrity_check") == "ok");
  CHECK(reader.value("SELECT n FROM meta") == "10");
}

TEST_CASE("a header that its writer did not finish is recovered when readers are gone") {
  Replica replica({.transactions = 10});
  SqliteProcess reader(replica.path);
  {
    auto writer = replica.attach();
    replica.apply_range(*writer, 0, 10);
    reader.exec("BEGIN; SELECT n FROM meta");
  }
  auto shm = posix_file_system()->open(replica.path + "-shm", OpenMode::kReadWrite).value();
  shm->write_at(kWalIndexHeaderBytes, Bytes(kWalIndexHeaderBytes, 1)).value();
  CHECK(replica.attach_error() == ErrorCode::kBusy);
  CHECK(reader.value("SELECT n FROM meta") == "10");
  reader.exec("COMMIT");
  auto writer = replica.attach();
  CHECK(writer->end() == replica.scan().end);
  CHECK(reader.value("SELECT n FROM meta") == "10");
  CHECK(reader.value("PRAGMA integrity_check") == "ok");
}

TEST_CASE("a wal-index that does not fit the WAL is an error") {
  Replica replica({.transactions = 10});
  SqliteProcess reader(replica.path);
  {
    auto writer = replica.attach();
    replica.apply_range(*writer, 0, 10);
    reader.exec("SELECT n FROM meta");
  }
  auto shm = posix_file_system()->open(replica.path + "-shm", OpenMode::kReadWrite).value();
  Bytes bytes(2 * kWalIndexHeaderBytes);
  shm->read_exactly(0, bytes).value();
  WalIndexHeader header = *WalIndexHeader::parse(bytes);
  header.frame_checksum.a ^= 1;
  header.store_copy(bytes.data());
  header.store_copy(bytes.data() + kWalIndexHeaderBytes);
  shm->write_at(0, bytes).value();
  CHECK(replica.attach_error() == ErrorCode::kCorrupt);
}

TEST_CASE("the index that we recover is the one that SQLite recovers") {
  Replica replica({.page_size = 512, .transactions = 20, .big_rows = 3000});
  copy_file(replica.dir.file("source.wal"), replica.path + "-wal");
  Bytes ours;
  {
    auto writer = replica.attach();
    ours = read_file(replica.path + "-shm");
  }
  SqliteProcess app(replica.path);
  app.exec("BEGIN; SELECT n FROM meta");
  Bytes theirs = read_file(replica.path + "-shm");
  CHECK(ours.size() == theirs.size());
  CHECK(ours.size() >= 2 * kWalIndexBlockBytes);
  CHECK(ours == theirs);
}

TEST_CASE("what is no database in WAL mode with this page size is refused") {
  Replica replica({.transactions = 2});
  CHECK(attach_writer(replica.path, 512).error().code() == ErrorCode::kInvalid);
  copy_file(replica.dir.file("source.wal"), replica.path + "-wal");
  CHECK(attach_writer(replica.path, 512).error().code() == ErrorCode::kInvalid);
  std::string other = replica.dir.file("other.db");
  {
    SqliteProcess app(other);
    app.exec("CREATE TABLE t(a)");
  }
  CHECK(attach_writer(other, 4096).error().code() == ErrorCode::kInvalid);
  write_file(other, {});
  CHECK(attach_writer(other, 4096).error().code() == ErrorCode::kInvalid);
}
