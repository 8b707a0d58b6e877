// What the kernel may remember, for how long, and what makes it forget.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "mount_process.h"
#include "test.h"

using namespace litefs::test;

namespace {

int stat_errno(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 ? 0 : errno;
}

off_t size_of(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 ? info.st_size : -1;
}

ino_t inode_of(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 ? info.st_ino : 0;
}

// A database of two pages whose header says WAL or not; the second page is `fill`.
std::string database(bool wal, char fill) {
  std::string bytes("SQLite format 3");
  bytes.resize(4096);
  bytes[16] = 0x10;
  bytes[18] = bytes[19] = wal ? 2 : 1;
  bytes[21] = 64;
  bytes[22] = bytes[23] = 32;
  return bytes + std::string(4096, fill);
}

class OpenFile {
 public:
  explicit OpenFile(const std::string& path) : fd_(open(path.c_str(), O_RDWR | O_CLOEXEC)) { REQUIRE(fd_ >= 0); }
  ~OpenFile() { close(fd_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  char byte(off_t offset) {
    char c = 0;
    CHECK(pread(fd_, &c, 1, offset) == 1);
    return c;
  }
  void set(off_t offset, const std::string& bytes) {
    CHECK(pwrite(fd_, bytes.data(), bytes.size(), offset) == static_cast<ssize_t>(bytes.size()));
  }
  char mapped_byte(off_t offset) {
    void* map = mmap(nullptr, 8192, PROT_READ, MAP_SHARED, fd_, 0);
    REQUIRE(map != MAP_FAILED);
    char c = static_cast<volatile char*>(map)[offset];
    munmap(map, 8192);
    return c;
  }

 private:
  int fd_;
};

}  // namespace

TEST_SUITE_BEGIN("mount");

TEST_CASE("names made and removed behind the mount are seen after a notification") {
  MountProcess mount;
  CHECK(stat_errno(mount.at("a.db")) == ENOENT);
  write_file(mount.real("a.db"), "x");
  // The missing name is remembered: that is what makes SQLite's question for a journal free.
  CHECK(stat_errno(mount.at("a.db")) == ENOENT);
  CHECK(mount.ask("notify entry a.db 5000") == "ok");
  CHECK(stat_errno(mount.at("a.db")) == 0);

  unlink(mount.real("a.db").c_str());
  CHECK(mount.ask("notify entry a.db 5000") == "ok");
  CHECK(stat_errno(mount.at("a.db")) == ENOENT);
  CHECK(mount.ask("notify entry never-heard-of 5000") == "ok");
  CHECK(mount.ask("notify data never-heard-of 5000") == "ok");
}

TEST_CASE("a file made behind the mount can be opened without a notification") {
  MountProcess mount;
  for (const char* name : {"a.db", "a.db-wal"}) {
    CHECK(stat_errno(mount.at(name)) == ENOENT);
    write_file(mount.real(name), "was here");
    CHECK(try_open(mount.at(name), O_RDWR | O_CREAT | O_EXCL) == EEXIST);
    CHECK(try_open(mount.at(name), O_RDWR | O_CREAT) == 0);
    CHECK(read_file(mount.at(name)) == "was here");
  }
}

TEST_CASE("sizes and contents changed behind the mount are seen after a notification") {
  MountProcess mount;
  write_file(mount.at("a.db"), std::string(4096, 'a'));
  CHECK(read_file(mount.at("a.db")) == std::string(4096, 'a'));
  write_file(mount.real("a.db"), std::string(8192, 'b'));
  CHECK(size_of(mount.at("a.db")) == 4096);
  // Cached pages outlive the last close: a database that is opened again need not be read again.
  CHECK(read_file(mount.at("a.db")).substr(0, 4096) == std::string(4096, 'a'));
  CHECK(mount.ask("notify attributes a.db 5000") == "ok");
  CHECK(size_of(mount.at("a.db")) == 8192);
  CHECK(mount.ask("notify data a.db 5000") == "ok");
  CHECK(read_file(mount.at("a.db")) == std::string(8192, 'b'));

  OpenFile file(mount.at("a.db"));
  CHECK(file.mapped_byte(5000) == 'b');
  write_file(mount.real("a.db"), std::string(8192, 'c'));
  CHECK(mount.ask("notify data a.db 5000") == "ok");
  CHECK(file.mapped_byte(5000) == 'c');
  CHECK(file.byte(100) == 'c');
}

TEST_CASE("directories made and removed behind the mount are seen after a notification") {
  MountProcess mount;
  CHECK(try_open(mount.at("a/b/c.db"), O_RDONLY) == ENOENT);
  std::filesystem::create_directories(mount.real("a/b"));
  write_file(mount.real("a/b/c.db"), "content");
  // The kernel knows "a" as a missing name, and nothing of what is in it.
  CHECK(mount.ask("notify entry a 5000") == "ok");
  CHECK(mount.ask("notify entry a/b 5000") == "ok");
  CHECK(mount.ask("notify entry a/b/c.db 5000") == "ok");
  CHECK(read_file(mount.at("a/b/c.db")) == "content");
  CHECK(try_open(mount.at("a/b/d.db"), O_RDONLY) == ENOENT);
  write_file(mount.real("a/b/d.db"), "more");
  CHECK(mount.ask("notify entry a/b/d.db 5000") == "ok");
  CHECK(read_file(mount.at("a/b/d.db")) == "more");

  std::filesystem::remove_all(mount.real("a"));
  for (const char* name : {"a/b/c.db", "a/b/d.db", "a/b", "a"}) {
    CHECK(mount.ask(std::string("notify entry ") + name + " 5000") == "ok");
  }
  CHECK(try_open(mount.at("a/b/c.db"), O_RDONLY) == ENOENT);
  CHECK(try_open(mount.at("a"), O_RDONLY) == ENOENT);
  std::filesystem::create_directories(mount.real("a/b"));
  write_file(mount.real("a/b/c.db"), "another");
  CHECK(mount.ask("notify entry a 5000") == "ok");
  CHECK(read_file(mount.at("a/b/c.db")) == "another");
}

TEST_CASE("the sizes of -wal and -shm are always the real ones") {
  MountProcess mount;
  for (const char* name : {"a.db-wal", "a.db-shm"}) {
    write_file(mount.at(name), "12345");
    CHECK(size_of(mount.at(name)) == 5);
    write_file(mount.real(name), "1234567");
    CHECK(size_of(mount.at(name)) == 7);
  }
}

TEST_CASE("a file replaced behind the mount is another inode") {
  MountProcess mount;
  write_file(mount.at("a.db"), "first");
  ino_t first = inode_of(mount.at("a.db"));
  OpenFile old(mount.at("a.db"));
  write_file(mount.real(".aside"), "second");
  REQUIRE(rename(mount.real(".aside").c_str(), mount.real("a.db").c_str()) == 0);
  CHECK(mount.ask("notify entry a.db 5000") == "ok");
  CHECK(read_file(mount.at("a.db")) == "second");
  CHECK(inode_of(mount.at("a.db")) != first);
  CHECK(old.byte(0) == 'f');
}

TEST_CASE(
    "the mode is chosen at the first open, holds until the last close, and no change shows old "
    "pages") {
  MountProcess mount;
  std::string path = mount.at("a.db");
  write_file(mount.real("a.db"), database(false, 'a'));
  auto writes = [&] { return mount.count("write", "a.db"); };
  auto closed = [&](int times) {
    // RELEASE comes some time after close.
    CHECK(eventually([&] { return mount.count("closed", "a.db") == times; }));
  };
  {
    OpenFile cached(path);
    CHECK(cached.byte(5000) == 'a');
    CHECK(cached.mapped_byte(6000) == 'a');
    cached.set(18, "\2\2");
    CHECK(writes() == 1);
    // Still cached for all, though the header says WAL now.
    OpenFile second(path);
    second.set(4096, "b");
    CHECK(writes() == 2);
  }
  closed(1);
  {
    OpenFile passed(path);
    CHECK(passed.byte(4096) == 'b');
    passed.set(5000, "c");
    CHECK(passed.mapped_byte(5000) == 'c');
    passed.set(18, "\1\1");
    OpenFile second(path);
    second.set(6000, "d");
    CHECK(writes() == 2);
  }
  closed(2);
  {
    OpenFile cached(path);
    CHECK(cached.byte(5000) == 'c');
    CHECK(cached.mapped_byte(6000) == 'd');
    cached.set(7000, "e");
    CHECK(writes() == 3);
  }
  closed(3);
  CHECK(read_file(mount.real("a.db"))[7000] == 'e');
}

TEST_CASE("opening and closing fast never meets the wrong mode") {
  MountProcess mount;
  write_file(mount.real("a.db"), database(true, 'a'));
  // Each open may meet the RELEASE of the one before; a wrong mode would be EIO.
  std::vector<pid_t> children;
  for (int p = 0; p < 2; ++p) {
    children.push_back(fork_process([&] {
      for (int i = 0; i < 300; ++i) {
        int fd = open(mount.at("a.db").c_str(), O_RDWR);
        char version = i % 2 ? 1 : 2;
        if (fd < 0 || pwrite(fd, &version, 1, 18) != 1) return 1;
        if (pwrite(fd, &version, 1, 19) != 1) return 1;
        close(fd);
        if (i % 3 == 0 && read_file(mount.at("a.db")).size() != 8192) return 2;
      }
      return 0;
    }));
  }
  for (pid_t child : children) CHECK(wait_process(child) == 0);
}

TEST_SUITE_END();
