#include "env/process.h"

#include <dirent.h>
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
  struct stat info;
  return stat(link.c_str(), &info) != 0 && errno == ENOTCONN;
}

}  // namespace

Result<uint64_t> raise_open_files_max() {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return errno_error(errno, "asking how many files may be open");
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
      return errno_error(errno, "raising the limit of open files to " + std::to_string(limit.rlim_max));
    }
  }
  return static_cast<uint64_t>(limit.rlim_cur);
}

std::vector<ProcessName> processes_on_dead_mount(const std::vector<std::string>& file_names) {
  std::vector<ProcessName> found;
  for_each_entry("/proc", [&](const std::string& pid) {
    if (pid.find_first_not_of("0123456789") != std::string::npos) return;
    bool holds = false;
    for_each_entry("/proc/" + pid + "/fd", [&](const std::string& fd) {
      if (!holds && fd[0] != '.') holds = is_dead_file("/proc/" + pid + "/fd/" + fd, file_names);
    });
    if (!holds) return;
    ProcessName process;
    process.pid = std::atoi(pid.c_str());
    if (FILE* comm = std::fopen(("/proc/" + pid + "/comm").c_str(), "re")) {
      char text[64] = "";
      if (std::fgets(text, sizeof text, comm)) process.command = text;
      std::fclose(comm);
      while (!process.command.empty() && process.command.back() == '\n') process.command.pop_back();
    }
    found.push_back(std::move(process));
  });
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
