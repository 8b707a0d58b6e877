// The tests of the fuse room. Those in the suite "mount" need root and a kernel with FUSE
// passthrough; where that is missing they are left out, and the program ends with 77, which meson
// counts as skipped.
#define DOCTEST_CONFIG_IMPLEMENT

#include <cstdio>

#include "mount_process.h"
#include "test.h"

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  std::string missing = litefs::test::why_no_mount();
  if (!missing.empty()) {
    std::printf("skipped: the tests that mount (%s)\n", missing.c_str());
    context.addFilter("test-suite-exclude", "mount");
  }
  int failed = context.run();
  return failed != 0 || missing.empty() ? failed : 77;
}
