// Owners, modes, names: the mount as a file system.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "mount_process.h"
#include "test.h"

using namespace litefs::test;

namespace {

constexpr uid_t kNobody = 65534;

struct stat info_of(const std::string& path) {
  struct stat info = {};
  CHECK(stat(path.c_str(), &info) == 0);
  return info;
}

int error_of(int result) { return result == 0 ? 0 : errno; }

// The exit code of `body`, run as an unprivileged user.
int as_nobody(const std::function<int()>& body) {
  return in_process([&] {
    if (setgid(kNobody) != 0 || setuid(kNobody) != 0) return 253;
    return body();
  });
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_SUITE_BEGIN("mount");

TEST_CASE("attributes set through the mount are the real file's") {
  MountProcess mount;
  for (const char* name : {"a.db", "a.db-wal", "a.db-journal"}) {
    CAPTURE(name);
    std::string path = mount.at(name);
    write_file(path, "some content");
    CHECK(chmod(path.c_str(), 0640) == 0);
    CHECK(chown(path.c_str(), 1234, 4321) == 0);
    timespec times[2] = {{1'000'000, 5}, {2'000'000, 7}};
    CHECK(utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
    CHECK(truncate(path.c_str(), 4) == 0);
    for (const std::string& which : {path, mount.real(name)}) {
      struct stat info = info_of(which);
      CHECK(info.st_mode == (S_IFREG | 0640));
      CHECK(info.st_uid == 1234);
      CHECK(info.st_gid == 4321);
      CHECK(info.st_size == 4);
    }
    int fd = open(path.c_str(), O_RDWR);
    CHECK(futimens(fd, times) == 0);
    times[0].tv_nsec = UTIME_OMIT;
    times[1].tv_nsec = UTIME_NOW;
    CHECK(futimens(fd, times) == 0);
    CHECK(info_of(mount.real(name)).st_atim.tv_sec == 1'000'000);
    CHECK(info_of(mount.real(name)).st_mtim.tv_sec > 2'000'000);
    CHECK(ftruncate(fd, 100) == 0);
    CHECK(fchmod(fd, 0600) == 0);
    CHECK(info_of(mount.real(name)).st_size == 100);
    CHECK(info_of(path).st_mode == (S_IFREG | 0600));
    close(fd);
  }
}

TEST_CASE("a new file is its creator's, with the creator's umask") {
  MountProcess mount({.allow_other = true});
  CHECK(chmod(mount.backing_dir().c_str(), 0777) == 0);
  CHECK(mount.ask("notify entry x 5000") == "ok");
  CHECK(as_nobody([&] {
          umask(027);
          return try_open(mount.at("a.db"), O_RDWR | O_CREAT, 0666);
        }) == 0);
  struct stat info = info_of(mount.real("a.db"));
  CHECK(info.st_mode == (S_IFREG | 0640));
  CHECK(info.st_uid == kNobody);
  CHECK(info.st_gid == kNobody);
  CHECK(info_of(mount.at("a.db")).st_uid == kNobody);
}

TEST_CASE("permissions hold for unprivileged users") {
  MountProcess mount({.allow_other = true});
  for (const char* name : {"a.db", "a.db-wal"}) {
    write_file(mount.at(name), "content");
    chmod(mount.at(name).c_str(), 0644);
    CHECK(as_nobody([&] { return try_open(mount.at(name), O_RDONLY); }) == 0);
    CHECK(as_nobody([&] { return try_open(mount.at(name), O_RDWR); }) == EACCES);
    CHECK(as_nobody([&] { return error_of(unlink(mount.at(name).c_str())); }) == EACCES);
    CHECK(as_nobody([&] { return error_of(truncate(mount.at(name).c_str(), 0)); }) == EACCES);
    CHECK(as_nobody([&] { return error_of(chmod(mount.at(name).c_str(), 0666)); }) == EPERM);
    chmod(mount.at(name).c_str(), 0600);
    CHECK(as_nobody([&] { return try_open(mount.at(name), O_RDONLY); }) == EACCES);
  }
  CHECK(as_nobody([&] { return try_open(mount.at("new.db"), O_RDWR | O_CREAT); }) == EACCES);
}

TEST_CASE("without allow_other the mount is its user's alone") {
  MountProcess mount;
  write_file(mount.at("a.db"), "content");
  chmod(mount.at("a.db").c_str(), 0666);
  CHECK(as_nobody([&] { return try_open(mount.at("a.db"), O_RDONLY); }) == EACCES);
  CHECK(as_nobody([&] { return try_open(mount.mount_dir(), O_RDONLY | O_DIRECTORY); }) == EACCES);
}

TEST_CASE("there is nothing but files and directories, and no name that begins with a dot") {
  MountProcess mount;
  std::string path = mount.at("a.db");
  write_file(path, "content");
  CHECK(error_of(symlink("a.db", mount.at("s").c_str())) == EPERM);
  CHECK(error_of(link(path.c_str(), mount.at("l").c_str())) == EPERM);
  CHECK(error_of(mknod(mount.at("n").c_str(), S_IFREG | 0644, 0)) == EPERM);
  CHECK(error_of(chmod(mount.mount_dir().c_str(), 0700)) == EPERM);
  CHECK(try_open(mount.at(".hidden"), O_RDWR | O_CREAT) == EPERM);
  CHECK(error_of(setxattr(path.c_str(), "user.x", "y", 1, 0)) == EOPNOTSUPP);
  CHECK(names_in(mount.backing_dir()) == Names{"a.db"});

  // Whatever else lies in the data directory is not shown.
  std::filesystem::create_directory(mount.real(".directory"));
  std::filesystem::create_symlink("/etc/passwd", mount.real("symlink"));
  write_file(mount.real(".dot"), "x");
  CHECK(names_in(mount.mount_dir()) == Names{"a.db"});
  for (const char* name : {".directory", "symlink", ".dot"}) {
    CHECK(try_open(mount.at(name), O_RDONLY) == ENOENT);
  }
}

TEST_CASE("directories are made, listed and removed, and hold files at any depth") {
  MountProcess mount;
  umask(022);
  CHECK(error_of(mkdir(mount.at("a").c_str(), 0775)) == 0);
  CHECK(error_of(mkdir(mount.at("a/b").c_str(), 0700)) == 0);
  CHECK(error_of(mkdir(mount.at("a").c_str(), 0755)) == EEXIST);
  CHECK(error_of(mkdir(mount.at("a/.c").c_str(), 0755)) == EPERM);
  CHECK(error_of(mkdir(mount.at("x/y").c_str(), 0755)) == ENOENT);
  CHECK((info_of(mount.at("a")).st_mode & 07777) == 0755);
  CHECK((info_of(mount.real("a/b")).st_mode & 07777) == 0700);
  CHECK(mount.count("mkdir", "a/b") == 1);

  write_file(mount.at("a/b/c.db"), "content");
  write_file(mount.at("c.db"), "other");
  CHECK(mount.count("opened", "a/b/c.db") == 1);
  CHECK(read_file(mount.real("a/b/c.db")) == "content");
  CHECK(read_file(mount.at("a/b/c.db")) == "content");
  CHECK(read_file(mount.at("c.db")) == "other");
  CHECK(info_of(mount.at("a/b/c.db")).st_ino != info_of(mount.at("c.db")).st_ino);
  mount.ask("virtual a/b/c.db-pos now");
  CHECK(names_in(mount.mount_dir()) == Names{"a", "c.db"});
  CHECK(names_in(mount.at("a")) == Names{"b"});
  CHECK(names_in(mount.at("a/b")) == Names{"c.db"});
  CHECK(read_file(mount.at("a/b/c.db-pos")) == "now");
  mount.ask("virtual a/b/c.db-pos");

  CHECK(error_of(rmdir(mount.at("a").c_str())) == ENOTEMPTY);
  CHECK(error_of(rmdir(mount.at("a/b").c_str())) == ENOTEMPTY);
  CHECK(error_of(rmdir(mount.at("c.db").c_str())) == ENOTDIR);
  CHECK(error_of(rename(mount.at("a").c_str(), mount.at("d").c_str())) == EPERM);
  CHECK(error_of(rename(mount.at("a/b/c.db").c_str(), mount.at("a/d.db").c_str())) == 0);
  CHECK(read_file(mount.at("a/d.db")) == "content");
  CHECK(error_of(chmod(mount.at("a/b").c_str(), 0711)) == 0);
  CHECK((info_of(mount.real("a/b")).st_mode & 07777) == 0711);
  int directory = open(mount.at("a/b").c_str(), O_RDONLY | O_DIRECTORY);
  CHECK(fsync(directory) == 0);
  mount.ask("refuse rmdir a/b read only");
  CHECK(error_of(rmdir(mount.at("a/b").c_str())) == EROFS);
  mount.ask("allow");
  CHECK(error_of(rmdir(mount.at("a/b").c_str())) == 0);
  CHECK(error_of(openat(directory, "new.db", O_RDWR | O_CREAT, 0644)) == ENOENT);
  close(directory);
  CHECK(error_of(mkdir(mount.at("a/b").c_str(), 0755)) == 0);
  write_file(mount.at("a/b/c.db"), "again");
  CHECK(read_file(mount.at("a/b/c.db")) == "again");
  CHECK(unlink(mount.at("a/b/c.db").c_str()) == 0);
  CHECK(unlink(mount.at("a/d.db").c_str()) == 0);
  CHECK(std::filesystem::remove_all(mount.at("a")) == 2);
  CHECK(names_in(mount.backing_dir()) == Names{"c.db"});
}

TEST_CASE("a closed database can be renamed, nothing else") {
  MountProcess mount;
  auto move = [&](const std::string& from, const std::string& to, unsigned flags = 0) {
    return error_of(renameat2(AT_FDCWD, mount.at(from).c_str(), AT_FDCWD, mount.at(to).c_str(), flags));
  };
  write_file(mount.at("a.db"), "content");
  write_file(mount.at("c.db"), "other");
  ino_t inode = info_of(mount.at("a.db")).st_ino;
  CHECK(move("a.db", "b.db") == 0);
  CHECK(mount.count("rename", "a.db") == 1);
  CHECK(mount.count("renamed", "b.db") == 1);
  CHECK(read_file(mount.at("b.db")) == "content");
  CHECK(info_of(mount.at("b.db")).st_ino == inode);
  CHECK(try_open(mount.at("a.db"), O_RDONLY) == ENOENT);
  CHECK(names_in(mount.backing_dir()) == Names{"b.db", "c.db"});

  CHECK(move("b.db", "c.db") == EEXIST);
  CHECK(move("b.db", "c.db", RENAME_NOREPLACE) == EEXIST);
  CHECK(move("b.db", "c.db", RENAME_EXCHANGE) == EINVAL);
  CHECK(move("b.db", ".b.db") == EPERM);
  CHECK(move("b.db", "x-pos") == EACCES);
  CHECK(move("b.db", "x-wal") == EPERM);
  CHECK(move("none", "d.db") == ENOENT);
  mount.ask("refuse rename b.db read only");
  CHECK(move("b.db", "d.db") == EROFS);
  mount.ask("allow");
  mount.ask("hide d.db");
  CHECK(move("b.db", "d.db") == EBUSY);
  mount.ask("show d.db");
  for (const char* suffix : {"-wal", "-shm", "-journal"}) {
    CAPTURE(suffix);
    std::string companion = std::string("b.db") + suffix;
    write_file(mount.at(companion), "x");
    CHECK(move(companion, "d.db") == EPERM);
    CHECK(move("b.db", "d.db") == EBUSY);
    CHECK(unlink(mount.at(companion).c_str()) == 0);
  }
  int fd = open(mount.at("b.db").c_str(), O_RDONLY);
  CHECK(move("b.db", "d.db") == EBUSY);
  close(fd);
  // The close reaches the mount a moment later.
  CHECK(move("b.db", "d.db") == 0);
  CHECK(names_in(mount.mount_dir()) == Names{"c.db", "d.db"});
  write_file(mount.at("b.db"), "another");
  CHECK(read_file(mount.at("d.db")) == "content");
}

TEST_CASE("an unlinked file goes on for those who have it open, and its name is free for another") {
  MountProcess mount;
  for (const char* name : {"a.db", "a.db-wal", "a.db-journal"}) {
    CAPTURE(name);
    std::string path = mount.at(name);
    write_file(path, "first");
    ino_t inode = info_of(path).st_ino;
    int fd = open(path.c_str(), O_RDWR);
    REQUIRE(fd >= 0);
    CHECK(unlink(path.c_str()) == 0);
    CHECK(try_open(path, O_RDONLY) == ENOENT);
    struct stat info;
    CHECK(fstat(fd, &info) == 0);
    CHECK(info.st_nlink == 0);
    write_file(path, "second");
    CHECK(info_of(path).st_ino != inode);
    CHECK(pwrite(fd, "F", 1, 0) == 1);
    CHECK(fsync(fd) == 0);
    CHECK(ftruncate(fd, 3) == 0);
    char text[8] = {};
    CHECK(pread(fd, text, 8, 0) == 3);
    CHECK(std::string(text) == "Fir");
    close(fd);
    CHECK(read_file(path) == "second");
    CHECK(unlink(path.c_str()) == 0);
  }
  CHECK(eventually([&] { return mount.ask("nodes") == "0"; }));
}

TEST_CASE("virtual files have the content of the moment and cannot be changed") {
  MountProcess mount;
  std::string path = mount.at("a.db-pos");
  CHECK(try_open(path, O_RDONLY) == ENOENT);
  mount.ask("virtual a.db-pos 0001/aaaa");
  mount.ask("virtual .primary node1");
  CHECK(read_file(path) == "0001/aaaa");
  mount.ask("virtual a.db-pos 0002/bbbbb");
  CHECK(read_file(path) == "0002/bbbbb");
  CHECK(read_file(mount.at(".primary")) == "node1");
  struct stat info = info_of(path);
  CHECK(info.st_size == 10);
  CHECK(info.st_mode == (S_IFREG | 0444));
  CHECK(try_open(path, O_RDWR) == EACCES);
  CHECK(error_of(truncate(path.c_str(), 0)) == EACCES);
  CHECK(error_of(unlink(path.c_str())) == EACCES);
  CHECK(try_open(mount.at("other-pos"), O_RDWR | O_CREAT) == EACCES);
  CHECK(names_in(mount.mount_dir()) == Names{".primary", "a.db-pos"});
  mount.ask("virtual a.db-pos");
  CHECK(try_open(path, O_RDONLY) == ENOENT);
  CHECK(std::filesystem::is_empty(mount.backing_dir()));
}

TEST_CASE("a hidden database does not exist for applications, but the node can lock it") {
  MountProcess mount;
  write_file(mount.real("a.db"), "content");
  mount.ask("hide a.db");
  CHECK(try_open(mount.at("a.db"), O_RDONLY) == ENOENT);
  CHECK(try_open(mount.at("a.db"), O_RDWR | O_CREAT) == EBUSY);
  CHECK(error_of(unlink(mount.at("a.db").c_str())) == ENOENT);
  CHECK(mount.ask("door a.db") == "ok");
  CHECK(mount.ask("lock database 1073741826 510 shared") == "ok");
  CHECK(mount.ask("lock shm 128 1 shared") == "ok");
  CHECK(try_open(mount.at("a.db"), O_RDONLY) == ENOENT);
  CHECK(names_in(mount.mount_dir()).empty());
  mount.ask("show a.db");
  CHECK(read_file(mount.at("a.db")) == "content");
  CHECK(names_in(mount.mount_dir()) == Names{"a.db", "a.db-shm"});
  // The lock that was taken while it was hidden is on the very same file.
  int fd = open(mount.at("a.db").c_str(), O_RDWR);
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_start = 1073741826;
  lock.l_len = 1;
  CHECK(fcntl(fd, F_OFD_SETLK, &lock) == -1);
  mount.ask("close");
  CHECK(fcntl(fd, F_OFD_SETLK, &lock) == 0);
  close(fd);
}

TEST_CASE("the space of the mount is the data directory's") {
  MountProcess mount;
  struct statvfs through = {}, real = {};
  CHECK(statvfs(mount.mount_dir().c_str(), &through) == 0);
  CHECK(statvfs(mount.backing_dir().c_str(), &real) == 0);
  CHECK(through.f_blocks == real.f_blocks);
  CHECK(through.f_frsize == real.f_frsize);
  CHECK(through.f_namemax == real.f_namemax);
  int fd = open(mount.mount_dir().c_str(), O_RDONLY | O_DIRECTORY);
  CHECK(fsync(fd) == 0);
  close(fd);
}

TEST_CASE("large writes and reads, appending and truncating opens come through whole") {
  MountProcess mount;
  std::string big(3'000'001, 'x');
  for (size_t i = 0; i < big.size(); i += 7) big[i] = static_cast<char>(i);
  for (const char* name : {"a.db", "a.db-wal", "a.db-journal"}) {
    CAPTURE(name);
    write_file(mount.at(name), big);
    CHECK(read_file(mount.real(name)) == big);
    CHECK(read_file(mount.at(name)) == big);
    int fd = open(mount.at(name).c_str(), O_WRONLY | O_APPEND);
    CHECK(write(fd, "end", 3) == 3);
    close(fd);
    CHECK(read_file(mount.real(name)) == big + "end");
    fd = open(mount.at(name).c_str(), O_RDWR | O_TRUNC);
    CHECK(info_of(mount.real(name)).st_size == 0);
    close(fd);
    CHECK(mount.count("resize", name) >= 1);
  }
}

TEST_SUITE_END();
