// Starting, stopping, and being killed.
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "fuse/mount.h"
#include "mount_process.h"
#include "sqlite_app.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

constexpr std::chrono::milliseconds kAtOnce{3'000};

// Why a mount does not start, in a process that `prepare` has changed.
std::string start_error(const std::function<void(MountOptions&)>& prepare) {
  TempDir directory;
  std::filesystem::create_directory(directory.file("mount"));
  std::filesystem::create_directory(directory.file("db"));
  chmod(directory.path().c_str(), 0777);
  std::string report = directory.file("report");
  write_file(report, "");
  chmod(report.c_str(), 0666);
  int code = in_process([&] {
    MountOptions options;
    options.mount_dir = directory.file("mount");
    options.backing_dir = directory.file("db");
    prepare(options);
    auto mount = Mount::start(options, no_hooks(), Log(null_log_sink()));
    write_file(report, mount ? "started" : mount.error().message());
    return 0;
  });
  CHECK(code == 0);
  return read_file(report);
}

void drop_capability(int capability) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  syscall(SYS_capget, &header, data);
  data[capability / 32].effective &= ~(1u << (capability % 32));
  data[capability / 32].permitted &= ~(1u << (capability % 32));
  syscall(SYS_capset, &header, data);
}

int forced_stat(const std::string& path) {
  return in_process([&] {
    struct statx info;
    int result = statx(AT_FDCWD, path.c_str(), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &info);
    return result == 0 ? 0 : errno;
  });
}

}  // namespace

TEST_SUITE_BEGIN("mount");

TEST_CASE("what is missing for a mount is said in one line") {
  CHECK(start_error([](MountOptions&) {}) == "started");
  CHECK(start_error([](MountOptions& options) { options.backing_dir += "/no"; }).find("data directory") !=
        std::string::npos);
  CHECK(start_error([](MountOptions& options) { options.mount_dir += "/no"; }).find("does not exist") !=
        std::string::npos);
  std::string as_nobody = start_error([](MountOptions&) { CHECK(setuid(65534) == 0); });
  CHECK(as_nobody.find("no permission") == 0);
  std::string without = start_error([](MountOptions&) { drop_capability(CAP_SYS_ADMIN); });
  CHECK(without.find("CAP_SYS_ADMIN") != std::string::npos);
}

TEST_CASE("a second mount on the same directory is refused and leaves the first alone") {
  MountProcess mount;
  write_file(mount.at("a.db"), "content");
  std::string error = start_error([&](MountOptions& options) { options.mount_dir = mount.mount_dir(); });
  CHECK(error.find("is mounted on") != std::string::npos);
  CHECK(read_file(mount.at("a.db")) == "content");
}

TEST_CASE("stopping unmounts and can be asked again") {
  MountProcess mount;
  write_file(mount.at("a.db"), "content");
  CHECK(mount.is_mounted());
  CHECK(mount.ask("stop") == "ok");
  CHECK_FALSE(mount.is_mounted());
  CHECK(mount.ask("stop") == "ok");
  CHECK(std::filesystem::is_empty(mount.mount_dir()));
  CHECK(read_file(mount.real("a.db")) == "content");
}

TEST_CASE("a busy mount is detached, and who has files open gets errors") {
  MountProcess mount;
  REQUIRE(mount.ask("virtual .primary node1") == "ok");
  write_file(mount.at("a.db"), std::string(100'000, 'x'));
  int fd = open(mount.at("a.db").c_str(), O_RDWR);
  int directory = open(mount.mount_dir().c_str(), O_RDONLY | O_DIRECTORY);
  CHECK(mount.ask("stop") == "ok");
  CHECK_FALSE(mount.is_mounted());
  CHECK(pwrite(fd, "y", 1, 0) == -1);
  CHECK(errno == ENOTCONN);
  CHECK(openat(directory, "a.db", O_RDONLY) == -1);
  close(fd);
  close(directory);
}

TEST_CASE("stopping answers the opens that wait") {
  MountProcess mount;
  write_file(mount.at("a.db"), "content");
  mount.ask("hold open a.db");
  pid_t child = fork_process([&] { return try_open(mount.at("a.db"), O_RDWR); });
  CHECK(mount.ask("held 1") == "ok");
  CHECK(mount.ask("stop") == "ok");
  CHECK(wait_process(child, kAtOnce) == ESHUTDOWN);
  CHECK_FALSE(mount.is_mounted());
}

TEST_CASE("a hook that does not come back cannot keep the mount from stopping") {
  MountProcess mount({.stop_max_ms = 300});
  write_file(mount.at("a.db"), "content");
  mount.ask("hold write a.db");
  pid_t writer = fork_process([&] {
    int fd = open(mount.at("a.db").c_str(), O_RDWR);
    return pwrite(fd, "x", 1, 0) == 1 ? 0 : errno;
  });
  CHECK(mount.ask("held 1") == "ok");
  CHECK(mount.ask("stop").find("timed out") == 0);
  CHECK_FALSE(mount.is_mounted());
  int error = wait_process(writer, kAtOnce);
  CHECK((error == ECONNABORTED || error == ENOTCONN));
}

TEST_CASE("a client that waits for the mount cannot keep it from stopping") {
  MountProcess mount({.client_call_max_ms = 200, .stop_max_ms = 300});
  write_file(mount.real("a.db"), "content");
  mount.ask("hold opened a.db");
  CHECK(mount.ask("door a.db").find("timed out") == 0);
  CHECK(mount.ask("held 1") == "ok");
  CHECK(mount.ask("stop").find("timed out") == 0);
  CHECK_FALSE(mount.is_mounted());
}

TEST_CASE("somebody else may unmount") {
  MountProcess mount;
  CHECK(umount2(mount.mount_dir().c_str(), 0) == 0);
  CHECK(eventually([&] { return mount.ask("threads") == "0"; }));
  CHECK(mount.ask("stop") == "ok");
  CHECK(mount.start() == "ready");
}

TEST_CASE("the mount of a killed daemon gives errors, and the next start replaces it") {
  MountProcess mount;
  {
    App app(mount.at("a.db"));
    REQUIRE(app.run("CREATE TABLE t(v); INSERT INTO t VALUES(1)") == SQLITE_OK);
  }
  for (int round = 0; round < 2; ++round) {
    REQUIRE(mount.kill_and_wait(kAtOnce));
    CHECK(mount.is_mounted());
    CHECK(forced_stat(mount.mount_dir()) == ENOTCONN);
    CHECK(try_open(mount.at("a.db"), O_RDWR) == ENOTCONN);
    CHECK(mount.start() == "ready");
    App app(mount.at("a.db"));
    CHECK(app.get("SELECT v FROM t") == "1");
  }
}

TEST_CASE("a killed daemon ends at once though it uses its own mount") {
  MountProcess mount;
  write_file(mount.real("a.db"), "content");
  write_file(mount.real("b.db"), "content");
  REQUIRE(mount.ask("door a.db") == "ok");
  CHECK(mount.ask("lock shm 120 1 exclusive") == "ok");
  CHECK(mount.ask("lock database 1073741826 510 shared") == "ok");
  // And a request of its own in flight: an OPEN whose handler does not come back.
  mount.ask("hold opened b.db");
  CHECK(mount.ask("opening b.db") == "ok");
  CHECK(mount.ask("held 1") == "ok");
  // And an application that waits for an answer.
  mount.ask("hold write a.db");
  pid_t writer = fork_process([&] {
    int fd = open(mount.at("a.db").c_str(), O_RDWR);
    return pwrite(fd, "x", 1, 0) == 1 ? 0 : errno;
  });
  CHECK(mount.ask("held 2") == "ok");
  CHECK(mount.kill_and_wait(kAtOnce));
  int error = wait_process(writer, kAtOnce);
  CHECK((error == ECONNABORTED || error == ENOTCONN));
  CHECK(mount.start() == "ready");
  CHECK(mount.ask("door a.db") == "ok");
  CHECK(mount.ask("lock shm 120 1 exclusive") == "ok");
}

TEST_CASE("a killed daemon ends at once though a notification of its waits for a request") {
  MountProcess mount;
  write_file(mount.real("a.db"), std::string(8192, 'a'));
  write_file(mount.at("b.db"), "content");
  mount.ask("hold write a.db");
  mount.ask("hold unlink b.db");
  pid_t writer = fork_process([&] {
    int fd = open(mount.at("a.db").c_str(), O_RDWR);
    return pwrite(fd, "x", 1, 0) == 1 ? 0 : errno;
  });
  CHECK(mount.ask("held 1") == "ok");
  SUBCASE("for a page") { CHECK(mount.ask("notify data a.db 100").find("timed out") == 0); }
  SUBCASE("for the directory") {
    pid_t remover = fork_process([&] { return unlink(mount.at("b.db").c_str()) == 0 ? 0 : errno; });
    CHECK(mount.ask("held 2") == "ok");
    CHECK(mount.ask("notify entry b.db 100").find("timed out") == 0);
    CHECK(mount.kill_and_wait(kAtOnce));
    int error = wait_process(remover, kAtOnce);
    CHECK((error == ECONNABORTED || error == ENOTCONN));
  }
  CHECK(mount.kill_and_wait(kAtOnce));
  int error = wait_process(writer, kAtOnce);
  CHECK((error == ECONNABORTED || error == ENOTCONN));
  CHECK(forced_stat(mount.mount_dir()) == ENOTCONN);
}

TEST_CASE("a daemon killed under load leaves nobody hanging") {
  MountProcess mount;
  {
    App app(mount.at("a.db"));
    app.get("PRAGMA journal_mode=wal");
    REQUIRE(app.run("CREATE TABLE t(v)") == SQLITE_OK);
    App other(mount.at("b.db"));
    REQUIRE(other.run("CREATE TABLE t(v)") == SQLITE_OK);
  }
  for (int round = 0; round < 3; ++round) {
    std::vector<pid_t> children;
    for (const char* name : {"a.db", "b.db", "b.db"}) {
      children.push_back(fork_process([&mount, name] {
        // Until the first error that is not a busy database.
        for (;;) {
          App app(mount.at(name));
          int code = app.run("INSERT INTO t VALUES(randomblob(500))");
          if (code != SQLITE_OK && (code & 0xff) != SQLITE_BUSY) return 0;
        }
      }));
    }
    // Work has begun.
    CHECK(eventually([&] { return mount.count("opened", "b.db-journal") > 5; }));
    REQUIRE(mount.kill_and_wait(kAtOnce));
    for (pid_t child : children) CHECK(wait_process(child, kAtOnce) == 0);
    REQUIRE(mount.start() == "ready");
    for (const char* name : {"a.db", "b.db"}) {
      App app(mount.at(name));
      CHECK(app.get("PRAGMA integrity_check") == "ok");
    }
  }
}

TEST_SUITE_END();
