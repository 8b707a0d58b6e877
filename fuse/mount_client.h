// The node as a user of its own mount: one thread that opens files through it and takes locks on
// them.
//
// Why apart: a thread that waits for a request on our own mount cannot be killed until it is
// answered. When the process is killed, the kernel answers everything as soon as the device is
// closed, which happens when the last thread of its descriptor table has ended. So this thread has
// a table of its own (unshare(CLONE_FILES)) that holds standard input, output and error and what it
// opens itself, never the device; and nobody else touches the mount. Its descriptors mean nothing
// elsewhere: a door's locks are taken here, call by call.
//
// Every call has a deadline, after which it answers kTimedOut while the thread may still be
// waiting.
//
// Thread rule: any thread but those that serve the mount (their answer is what this thread waits
// for).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "fuse/quiet_thread.h"
#include "sqlite/locks.h"

namespace litefs {

inline constexpr std::chrono::milliseconds kClientCallMax{10'000};
inline constexpr size_t kClientJobsMax = 1024;

class MountClient {
 public:
  // The thread is there when this returns. `mount_dir` need not be mounted yet.
  static Result<std::unique_ptr<MountClient>> start(const std::string& mount_dir,
                                                    std::chrono::milliseconds call_max = kClientCallMax);
  // Stops, waiting as long as a call may take.
  ~MountClient();
  MountClient(const MountClient&) = delete;
  MountClient& operator=(const MountClient&) = delete;

  // By which the mount recognises this thread's requests.
  pid_t thread_id() const { return thread_id_; }

  // The locks of database `name`, through the mount. Opens NAME read-only, and for the first lock on it NAME-shm
  // read-write; the latter is made, with the database's owner and mode as SQLite does it, when it is missing.
  // kNotFound: no such database. The door's files are closed, and its locks with them, when it is
  // destroyed.
  Result<std::unique_ptr<LockDoor>> lock_door(const std::string& name);

  // Asks, without waiting for it, whether any process has the wal-index of database `name` open: whether its DMS byte
  // is locked (sqlite/locks.h). `done` is called once, on this client's thread or at once, and does not wait.
  void ask_index_in_use(const std::string& name, std::function<void(const Result<bool>&)> done);

  // Asks whoever serves `path` for its attributes, past all caches. The errno, 0 for success, and
  // the device it is on.
  struct Answer {
    int error = 0;
    dev_t device = 0;
  };
  Result<Answer> probe(const std::string& path, std::chrono::milliseconds time_max);

  // Closes all files and ends the thread; later calls answer kCancelled. False: it is still waiting
  // for the mount at the deadline. May be called again, and then waits again.
  bool stop(Deadline deadline);

 private:
  struct State;
  class Door;

  MountClient() = default;
  static void run(State& state);

  std::shared_ptr<State> state_;
  std::unique_ptr<QuietThread> thread_;
  pid_t thread_id_ = 0;
};

}  // namespace litefs
