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
#include "fuse/descriptor.h"
#include "fuse/mount_client.h"

namespace litefs {

struct MountedHere {
  dev_t device = 0;
  std::string type;  // "fuse.litefs"
};

// What is mounted on `path`, topmost (not always the newest: attach_mount); `path` as canonical_mount_point gives it.
Result<std::optional<MountedHere>> mounted_on(const std::string& path);

// The path with symbolic links resolved, without a request to whatever is mounted there.
Result<std::string> canonical_mount_point(const std::string& path);

// What is at `path` before we mount there. Nothing is changed, but that several dead mounts on top
// of one another are reduced to the lowest.
//
// A dead mount stays until ours stands: whoever opens a file there gets an error, while in the bare
// directory he would make a file that no node knows, and that would keep the next start from
// mounting. It does no harm either: a mount whose probe answers ENOTCONN has no connection any more,
// so nobody, a dying predecessor included, can be waiting in it.
enum class MountPointState {
  kEmpty,      // an empty directory
  kDeadMount,  // a FUSE mount whose daemon has died
};
// kNotFound, kInvalid (not a directory, not empty), or kExists (something lives there).
Result<MountPointState> check_mount_point(const std::string& path, MountClient& client, const Log& log);

struct MountRequest {
  int device_fd;
  std::string fs_name;
  bool allow_other = false;
};
// A mount that is nowhere yet: it ends when the descriptor is closed. The kernel's INIT waits at the
// device when this returns. kUnavailable without the privilege or the file system.
Result<Descriptor> make_mount(const MountRequest& request);

// Puts the mount on `path`, where it must be served already. A dead mount there is removed, without
// a moment in which the directory beneath can be seen: ours is put below it first.
Status attach_mount(const Descriptor& mount, const std::string& path, MountPointState on_it, const Log& log);

// Ends the connection, so that no request waits any more, and unmounts `path` when it is `device`
// that is mounted there. A busy one is detached, and the log says so: applications keep their open
// files, which only give errors.
Status end_mount(const std::string& path, dev_t device, const Log& log);

}  // namespace litefs
