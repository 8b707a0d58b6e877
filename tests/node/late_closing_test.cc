// A node's descriptors and SQLite's locks in one process (env/late_closing.h).
#include "env/late_closing.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

namespace litefs::test {
namespace {

// Whether another process could have this byte of the file exclusively.
bool free_for_others(const std::string& path, off_t byte) {
  const pid_t child = fork();
  if (child == 0) {
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    lock.l_start = byte;
    lock.l_len = 1;
    const int fd = open(path.c_str(), O_RDWR);
    _exit(fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type == F_UNLCK ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  return status == 0;
}

// As SQLite does: a descriptor of its own, and a POSIX lock on it.
struct Connection {
  LateClosingFiles& files;
  int fd = -1;
  std::optional<LateClosingFiles::FileId> id{};

  void open(const std::string& path) {
    id = files.use_database(path, [&] { return (fd = ::open(path.c_str(), O_RDWR)) >= 0; }).value();
  }
  void lock(off_t byte) {
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    lock.l_start = byte;
    lock.l_len = 1;
    REQUIRE(fcntl(fd, F_SETLK, &lock) == 0);
  }
  void close() {
    ::close(fd);
    files.leave_database(*id);
  }
};

TEST_CASE("closing a descriptor of a database takes no lock from this process's connections") {
  TempDir dir;
  const std::string path = dir.file("db");
  auto real = posix_file_system();
  for (bool late : {false, true}) {
    CAPTURE(late);
    LateClosingFiles files(*real);
    FileSystem& used = late ? static_cast<FileSystem&>(files) : *real;
    std::unique_ptr<File> file = used.open(path, OpenMode::kCreate).value();
    Connection connection{files};
    connection.open(path);
    connection.lock(7);
    file.reset();
    // The danger is real: without it the lock is gone.
    CHECK(free_for_others(path, 7) == !late);
    CHECK(files.kept() == (late ? 1 : 0));
    connection.close();
    CHECK(files.kept() == 0);
  }
}

TEST_CASE("a kept descriptor holds no lock of its own, and is used again") {
  TempDir dir;
  const std::string path = dir.file("db");
  auto real = posix_file_system();
  LateClosingFiles files(*real);
  std::unique_ptr<File> file = files.open(path, OpenMode::kCreate).value();
  Connection connection{files};
  connection.open(path);
  REQUIRE(file->try_lock(3, 1, LockKind::kExclusive).ok());
  CHECK_FALSE(free_for_others(path, 3));
  const int fd = file->fd();
  file.reset();
  CHECK(free_for_others(path, 3));
  for (int i = 0; i < 100; ++i) {
    file = files.open(path, OpenMode::kCreate).value();
    CHECK(file->fd() == fd);
    file.reset();
  }
  CHECK(files.kept() == 1);
  CHECK(files.open(path, OpenMode::kReadOnly).value()->fd() != fd);
  connection.close();
}

TEST_CASE("a file that is renamed into place is known by what it is") {
  TempDir dir;
  auto real = posix_file_system();
  LateClosingFiles files(*real);
  std::unique_ptr<File> file = files.open(dir.file("load"), OpenMode::kCreate).value();
  REQUIRE(files.rename(dir.file("load"), dir.file("db")).ok());
  Connection connection{files};
  connection.open(dir.file("db"));
  connection.lock(5);
  file.reset();
  CHECK_FALSE(free_for_others(dir.file("db"), 5));
  connection.close();
}

TEST_CASE("an index is known by its path while a connection uses it") {
  TempDir dir;
  const std::string path = dir.file("db-shm");
  auto real = posix_file_system();
  LateClosingFiles files(*real);
  std::unique_ptr<File> file = files.open(path, OpenMode::kCreate).value();
  files.use_index(path);
  files.use_index(path);
  file.reset();
  CHECK(files.kept() == 1);
  files.leave_index(path);
  CHECK(files.kept() == 1);
  files.leave_index(path);
  CHECK(files.kept() == 0);
}

}  // namespace
}  // namespace litefs::test
