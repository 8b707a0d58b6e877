#define DOCTEST_CONFIG_IMPLEMENT
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "child.h"
#include "test.h"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a child that is gone shows in write()
  int child = litefs::test::child_main(argc, argv);
  if (child >= 0) return child;
  // Nothing here depends on a device, and SQLite syncs a lot.
  if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 0);
  return doctest::Context(argc, argv).run();
}
