#include "env/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "env/file.h"

namespace litefs {
namespace {

constexpr size_t kNamedMax = 5;

// Calls visit(name) for each entry of a directory; nothing where it cannot be read.
template <class Visit>
void for_each_entry(const std::string& path, Visit visit) {
  DIR* dir = opendir(path.c_str());
  if (!dir) return;
  while (struct dirent* entry = readdir(dir)) visit(std::string(entry->d_name));
  closedir(dir);
}

bool is_on_dead_device(const std::string& link, const std::vector<uint64_t>& devices, uint64_t& device) {
  // Asks nobody, so that no other mount's daemon has to answer.
  struct statx info;
  if (statx(AT_FDCWD, link.c_str(), AT_STATX_DONT_SYNC, STATX_TYPE, &info) != 0) return false;
  device = makedev(info.stx_dev_major, info.stx_dev_minor);
  if (std::find(devices.begin(), devices.end(), device) == devices.end()) return false;
  // The number may be a living mount's by now. Past the kernel's cache, which goes on answering for a dead mount's
  // files.
  return statx(AT_FDCWD, link.c_str(), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &info) != 0 && errno == ENOTCONN;
}

ProcessName name_process(const std::string& pid) {
  ProcessName process;
  process.pid = std::atoi(pid.c_str());
  if (FILE* comm = std::fopen(("/proc/" + pid + "/comm").c_str(), "re")) {
    char text[64] = "";
    if (std::fgets(text, sizeof text, comm)) process.command = text;
    std::fclose(comm);
    while (!process.command.empty() && process.command.back() == '\n') process.command.pop_back();
  }
  return process;
}

// Calls visit(pid, link, path) for each file or directory that a process has open: the link of its descriptor, and what
// that leads to.
template <class Visit>
void for_each_open_file(Visit visit) {
  for_each_entry("/proc", [&](const std::string& pid) {
    if (pid.find_first_not_of("0123456789") != std::string::npos) return;
    for_each_entry("/proc/" + pid + "/fd", [&](const std::string& fd) {
      if (fd[0] == '.') return;
      const std::string link = "/proc/" + pid + "/fd/" + fd;
      char target[4096];
      const ssize_t n = readlink(link.c_str(), target, sizeof target - 1);
      // Anything else is a socket or a pipe.
      if (n > 0 && target[0] == '/') visit(pid, link, std::string(target, static_cast<size_t>(n)));
    });
  });
}

}  // namespace

Result<rlimit> open_files_limit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return errno_error(errno, "asking how many files may be open");
  return limit;
}

Result<uint64_t> raise_open_files_max() {
  rlimit limit = TRY(open_files_limit());
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
      return errno_error(errno, "raising the limit of open files to " + std::to_string(limit.rlim_max));
    }
  }
  return static_cast<uint64_t>(limit.rlim_cur);
}

int process_id() { return getpid(); }

std::string machine_hostname() {
  char name[256] = "";
  if (gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') return "localhost";
  return name;
}

std::vector<OpenFile> open_on_dead_devices(const std::vector<uint64_t>& devices) {
  std::vector<OpenFile> found;
  for_each_open_file([&](const std::string& pid, const std::string& link, const std::string& path) {
    uint64_t device = 0;
    if (is_on_dead_device(link, devices, device)) found.push_back({name_process(pid), path, device});
  });
  return found;
}

std::vector<ProcessName> processes_with_open(const std::vector<std::string>& paths) {
  struct Known {
    std::string name;
    dev_t device;
    ino_t inode;
  };
  std::vector<Known> files;
  for (const std::string& path : paths) {
    struct stat info;
    if (stat(path.c_str(), &info) == 0) {
      files.push_back({path.substr(path.rfind('/') + 1), info.st_dev, info.st_ino});
    }
  }
  std::vector<ProcessName> found;
  for_each_open_file([&](const std::string& pid, const std::string& link, const std::string& path) {
    if (!found.empty() && found.back().pid == std::atoi(pid.c_str())) return;
    const bool holds = std::any_of(files.begin(), files.end(), [&](const Known& file) {
      // By name first: asking about a file on some other, dead mount could wait.
      if (path.substr(path.rfind('/') + 1) != file.name) return false;
      struct stat info;
      return stat(link.c_str(), &info) == 0 && info.st_dev == file.device && info.st_ino == file.inode;
    });
    if (holds) found.push_back(name_process(pid));
  });
  std::erase_if(found, [](const ProcessName& process) { return process.pid == getpid(); });
  return found;
}

std::string process_list_text(const std::vector<ProcessName>& processes) {
  std::string text;
  for (size_t i = 0; i < processes.size() && i < kNamedMax; ++i) {
    if (i > 0) text += ", ";
    text += processes[i].command + " (pid " + std::to_string(processes[i].pid) + ")";
  }
  if (processes.size() > kNamedMax) text += ", …";
  return text;
}

}  // namespace litefs
