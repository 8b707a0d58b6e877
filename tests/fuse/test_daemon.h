// What runs in the child of MountProcess (mount_process.h has the commands).
#pragma once

#include <string>

#include "fuse/mount.h"

namespace litefs::test {

// Mounts, says "ready" or the error on `socket`, and obeys it until its end. Does not return.
[[noreturn]] void run_test_daemon(int socket, const MountOptions& options);

}  // namespace litefs::test
