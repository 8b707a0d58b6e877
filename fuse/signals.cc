#include "fuse/signals.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <limits>

#include "env/file.h"

namespace litefs {
namespace {

void set_disposition(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  CHECK_EQ(sigaction(signal, &action, nullptr), 0);
}

bool is_ignored(int signal) {
  struct sigaction action;
  CHECK_EQ(sigaction(signal, nullptr, &action), 0);
  return action.sa_handler == SIG_IGN;
}

}  // namespace

Result<std::unique_ptr<Signals>> Signals::create() {
  std::unique_ptr<Signals> signals(new Signals());
  sigset_t& watched = signals->watched_;
  sigemptyset(&watched);
  for (int signal : {SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGCHLD}) sigaddset(&watched, signal);
  if (!is_ignored(SIGHUP)) sigaddset(&watched, SIGHUP);
  // A parent may have left these ignored: a shell's background job has SIGINT so, and with SIGCHLD so the kernel
  // would reap our child and its exit code be lost.
  set_disposition(SIGINT, SIG_DFL);
  set_disposition(SIGCHLD, SIG_DFL);
  set_disposition(SIGPIPE, SIG_IGN);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &watched, nullptr), 0);
  signals->signal_fd_ = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals->signal_fd_ < 0) return errno_error(errno, "create a signalfd");
  signals->wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (signals->wake_fd_ < 0) return errno_error(errno, "create an eventfd");
  return signals;
}

Signals::~Signals() {
  if (signal_fd_ >= 0) close(signal_fd_);
  if (wake_fd_ >= 0) close(wake_fd_);
}

Signals::Event Signals::wait(std::optional<std::chrono::steady_clock::time_point> deadline) {
  for (;;) {
    struct signalfd_siginfo info;
    if (read(signal_fd_, &info, sizeof info) == sizeof info) {
      return {Event::Kind::kSignal, static_cast<int>(info.ssi_signo), info.ssi_code == SI_KERNEL};
    }
    uint64_t count;
    if (read(wake_fd_, &count, sizeof count) == sizeof count) return {Event::Kind::kWoken};
    int timeout_ms = -1;
    if (deadline) {
      auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - std::chrono::steady_clock::now());
      if (left.count() <= 0) return {Event::Kind::kTimedOut};
      timeout_ms = static_cast<int>(std::min<int64_t>(left.count(), std::numeric_limits<int>::max()));
    }
    struct pollfd fds[] = {{signal_fd_, POLLIN, 0}, {wake_fd_, POLLIN, 0}};
    poll(fds, 2, timeout_ms);
  }
}

void Signals::wake() {
  uint64_t one = 1;
  // Fails only when the counter is full, and then it is awake.
  ssize_t written = write(wake_fd_, &one, sizeof one);
  static_cast<void>(written);
}

void Signals::release() {
  // Only those that stop: a late SIGUSR1, meant for the application, must not end a clean stop.
  sigset_t stops;
  sigemptyset(&stops);
  for (int signal : {SIGTERM, SIGINT, SIGHUP}) {
    if (sigismember(&watched_, signal) != 1) continue;
    set_disposition(signal, SIG_DFL);
    sigaddset(&stops, signal);
  }
  CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &stops, nullptr), 0);
}

}  // namespace litefs
