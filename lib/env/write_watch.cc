#include "env/write_watch.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>

#include "env/file.h"

namespace litefs {

Result<std::unique_ptr<WriteWatch>> WriteWatch::create() {
  OwnedDescriptor inotify_fd = OwnedDescriptor::from([] { return inotify_init1(IN_CLOEXEC | IN_NONBLOCK); });
  if (inotify_fd.get() < 0) return errno_error(errno, "inotify_init (fs.inotify.max_user_instances may be too low)");
  OwnedDescriptor wake_fd = OwnedDescriptor::from([] { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); });
  if (wake_fd.get() < 0) return errno_error(errno, "eventfd");
  return std::unique_ptr<WriteWatch>(new WriteWatch(std::move(inotify_fd), std::move(wake_fd)));
}

Result<int> WriteWatch::add(int fd) {
  std::string path = "/proc/self/fd/" + std::to_string(fd);
  int watch = inotify_add_watch(inotify_fd_.get(), path.c_str(), IN_MODIFY);
  if (watch < 0) return errno_error(errno, "watch a WAL (fs.inotify.max_user_watches may be too low)");
  return watch;
}

void WriteWatch::remove(int watch) { inotify_rm_watch(inotify_fd_.get(), watch); }

std::vector<int> WriteWatch::wait(int timeout_ms) {
  std::vector<int> written;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  bool woken = false;
  while (written.empty() && !woken) {
    int left_ms = timeout_ms;
    if (timeout_ms >= 0) {
      auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      left_ms = static_cast<int>(std::max<int64_t>(0, left.count()));
    }
    struct pollfd fds[2] = {{inotify_fd_.get(), POLLIN, 0}, {wake_fd_.get(), POLLIN, 0}};
    int ready = poll(fds, 2, left_ms);
    if (ready == 0 || (ready < 0 && errno != EINTR)) break;
    if (fds[1].revents) {
      woken = true;
      uint64_t count;
      while (read(wake_fd_.get(), &count, sizeof count) > 0) {
      }
    }
    // The removal of a watch is an event, too, and none that anybody waits for.
    read_writes(written);
  }
  return written;
}

void WriteWatch::read_writes(std::vector<int>& written) {
  alignas(struct inotify_event) char buffer[4096];
  for (;;) {
    ssize_t n = read(inotify_fd_.get(), buffer, sizeof buffer);
    if (n <= 0) return;
    for (ssize_t at = 0; at < n;) {
      struct inotify_event event;
      std::memcpy(&event, buffer + at, sizeof event);
      if (event.mask & IN_MODIFY) written.push_back(event.wd);
      at += static_cast<ssize_t>(sizeof event + event.len);
    }
  }
}

void WriteWatch::wake() {
  uint64_t one = 1;
  // A full counter means that a wake-up is waiting already.
  if (write(wake_fd_.get(), &one, sizeof one) < 0 && errno != EAGAIN) return;
}

void sleep_us(int64_t us) {
  struct timespec t = {us / 1000000, (us % 1000000) * 1000};
  nanosleep(&t, nullptr);
}

void precise_sleeps() { prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); }

}  // namespace litefs
