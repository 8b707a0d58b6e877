// Cleans up after a test process that may not be able to: unmounts, prints logs, removes its
// directory.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace litefs::test {

// The mount points below `directory`, deepest first, whatever mounted them.
std::vector<std::string> mounts_below(const std::string& directory);
// Aborts and detaches each of them; answers whether none is left.
bool unmount_below(const std::string& directory);
// The end of each node's log, to stderr.
void print_logs(const std::string& directory);

// Forks a process in a session of its own that waits for the end of `lifeline`'s other end and then
// cleans `directory`. A byte before the end says that the owner has cleaned up itself. Returns its
// pid.
pid_t start_janitor(const std::string& directory, int lifeline_read, int lifeline_write);

}  // namespace litefs::test
