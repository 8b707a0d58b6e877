#include "env/quiet_signals.h"

#include <initializer_list>

namespace litefs {

QuietSignals::QuietSignals() {
  sigset_t all;
  sigfillset(&all);
  // What this thread itself does wrong stays: blocked, it would kill without a report.
  for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&all, signal);
  pthread_sigmask(SIG_BLOCK, &all, &before_);
}

QuietSignals::~QuietSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

}  // namespace litefs
