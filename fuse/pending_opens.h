// OPEN and CREATE requests while the hooks have not decided on them.
//
// before_open may answer at once, or later from any thread. An undecided request holds no serving
// thread: it waits here, until it is decided, its deadline passes (kBusy), its application gives up
// (EINTR), or the mount stops (kCancelled). Those decided late are finished on this object's own
// thread, as `done` may be called where no file may be touched; those decided at once on the thread
// that asked.
//
// Thread rule: any thread; the mutex is held across nothing.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "fuse/quiet_thread.h"

struct fuse_req;

namespace litefs {

inline constexpr size_t kPendingOpensMax = 4096;

struct OpenRequest {
  fuse_req* request = nullptr;
  std::string name;
  uint64_t node = 0;  // 0: CREATE
  int flags = 0;      // as of open(2)
  mode_t mode = 0;    // CREATE: the umask is applied
  uid_t uid = 0;
  gid_t gid = 0;
};

class PendingOpens : public std::enable_shared_from_this<PendingOpens> {
 public:
  using Done = std::function<void(Status)>;
  // Answers a request; the error is what it is to be refused with.
  using Finish = std::function<void(const OpenRequest&, const Status&)>;

  static std::shared_ptr<PendingOpens> create(Finish finish, std::chrono::milliseconds time_max) {
    return std::shared_ptr<PendingOpens>(new PendingOpens(std::move(finish), time_max));
  }

  void start();
  // Has `ask` decide on the request, which is finished exactly once.
  void submit(const OpenRequest& request, const std::function<void(Done)>& ask);
  // Answers all that wait, and from here on everything. False: the thread still runs at the
  // deadline, and is abandoned.
  bool stop(Deadline deadline);

 private:
  struct Slot {
    OpenRequest open;
    Deadline deadline;
    std::optional<Status> decision;
    bool parked = false;       // its serving thread has left it to us
    bool interrupted = false;  // before it was parked
  };

  PendingOpens(Finish finish, std::chrono::milliseconds time_max) : finish_(std::move(finish)), time_max_(time_max) {}
  void decide(const std::shared_ptr<Slot>& slot, Status status);
  void interrupt(fuse_req* request);
  std::optional<Status> park(const std::shared_ptr<Slot>& slot);
  void run();
  std::vector<std::shared_ptr<Slot>> take_due() REQUIRES(mutex_);

  Finish finish_;
  std::chrono::milliseconds time_max_;
  Mutex mutex_;
  CondVar changed_;
  std::map<fuse_req*, std::shared_ptr<Slot>> slots_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::unique_ptr<QuietThread> thread_;
};

}  // namespace litefs
