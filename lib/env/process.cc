#include "env/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
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

bool is_dead_file(const std::string& link, const std::vector<std::string>& file_names) {
  char target[4096];
  ssize_t n = readlink(link.c_str(), target, sizeof target - 1);
  if (n <= 0) return false;
  std::string path(target, static_cast<size_t>(n));
  auto named = std::find_if(file_names.begin(), file_names.end(),
                            [&](const std::string& name) { return path.ends_with("/" + name); });
  if (named == file_names.end()) return false;
  // A file of a detached mount has a path from that mount's own root.
  if (path.size() == named->size() + 1) return true;
  // Past the kernel's cache, which goes on answering for files of a dead mount.
  struct statx info;
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

// Processes of which holds(link) is true for the link of some descriptor.
template <class Holds>
std::vector<ProcessName> processes_where(Holds holds) {
  std::vector<ProcessName> found;
  for_each_entry("/proc", [&](const std::string& pid) {
    if (pid.find_first_not_of("0123456789") != std::string::npos) return;
    bool any = false;
    for_each_entry("/proc/" + pid + "/fd", [&](const std::string& fd) {
      if (!any && fd[0] != '.') any = holds("/proc/" + pid + "/fd/" + fd);
    });
    if (any) found.push_back(name_process(pid));
  });
  return found;
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

std::vector<ProcessName> processes_on_dead_mount(const std::vector<std::string>& file_names) {
  return processes_where([&](const std::string& link) { return is_dead_file(link, file_names); });
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
  std::vector<ProcessName> found = processes_where([&](const std::string& link) {
    char target[4096];
    ssize_t n = readlink(link.c_str(), target, sizeof target - 1);
    if (n <= 0) return false;
    std::string path(target, static_cast<size_t>(n));
    return std::any_of(files.begin(), files.end(), [&](const Known& file) {
      // By name first: asking about a file on some other, dead mount could wait.
      if (path.substr(path.rfind('/') + 1) != file.name) return false;
      struct stat info;
      return stat(link.c_str(), &info) == 0 && info.st_dev == file.device && info.st_ino == file.inode;
    });
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
