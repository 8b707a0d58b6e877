// What the hooks are told, what they can refuse, and that the mount waits for none of them.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "mount_process.h"
#include "sqlite_app.h"
#include "test.h"

using namespace litefs::test;

namespace {

// An application whose one write is the one that a test holds.
pid_t writer_of(const std::string& path) {
  return fork_process([path] {
    int fd = open(path.c_str(), O_RDWR);
    return pwrite(fd, "held", 4, 0) == 4 ? 0 : errno;
  });
}

}  // namespace

TEST_SUITE_BEGIN("mount");

TEST_CASE("hooks are told of each request, and opened and closed once each") {
  MountProcess mount;
  {
    App app(mount.at("a.db"));
    REQUIRE(app.run("CREATE TABLE t(v); INSERT INTO t VALUES(1)") == SQLITE_OK);
  }
  CHECK(eventually([&] { return mount.count("closed", "a.db") == 1; }));
  CHECK(mount.count("open", "a.db") == 1);
  CHECK(mount.count("opened", "a.db") == 1);
  CHECK(mount.count("write", "a.db") >= 2);
  CHECK(mount.count("sync", "a.db") == 2);
  CHECK(mount.count("synced", "a.db") == 2);
  CHECK(mount.count("opened", "a.db-journal") == 2);
  CHECK(mount.count("unlink", "a.db-journal") == 2);
  CHECK(mount.count("unlinked", "a.db-journal") == 2);
  // Of the first one's close the kernel may have told when the second was there.
  CHECK(eventually([&] { return mount.count("closed", "a.db-journal") >= 1; }));

  App app(mount.at("a.db"));
  int writes = mount.count("write", "a.db");
  CHECK(app.get("PRAGMA journal_mode=wal") == "wal");
  REQUIRE(app.run("INSERT INTO t VALUES(2)") == SQLITE_OK);
  CHECK(mount.count("write", "a.db") > writes);
  CHECK(mount.count("opened", "a.db-wal") == 1);
  CHECK(mount.count("opened", "a.db-shm") == 1);
  CHECK(mount.count("write", "a.db-wal") == 0);
}

TEST_CASE("a refused request is the error that SQLite documents, and nothing has changed") {
  MountProcess mount;
  App app(mount.at("a.db"));
  app.run("PRAGMA journal_mode=delete; CREATE TABLE t(v); INSERT INTO t VALUES('old')");
  auto update = [&] { return app.run("UPDATE t SET v = 'new'"); };

  mount.ask("refuse write a.db no space");
  CHECK(update() == SQLITE_FULL);
  mount.ask("allow");
  mount.ask("refuse write a.db read only");
  CHECK(update() == SQLITE_IOERR_WRITE);
  mount.ask("allow");
  mount.ask("refuse unlink a.db-journal busy");
  CHECK(update() == SQLITE_IOERR_DELETE);
  mount.ask("allow");
  CHECK(app.get("SELECT v FROM t") == "old");
  mount.ask("refuse sync a.db-journal io");
  CHECK(update() == SQLITE_IOERR_FSYNC);
  mount.ask("allow");
  CHECK(app.get("PRAGMA journal_mode=truncate") == "truncate");
  mount.ask("refuse resize a.db-journal timed out");
  CHECK(update() == SQLITE_IOERR_TRUNCATE);
  mount.ask("allow");
  CHECK(app.get("SELECT v FROM t") == "old");
  CHECK(app.get("PRAGMA integrity_check") == "ok");
  CHECK(update() == SQLITE_OK);
  CHECK(app.get("SELECT v FROM t") == "new");
}

TEST_CASE("a super-journal goes by its main database, and its unlink can be refused") {
  MountProcess mount;
  App app(mount.at("a.db"));
  REQUIRE(app.run("PRAGMA journal_mode=delete; CREATE TABLE t(v)") == SQLITE_OK);
  REQUIRE(app.run("ATTACH '" + mount.at("b.db") + "' AS b; CREATE TABLE b.u(v)") == SQLITE_OK);
  const std::string both = "BEGIN; INSERT INTO t VALUES(1); INSERT INTO b.u VALUES(1); COMMIT";
  REQUIRE(app.run(both) == SQLITE_OK);
  for (const char* hook : {"open", "opened", "unlink", "unlinked"}) {
    CAPTURE(hook);
    CHECK(mount.count(hook, "a.db-mj") == 1);
    CHECK(mount.count(hook, "b.db-mj") == 0);
  }
  CHECK(mount.count("write", "a.db-mj") == 2);
  CHECK(mount.count("sync", "a.db-mj") == 1);
  CHECK(eventually([&] { return mount.count("closed", "a.db-mj") == 1; }));

  // The commit point of both.
  mount.ask("refuse unlink a.db-mj busy");
  CHECK(app.run(both) == SQLITE_IOERR_DELETE);
  mount.ask("allow");
  app.run("ROLLBACK");
  CHECK(app.get("SELECT count(*) FROM t") == "1");
  CHECK(app.get("SELECT count(*) FROM b.u") == "1");
  CHECK(app.run(both) == SQLITE_OK);

  mount.ask("refuse open a.db-mj read only");
  CHECK(app.run(both) == SQLITE_READONLY_DIRECTORY);
  app.run("ROLLBACK");
  CHECK(app.get("SELECT count(*) FROM t") == "2");
}

TEST_CASE("a refused open makes a database read-only, or is refused") {
  MountProcess mount;
  {
    App app(mount.at("a.db"));
    REQUIRE(app.run("CREATE TABLE t(v)") == SQLITE_OK);
    mount.ask("refuse open a.db-journal read only");
    CHECK(app.run("INSERT INTO t VALUES(1)") == SQLITE_READONLY_DIRECTORY);
  }
  mount.ask("refuse open a.db busy");
  CHECK(try_open(mount.at("a.db"), O_RDWR) == EBUSY);
  mount.ask("refuse open a.db read only");
  CHECK(try_open(mount.at("a.db"), O_RDWR) == EROFS);
  mount.ask("refuse open new.db diverged");
  CHECK(try_open(mount.at("new.db"), O_RDWR | O_CREAT) == EIO);
  CHECK_FALSE(std::filesystem::exists(mount.real("new.db")));
}

TEST_CASE("undecided opens wait without holding a thread, and go on when they are decided") {
  MountProcess mount;
  write_file(mount.at("a.db"), "content");
  write_file(mount.at("b.db"), "content");
  int threads = std::stoi(mount.ask("threads"));
  mount.ask("hold open a.db");
  std::vector<pid_t> children;
  for (int i = 0; i < 40; ++i) {
    children.push_back(fork_process([&] { return try_open(mount.at("a.db"), O_RDWR); }));
  }
  CHECK(mount.ask("held 40") == "ok");
  CHECK(read_file(mount.at("b.db")) == "content");
  CHECK(try_open(mount.at("c.db"), O_RDWR | O_CREAT) == 0);
  CHECK(std::stoi(mount.ask("threads")) <= threads + 4);
  mount.ask("let");
  for (pid_t child : children) CHECK(wait_process(child) == 0);
}

TEST_CASE("an undecided creation makes no file, and leaves the files that are there alone") {
  MountProcess mount;
  write_file(mount.at("a.db"), "content");
  mount.ask("hold open new.db");
  pid_t child = fork_process([&] { return try_open(mount.at("new.db"), O_RDWR | O_CREAT | O_EXCL); });
  CHECK(mount.ask("held 1") == "ok");
  CHECK_FALSE(std::filesystem::exists(mount.real("new.db")));
  // Its name is known. A name that is not would have to wait: the kernel has locked the directory.
  CHECK(read_file(mount.at("a.db")) == "content");
  mount.ask("let");
  CHECK(wait_process(child) == 0);
  CHECK(std::filesystem::exists(mount.real("new.db")));
}

TEST_CASE(
    "an open that is not decided in time is busy, and an application that gives up is free at "
    "once") {
  MountProcess mount({.open_max_ms = 1'500});
  write_file(mount.at("a.db"), "content");
  mount.ask("hold open a.db");
  pid_t patient = fork_process([&] { return try_open(mount.at("a.db"), O_RDWR); });
  pid_t killed = fork_process([&] { return try_open(mount.at("a.db"), O_RDWR); });
  CHECK(mount.ask("held 2") == "ok");
  kill(killed, SIGKILL);
  CHECK(wait_process(killed, std::chrono::milliseconds(1'000)) == 254);
  CHECK(wait_process(patient) == EBUSY);
  mount.ask("let");
  CHECK(try_open(mount.at("a.db"), O_RDWR) == 0);
}

TEST_CASE("the node's own opens are not put to the hooks that would wait for them") {
  MountProcess mount;
  write_file(mount.real("a.db"), "content");
  mount.ask("hold open a.db");
  CHECK(mount.ask("door a.db") == "ok");
  CHECK(mount.count("open", "a.db") == 0);
  CHECK(mount.count("opened", "a.db") == 1);
  CHECK(mount.count("opened", "a.db-shm") == 0);
  CHECK(mount.ask("lock shm 128 1 shared") == "ok");
  CHECK(mount.count("opened", "a.db-shm") == 1);
  CHECK(mount.ask("door none.db").find("not found") == 0);
}

TEST_CASE("the node's locks are SQLite's locks") {
  MountProcess mount;
  App app(mount.at("a.db"));
  CHECK(app.get("PRAGMA journal_mode=wal") == "wal");
  REQUIRE(app.run("CREATE TABLE t(v); INSERT INTO t VALUES(1)") == SQLITE_OK);
  sqlite3_busy_timeout(app.handle(), 0);
  REQUIRE(mount.ask("door a.db") == "ok");
  CHECK(mount.ask("lock shm 120 1 exclusive") == "ok");
  CHECK(app.run("INSERT INTO t VALUES(2)") == SQLITE_BUSY);
  CHECK(app.get("SELECT count(*) FROM t") == "1");
  CHECK(mount.ask("lock shm 120 1 none") == "ok");
  CHECK(app.run("BEGIN IMMEDIATE") == SQLITE_OK);
  CHECK(mount.ask("lock shm 120 1 exclusive").find("busy") == 0);
  CHECK(app.run("COMMIT") == SQLITE_OK);
  CHECK(mount.ask("lock shm 120 1 exclusive") == "ok");
  CHECK(mount.ask("lock database 1073741826 510 shared") == "ok");
  mount.ask("close");
  CHECK(app.run("INSERT INTO t VALUES(2)") == SQLITE_OK);
}

TEST_CASE("a notification for a page that is being written waits outside, and the mount goes on") {
  MountProcess mount;
  // Not in the kernel's cache, so that it keeps the page locked until the WRITE is answered.
  write_file(mount.real("a.db"), std::string(8192, 'a'));
  write_file(mount.at("b.db"), "b");
  mount.ask("hold write a.db");
  pid_t writer = writer_of(mount.at("a.db"));
  CHECK(mount.ask("held 1") == "ok");
  // In the handler's place this would be a deadlock: the kernel waits for the page that the WRITE
  // has locked.
  CHECK(mount.ask("notify data a.db 100").find("timed out") == 0);
  CHECK(read_file(mount.at("b.db")) == "b");
  CHECK(try_open(mount.at("c.db"), O_RDWR | O_CREAT) == 0);
  mount.ask("let");
  CHECK(wait_process(writer) == 0);
  CHECK(mount.ask("notify data a.db 5000") == "ok");
  CHECK(read_file(mount.at("a.db")).substr(0, 5) == "helda");
}

TEST_CASE("a notification for a name that is being unlinked waits outside, and the unlink succeeds") {
  MountProcess mount;
  write_file(mount.at("a.db"), "a");
  write_file(mount.at("b.db"), "b");
  mount.ask("hold unlink a.db");
  pid_t remover = fork_process([&] { return unlink(mount.at("a.db").c_str()) == 0 ? 0 : errno; });
  CHECK(mount.ask("held 1") == "ok");
  // The UNLINK holds the directory's lock in the kernel.
  CHECK(mount.ask("notify entry a.db 100").find("timed out") == 0);
  CHECK(read_file(mount.at("b.db")) == "b");
  mount.ask("let");
  CHECK(wait_process(remover) == 0);
  CHECK(mount.ask("notify entry a.db 5000") == "ok");
  CHECK(try_open(mount.at("a.db"), O_RDONLY) == ENOENT);
}

TEST_CASE("threads grow with the handlers that block, and leave when they are not needed") {
  MountProcess mount;
  std::vector<pid_t> writers;
  for (int i = 0; i < 12; ++i) {
    std::string name = "db" + std::to_string(i);
    write_file(mount.at(name), "content");
    mount.ask("hold write " + name);
    writers.push_back(writer_of(mount.at(name)));
  }
  CHECK(mount.ask("held 12") == "ok");
  CHECK(std::stoi(mount.ask("threads")) >= 13);
  write_file(mount.at("other"), "content");
  CHECK(read_file(mount.at("other")) == "content");
  mount.ask("let");
  for (pid_t writer : writers) CHECK(wait_process(writer) == 0);
  write_file(mount.at("a.db-wal"), "x");
  CHECK(eventually([&] {
    struct stat info;
    // Each is a request, as the attributes of a WAL are not cached.
    CHECK(stat(mount.at("a.db-wal").c_str(), &info) == 0);
    return mount.ask("threads") == "2";
  }));
}

TEST_SUITE_END();
