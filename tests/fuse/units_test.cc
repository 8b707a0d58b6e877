// What needs no mount.
#include <fcntl.h>
#include <linux/fuse.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "fuse/device.h"
#include "fuse/errno_table.h"
#include "fuse/hooks.h"
#include "fuse/mount_client.h"
#include "fuse/mount_point.h"
#include "fuse/quiet_thread.h"
#include "mount_process.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

TEST_CASE("a file's name tells its database and its kind") {
  struct {
    const char* name;
    const char* database;
    FileKind kind;
  } cases[] = {{"a.db", "a.db", FileKind::kDatabase},
               {"a.db-journal", "a.db", FileKind::kJournal},
               {"a.db-wal", "a.db", FileKind::kWal},
               {"a.db-shm", "a.db", FileKind::kShm},
               {"a.db-mj0123AB9CD", "a.db", FileKind::kSuperJournal},
               {"a-mj.db-mj0000009FF", "a-mj.db", FileKind::kSuperJournal},
               {"a.db-mj0123AB8CD", "a.db-mj0123AB8CD", FileKind::kDatabase},
               {"a.db-mj0123ab9CD", "a.db-mj0123ab9CD", FileKind::kDatabase},
               {"a.db-mj0123AB9C", "a.db-mj0123AB9C", FileKind::kDatabase},
               {"a-wal/b.db", "a-wal/b.db", FileKind::kDatabase},
               {"a/b.db-shm", "a/b.db", FileKind::kShm},
               {"a/-shm", "a/-shm", FileKind::kDatabase},
               {"a/-mj0123AB9CD", "a/-mj0123AB9CD", FileKind::kDatabase},
               {"-mj0123AB9CD", "-mj0123AB9CD", FileKind::kDatabase},
               {"-wal", "-wal", FileKind::kDatabase},
               {"a-wal-wal", "a-wal", FileKind::kWal}};
  for (const auto& c : cases) {
    FileName file = FileName::parse(c.name);
    CHECK(file.database == c.database);
    CHECK(file.kind == c.kind);
    CHECK(file.text() == c.name);
  }
}

TEST_CASE("errors become the errnos that SQLite understands") {
  auto errno_for = [](ErrorCode code) { return errno_of(Error(code, "")); };
  CHECK(errno_for(ErrorCode::kNoSpace) == ENOSPC);
  CHECK(errno_for(ErrorCode::kReadOnly) == EROFS);
  CHECK(errno_for(ErrorCode::kBusy) == EBUSY);
  CHECK(errno_for(ErrorCode::kTimedOut) == EIO);
  CHECK(errno_for(ErrorCode::kDiverged) == EIO);
  Error read_only(ErrorCode::kReadOnly, "");
  CHECK(open_errno_of(read_only, FileKind::kDatabase) == EROFS);
  CHECK(open_errno_of(read_only, FileKind::kJournal) == EACCES);
  CHECK(open_errno_of(read_only, FileKind::kSuperJournal) == EACCES);
}

TEST_CASE("a kernel that does not offer passthrough is refused by name") {
  struct {
    fuse_in_header header;
    fuse_init_in body;
  } request = {};
  request.header.opcode = FUSE_INIT;
  ByteView bytes(reinterpret_cast<const uint8_t*>(&request), sizeof request);

  CHECK_FALSE(require_passthrough(bytes, "6.8.0").ok());
  request.body.flags2 = 1u << 5;  // counts only with FUSE_INIT_EXT
  Status refused = require_passthrough(bytes, "6.8.0-test");
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.error().code() == ErrorCode::kUnavailable);
  CHECK(refused.error().message().find("6.8.0-test") != std::string::npos);
  CHECK(refused.error().message().find("6.9") != std::string::npos);
  request.body.flags = FUSE_INIT_EXT;
  CHECK(require_passthrough(bytes, "6.9.0").ok());

  for (size_t n = 0; n < sizeof request.header + 20; ++n) {
    CHECK_FALSE(require_passthrough(bytes.first(n), "6.9.0").ok());
  }
  request.header.opcode = FUSE_LOOKUP;
  CHECK_FALSE(require_passthrough(bytes, "6.9.0").ok());
}

TEST_CASE("a mount point is resolved without asking what is mounted there") {
  TempDir directory;
  std::string top = std::filesystem::canonical(directory.path());
  std::filesystem::create_directory(directory.file("real"));
  std::filesystem::create_symlink("real", directory.file("link"));
  std::filesystem::create_symlink(directory.file("link"), directory.file("link2"));
  std::filesystem::create_symlink("loop", directory.file("loop"));
  CHECK(canonical_mount_point(directory.file("real")).value() == top + "/real");
  CHECK(canonical_mount_point(directory.file("real") + "///").value() == top + "/real");
  CHECK(canonical_mount_point(directory.file("real/.")).value() == top + "/real");
  CHECK(canonical_mount_point(directory.file("link2")).value() == top + "/real");
  CHECK(canonical_mount_point(directory.file("not-there")).value() == top + "/not-there");
  CHECK(canonical_mount_point(directory.file("no/where")).error().code() == ErrorCode::kNotFound);
  CHECK(canonical_mount_point(directory.file("loop")).error().code() == ErrorCode::kInvalid);
  CHECK(mounted_on("/proc").value()->type == "proc");
  CHECK_FALSE(mounted_on(top).value().has_value());
}

TEST_CASE("what cannot be a mount point is refused with the reason") {
  TempDir directory;
  std::string top = std::filesystem::canonical(directory.path());
  auto client = MountClient::start(top).value();
  Log log(null_log_sink());
  auto refusal = [&](const std::string& path) {
    Result<MountPointState> state = check_mount_point(path, *client, log);
    return state ? "" : state.error().message();
  };
  std::filesystem::create_directory(top + "/empty");
  CHECK(refusal(top + "/empty") == "");
  CHECK(refusal(top + "/missing") == "the mount point " + top + "/missing does not exist");
  write_file(top + "/file", "x");
  CHECK(refusal(top + "/file") == "the mount point " + top + "/file is not a directory");
  CHECK(refusal(top) == "the mount point " + top +
                            " is not empty, and what it holds would be hidden: empty, file (made "
                            "while no node ran? move it away, then start again)");
  for (const char* name : {"a", "b", "c"}) write_file(top + "/" + name, "x");
  CHECK(refusal(top).find("hidden: a, b, c, ... (") != std::string::npos);
  CHECK(refusal("/proc").find("is mounted on /proc already") != std::string::npos);
}

TEST_CASE("a thread that does not end is left at the deadline") {
  std::atomic<bool> go{false};
  QuietThread thread("test", [&go] {
    while (!go) std::this_thread::yield();
  });
  CHECK_FALSE(thread.join_until(deadline_in(std::chrono::milliseconds(5))));
  go = true;
  CHECK(thread.join_until(deadline_in(std::chrono::milliseconds(5000))));
  CHECK(thread.join_until(deadline_in(std::chrono::milliseconds(0))));
}

TEST_CASE("the client's descriptors are nobody else's, and it has none of ours") {
  TempDir directory;
  int mine = open(directory.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(mine >= 3);
  auto client = MountClient::start(directory.path()).value();
  std::string table = "/proc/self/task/" + std::to_string(client->thread_id()) + "/fd/";
  CHECK_FALSE(std::filesystem::exists(std::filesystem::symlink_status(table + std::to_string(mine))));
  write_file(directory.file("a.db"), "x");
  CHECK(client->lock_door("missing.db").error().code() == ErrorCode::kNotFound);
  auto door = client->lock_door("a.db").value();
  CHECK_FALSE(std::filesystem::exists(directory.file("a.db-shm")));
  CHECK(door->try_lock(LockFile::kShm, kDmsByte, 1, LockKind::kExclusive).ok());
  // Plain files here: another description, in this thread's table, meets the lock.
  int shm = open(directory.file("a.db-shm").c_str(), O_RDWR | O_CLOEXEC);
  struct flock probe = {};
  probe.l_type = F_WRLCK;
  probe.l_start = kDmsByte;
  probe.l_len = 1;
  CHECK(fcntl(shm, F_OFD_SETLK, &probe) == -1);
  door.reset();
  CHECK(fcntl(shm, F_OFD_SETLK, &probe) == 0);
  CHECK(client->stop(deadline_in(std::chrono::milliseconds(5000))));
  CHECK(client->lock_door("a.db").error().code() == ErrorCode::kCancelled);
  close(shm);
  close(mine);
}
