#include "fuse/progress.h"

#include <sstream>

#include "test.h"

namespace litefs {
namespace {

TEST_CASE("progress says how much, how fast and how long") {
  CHECK(progress_text("importing db", 512 << 20, 1 << 30, 5000, 20) ==
        "importing db  [##########..........]  50%  512 MB of 1.0 GB  102 MB/s  5.0 s left");
  CHECK(progress_text("exporting db", 0, 1 << 20, 0, 0) == "exporting db  0%  0 B of 1.0 MB");
  CHECK(progress_text("reading standard input", 2 << 20, 0, 1000, 20) == "reading standard input  2.0 MB  2.0 MB/s");
  // An estimate that was too low.
  CHECK(progress_text("x", 3 << 20, 1 << 20, 1000, 4) == "x  [####]  100%  1.0 MB of 1.0 MB  3.0 MB/s  0 ms left");
}

TEST_CASE("what is done at once shows nothing") {
  std::ostringstream out;
  for (bool terminal : {true, false}) {
    Progress progress(out, terminal, "x");
    for (uint64_t i = 0; i < 1000; ++i) progress.update(i, 1000);
  }
  CHECK(out.str().empty());
}

}  // namespace
}  // namespace litefs
