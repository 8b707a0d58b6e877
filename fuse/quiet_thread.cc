#include "fuse/quiet_thread.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>

#include "base/mutex.h"
#include "env/file.h"
#include "env/quiet_signals.h"
#include "env/worker_pool.h"

namespace litefs {

struct QuietThread::End {
  Mutex mutex;
  CondVar changed;
  bool reached GUARDED_BY(mutex) = false;
};

Result<int> take_own_descriptors(int keep) {
  constexpr int kFirst = STDERR_FILENO + 1;
  if (unshare(CLONE_FILES) == 0 && (keep < 0 || keep == kFirst || dup3(keep, kFirst, O_CLOEXEC) == kFirst) &&
      close_range(keep < 0 ? kFirst : kFirst + 1, ~0U, 0) == 0) {
    return keep < 0 ? -1 : kFirst;
  }
  return errno_error(errno, "giving a thread of the mount a descriptor table of its own");
}

QuietThread::QuietThread(const std::string& name, std::function<void()> body) : end_(std::make_shared<End>()) {
  QuietSignals quiet;
  thread_ = std::thread([end = end_, name, body = std::move(body)]() mutable {
    name_thread(name);
    body();
    body = nullptr;
    MutexLock lock(end->mutex);
    end->reached = true;
    end->changed.notify_all();
  });
}

QuietThread::~QuietThread() {
  if (thread_.joinable()) thread_.join();
}

bool QuietThread::join_until(Deadline deadline) {
  if (!thread_.joinable()) return true;
  {
    MutexLock lock(end_->mutex);
    while (!end_->reached) {
      if (!end_->changed.wait_until(end_->mutex, deadline) && !end_->reached) return false;
    }
  }
  thread_.join();
  return true;
}

void QuietThread::abandon() {
  if (thread_.joinable()) thread_.detach();
}

}  // namespace litefs
