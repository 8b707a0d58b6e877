// The mount: DATA/db, shown to applications at a directory of their own (FUSE.md, plan P).
//
// Needs Linux 6.9 with FUSE passthrough and CAP_SYS_ADMIN; start() says in one line what is
// missing. What requests mean is operations.h; what they mean to databases are the hooks. Nothing
// here ever waits for ever: a start, a stop, an open and every call of the client and the notifier
// have deadlines.
//
// When the process is killed at any moment, all its threads end at once, applications get errors
// (ENOTCONN) for everything that needs us, and the dead mount stays until the next start() puts its
// own in its place (mount_point.h). Files that are passed through go on working for those who have
// them open (FUSE.md, section 6).
//
// Thread rule: the owner's thread, which must not use the mount itself (mount_client.h says why).
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/log.h"
#include "base/result.h"
#include "fuse/hooks.h"
#include "fuse/mount_client.h"
#include "fuse/notifier.h"

namespace litefs {

struct MountOptions {
  std::string mount_dir;    // exists, and is empty, or has a dead mount on it
  std::string backing_dir;  // DATA/db, exists
  // Without it only processes of the user that mounts may use the mount.
  bool allow_other = false;
  std::string fs_name = "litefs";
  // An open that the hooks have not decided by then is EBUSY.
  std::chrono::milliseconds open_max{10'000};
  std::chrono::milliseconds client_call_max = kClientCallMax;
  // For requests that run when stop() begins, and again for the threads to end.
  std::chrono::milliseconds stop_max{10'000};
  // Before applications can find the mount: its device, as stat has it. An error ends the start.
  std::function<Status(uint64_t device)> mounting{};
  // Called once, on a serving thread, when somebody else has unmounted or aborted the mount. stop()
  // is still due.
  std::function<void()> ended;
};

class Mount {
 public:
  // Mounted, and answering. A dead mount at mount_dir is replaced last of all. kUnavailable: no device, no
  // permission, no passthrough; kNotFound, kInvalid, kExists: the mount point will not do.
  static Result<std::unique_ptr<Mount>> start(const MountOptions& options, std::shared_ptr<MountHooks> hooks,
                                              const Log& log);
  // stop(), if that has not been called.
  ~Mount();
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;

  // Refuses new opens and answers those that wait, lets running requests finish, unmounts (a busy
  // mount is detached, and the log says so) and ends all threads. The hooks are not told of files
  // that are still open. kTimedOut: a hook did not come back in time; its thread, and all it refers
  // to, is left alone, and the process should end.
  Status stop();

  // The mount point, resolved.
  const std::string& path() const;
  MountClient& client();
  Notifier& notifier();

  // For tests and status.
  size_t serving_threads();
  size_t known_nodes();

 private:
  struct Core;
  explicit Mount(std::unique_ptr<Core> core);

  std::unique_ptr<Core> core_;
};

}  // namespace litefs
