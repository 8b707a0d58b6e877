// This process's limits, and who has files open: those of a mount whose daemon is gone, or any. Thread rule: any
// thread.
#pragma once

#include <sys/resource.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace litefs {

// How many files this process may have open now: before the limit is raised, what programs that it starts should have
// (select() knows no descriptor above 1023).
Result<rlimit> open_files_limit();
// Raises the number of files that this process may have open to what the system allows it, and answers that. A node
// holds some for each database (kFilesPerDatabase at most, while nobody uses it).
Result<uint64_t> raise_open_files_max();
inline constexpr uint64_t kFilesPerDatabase = 12;

// This process's own id.
int process_id();
// The machine's name; "localhost" where it has none.
std::string machine_hostname();

struct ProcessName {
  int pid = 0;
  std::string command;  // as in /proc/PID/comm
};

struct OpenFile {
  ProcessName process;
  std::string path;  // as the kernel has it; from its mount's own root, where the mount is detached
  uint64_t device = 0;
};

// The files that processes have open on these devices (as stat has them), where they are dead mounts' devices: asking
// for the file's attributes answers ENOTCONN. Processes that this user may not look at are left out.
std::vector<OpenFile> open_on_dead_devices(const std::vector<uint64_t>& devices);

// Other processes that have one of these files open, by whatever path. Processes that this user may not look at are
// left out.
std::vector<ProcessName> processes_with_open(const std::vector<std::string>& paths);

// "python3 (pid 42), sqlite3 (pid 7)"; the first few.
std::string process_list_text(const std::vector<ProcessName>& processes);

}  // namespace litefs
