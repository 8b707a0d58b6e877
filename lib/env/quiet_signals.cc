#include "env/quiet_signals.h"

#include <initializer_list>

namespace litefs {

QuietSignals::QuietSignals() {
  sigset_t all;
  sigfillset(&all);
  // What this thread itself does wrong must not become a silent loop.
  for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&all, signal);
  pthread_sigmask(SIG_BLOCK, &all, &before_);
}

QuietSignals::~QuietSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

}  // namespace litefs
