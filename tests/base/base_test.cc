#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN

#include <chrono>

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
