#define DOCTEST_CONFIG_IMPLEMENT
#include <csignal>

#include "test.h"

int main(int argc, char** argv) {
  // Whoever starts the tests in the background has these ignored, which applications under test would inherit.
  for (int signal : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE}) std::signal(signal, SIG_DFL);
  return doctest::Context(argc, argv).run();
}
