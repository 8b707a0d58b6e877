// Threads of a library take no signals: those that are started while this exists have all of them blocked, so that the
// application's handlers run on its own threads. Thread rule: made and destroyed by one thread.
#pragma once

#include <csignal>

namespace litefs {

class QuietSignals {
 public:
  QuietSignals();
  ~QuietSignals();
  QuietSignals(const QuietSignals&) = delete;
  QuietSignals& operator=(const QuietSignals&) = delete;

 private:
  sigset_t before_;
};

}  // namespace litefs
