#define DOCTEST_CONFIG_IMPLEMENT
#include <sqlite3.h>

#include <csignal>

#include "test.h"

namespace litefs::test {
// What SQLite logs, for the tests that look at it; it must be set before SQLite's first use.
void log_to_test(void*, int, const char* text);
}  // namespace litefs::test

int main(int argc, char** argv) {
  for (int signal : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE}) std::signal(signal, SIG_DFL);
  void (*log)(void*, int, const char*) = litefs::test::log_to_test;
  sqlite3_config(SQLITE_CONFIG_LOG, log, nullptr);
  return doctest::Context(argc, argv).run();
}
