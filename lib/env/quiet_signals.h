// Threads that take no signals: those that are started while this exists inherit a mask that blocks them all, so that
// there is no moment in which they take one. An application's handlers run on its own threads, the mount's signals come
// to main. Thread rule: made and destroyed by one thread.
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
