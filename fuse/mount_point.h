// The directory that is mounted on: what is there, mounting, unmounting.
//
// What is mounted where is read from /proc/self/mountinfo, as any question put to a mount itself
// may wait for its daemon. Thread rule: any thread.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/log.h"
#include "base/result.h"
#include "fuse/mount_client.h"

namespace litefs {

struct MountedHere {
  dev_t device = 0;
  std::string type;  // "fuse.litefs"
};

// What is mounted on `path`, topmost; `path` as canonical_mount_point gives it.
Result<std::optional<MountedHere>> mounted_on(const std::string& path);

// The path with symbolic links resolved, without a request to whatever is mounted there.
Result<std::string> canonical_mount_point(const std::string& path);

// Makes sure that `path` is an empty directory with nothing mounted on it. A FUSE mount whose
// daemon has died is unmounted, with a log line. Else kNotFound, kInvalid (not a directory, not
// empty), or kExists (something lives there).
Status prepare_mount_point(const std::string& path, MountClient& client, const Log& log);

struct MountRequest {
  int device_fd;
  std::string path;
  std::string fs_name;
  bool allow_other = false;
};
// kUnavailable without the privilege or the file system.
Status mount_device(const MountRequest& request);

// Ends the connection, so that no request waits any more, and unmounts `path` when it is `device`
// that is mounted there. A busy one is detached, and the log says so: applications keep their open
// files, which only give errors.
Status end_mount(const std::string& path, dev_t device, const Log& log);

}  // namespace litefs
