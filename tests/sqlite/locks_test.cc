#include "sqlite/locks.h"

#include "child.h"
#include "history.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

std::string make_database(const TempDir& dir, const std::string& mode) {
  std::string path = dir.file("a.db");
  SqliteProcess app(path);
  app.exec("PRAGMA journal_mode=" + mode);
  app.exec("CREATE TABLE t(a)");
  return path;
}

constexpr int kSqliteBusy = 5;

}  // namespace

TEST_CASE("our SHARED lock lets SQLite read and reserve, but not write the database") {
  TempDir dir;
  std::string path = make_database(dir, "DELETE");
  auto files = posix_file_system();
  auto door = direct_lock_door(*files, path).value();
  SqliteProcess app(path);
  {
    HeldLock shared = take_shared(*door).value();
    CHECK(app.run("SELECT * FROM t").code == 0);
    CHECK(app.run("INSERT INTO t VALUES(1)").code == kSqliteBusy);
  }
  CHECK(app.run("INSERT INTO t VALUES(1)").code == 0);
}

TEST_CASE("SHARED is refused while SQLite holds EXCLUSIVE or waits in PENDING") {
  TempDir dir;
  std::string path = make_database(dir, "DELETE");
  auto files = posix_file_system();
  auto door = direct_lock_door(*files, path).value();
  SqliteProcess app(path);
  app.exec("BEGIN EXCLUSIVE");
  CHECK(take_shared(*door).error().code() == ErrorCode::kBusy);
  app.exec("COMMIT");

  SqliteProcess reader(path);
  reader.exec("BEGIN; SELECT * FROM t");
  app.exec("BEGIN; INSERT INTO t VALUES(1)");
  CHECK(app.run("COMMIT").code == kSqliteBusy);  // now it holds PENDING
  CHECK(take_shared(*door).error().code() == ErrorCode::kBusy);
  reader.exec("COMMIT");
  app.exec("COMMIT");
  CHECK(take_shared(*door).ok());
}

TEST_CASE("our WAL_WRITE keeps SQLite from writing, and SQLite's keeps us") {
  TempDir dir;
  std::string path = make_database(dir, "WAL");
  auto files = posix_file_system();
  auto door = direct_lock_door(*files, path).value();
  SqliteProcess app(path);
  CHECK(app.run("SELECT * FROM t").code == 0);
  auto take = [&] { return HeldLock::take(*door, LockFile::kShm, kWalWriteLock, 1, LockKind::kExclusive); };
  {
    HeldLock write = take().value();
    CHECK(app.run("SELECT * FROM t").code == 0);
    CHECK(app.run("INSERT INTO t VALUES(1)").code == kSqliteBusy);
  }
  app.exec("BEGIN IMMEDIATE");
  CHECK(take().error().code() == ErrorCode::kBusy);
  app.exec("COMMIT");
  CHECK(take().ok());
}

TEST_CASE("locks end with what holds them") {
  TempDir dir;
  write_file(dir.file("a.db"), Bytes(512));
  auto files = posix_file_system();
  auto ours = direct_lock_door(*files, dir.file("a.db")).value();
  auto theirs = direct_lock_door(*files, dir.file("a.db")).value();
  auto take = [](LockDoor& door) { return HeldLock::take(door, LockFile::kShm, kDmsByte, 1, LockKind::kExclusive); };
  {
    HeldLock held = take(*ours).value();
    HeldLock moved = std::move(held);
    CHECK_FALSE(take(*theirs).ok());
    CHECK(moved.convert(LockKind::kShared).ok());
    CHECK_FALSE(take(*theirs).ok());
    CHECK(HeldLock::take(*theirs, LockFile::kShm, kDmsByte, 1, LockKind::kShared).ok());
  }
  CHECK(take(*theirs).ok());
  CHECK(ours->try_lock(LockFile::kDatabase, kReservedByte, 1, LockKind::kExclusive).ok());
  CHECK_FALSE(theirs->try_lock(LockFile::kDatabase, kReservedByte, 1, LockKind::kExclusive).ok());
  ours.reset();  // closes the descriptors, and that is the end of it, too
  CHECK(theirs->try_lock(LockFile::kDatabase, kReservedByte, 1, LockKind::kExclusive).ok());
}
