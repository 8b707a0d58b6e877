#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <climits>
#include <thread>

#include "base/bytes.h"
#include "base/log.h"
#include "base/types.h"
#include "env/file.h"
#include "env/worker_pool.h"
#include "env/write_watch.h"
#include "test.h"

using namespace litefs;

TEST_CASE("varints round trip and refuse what is cut or too long") {
  for (uint64_t v : {0ull, 1ull, 127ull, 128ull, 300ull, ~0ull}) {
    Bytes b;
    ByteWriter(b).varint(v);
    CHECK(ByteReader(b, "test").varint().value() == v);
    Bytes cut(b.begin(), b.end() - 1);
    CHECK_FALSE(ByteReader(cut, "test").varint().ok());
  }
  Bytes endless(11, 0xff);
  CHECK_FALSE(ByteReader(endless, "test").varint().ok());
}

TEST_CASE("a watch wakes for writes and wake-ups, not for its own removals") {
  test::TempDir dir;
  auto files = posix_file_system();
  auto file = files->open(dir.file("watched"), OpenMode::kCreate).value();
  auto watch = WriteWatch::create().value();
  int id = watch->add(file->fd()).value();
  REQUIRE(file->write_at(0, as_bytes("x")).ok());
  CHECK(watch->wait(1000) == std::vector<int>{id});
  watch->remove(id);
  auto before = std::chrono::steady_clock::now();
  CHECK(watch->wait(30).empty());
  CHECK(std::chrono::steady_clock::now() - before >= std::chrono::milliseconds(29));
  watch->wake();
  CHECK(watch->wait(60000).empty());
}

TEST_CASE("a forked process has nothing that was opened here, and its own descriptors are left alone") {
  test::TempDir dir;
  auto files = posix_file_system();
  auto file = files->open(dir.file("f"), OpenMode::kCreate).value();
  REQUIRE(file->write_at(0, as_bytes("content")).ok());
  auto mapping = file->map(0, 7, true).value();
  auto watch = WriteWatch::create().value();
  REQUIRE(file->try_lock(0, 1, LockKind::kExclusive).ok());
  const int fd = file->fd();
  const int other = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t child = fork();
  if (child == 0) {
    int failed = 0;
    auto check = [&](bool right, int number) {
      if (!right && failed == 0) failed = number;
    };
    check(fcntl(fd, F_GETFD) < 0 && errno == EBADF, 1);
    check(fcntl(other, F_GETFD) >= 0, 2);
    check(file->fd() < 0, 3);
    unsigned char resident;
    check(mincore(mapping->data(), 7, &resident) != 0 && errno == ENOMEM, 4);
    check(!file->write_at(0, as_bytes("x")).ok() && !file->try_lock(0, 1, LockKind::kNone).ok(), 5);
    // The numbers and the address are given out anew, then the copies of the objects are destroyed.
    void* again = mmap(mapping->data(), 7, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    check(again == mapping->data(), 6);
    while (open("/dev/null", O_RDONLY | O_CLOEXEC) < fd + 8) {
    }
    auto mine = files->open(dir.file("f"), OpenMode::kReadWrite).value();
    check(!mine->try_lock(0, 1, LockKind::kExclusive).ok(), 7);  // the parent's, still
    file.reset();
    mapping.reset();
    watch.reset();
    for (int number = 0; number < fd + 8; ++number) check(fcntl(number, F_GETFD) >= 0, 8);
    check(mincore(again, 7, &resident) == 0, 9);
    check(mine->write_at(0, as_bytes("C")).ok(), 10);
    _exit(failed);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(mapping->data()[0] == 'C');
  CHECK(file->write_at(0, as_bytes("c")).ok());
  auto another = files->open(dir.file("f"), OpenMode::kReadWrite).value();
  CHECK_FALSE(another->try_lock(0, 1, LockKind::kExclusive).ok());
  file.reset();
  CHECK_FALSE(another->try_lock(0, 1, LockKind::kExclusive).ok());  // by the mapping
  mapping.reset();
  CHECK(another->try_lock(0, 1, LockKind::kExclusive).ok());
  close(other);
}

TEST_CASE("whatever other threads open and close meanwhile, a forked process has none of it") {
  test::TempDir dir;
  auto files = posix_file_system();
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      while (!stop) files->open(dir.file("f" + std::to_string(i)), OpenMode::kCreate).value();
    });
  }
  int had_some = 0;
  for (int round = 0; round < 200; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      for (int fd = 0; fd < 64; ++fd) {
        char path[PATH_MAX], link[64];
        std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        const ssize_t n = readlink(link, path, sizeof path - 1);
        if (n > 0 && std::string_view(path, static_cast<size_t>(n)).starts_with(dir.path())) _exit(1);
      }
      _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    if (status != 0) ++had_some;
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(had_some == 0);
}
