// Signals as events that the main thread waits for.
//
// Built first thing in main, before any thread: it blocks the signals below in the calling thread, and threads
// inherit that. So no handler runs anywhere, and no system call of another thread is interrupted.
//
//   SIGTERM, SIGINT   stop
//   SIGHUP            the application's, if there is one; else stop. Stays ignored where litefs was started so (nohup)
//   SIGUSR1, SIGUSR2  the application's
//   SIGCHLD           a child may have ended (exec.h)
//
// SIGPIPE is ignored for the life of the process. Thread rule: wait() and release() by the thread that built it;
// wake() by any thread.
#pragma once

#include <signal.h>

#include <chrono>
#include <memory>
#include <optional>

#include "base/result.h"

namespace litefs {

class Signals {
 public:
  static Result<std::unique_ptr<Signals>> create();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  struct Event {
    enum class Kind { kSignal, kWoken, kTimedOut };
    Kind kind = Kind::kTimedOut;
    int signal = 0;
    // A key at the terminal or its closing; the kernel has sent it to the whole process group, the
    // application included.
    bool from_terminal = false;
  };

  // The next signal, or a wake(), or the deadline. Without a deadline it waits until one of the others comes.
  Event wait(std::optional<std::chrono::steady_clock::time_point> deadline);

  // Makes wait() return kWoken, once for any number of calls.
  void wake();

  // Gives SIGTERM, SIGINT and SIGHUP their default effect again: from here on they end the process at once.
  // For the end of main, so that whoever does not want to wait for a clean stop can send a second signal.
  void release();

 private:
  Signals() = default;

  sigset_t watched_;
  int signal_fd_ = -1;
  int wake_fd_ = -1;
};

}  // namespace litefs
