#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN


#include "base/bytes.h"
#include "base/log.h"
#include "base/types.h"
#include "env/file.h"
#include "env/worker_pool.h"
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
