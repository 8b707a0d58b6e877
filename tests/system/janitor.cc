#include "system/janitor.h"

#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "system/process.h"

namespace litefs::test {

namespace {

constexpr size_t kLogTailBytes = 8000;
constexpr int kUnmountTries = 5;
constexpr useconds_t kUnmountPauseUs = 100000;

[[noreturn]] void run_janitor(const std::string& directory, int lifeline) {
  setsid();
  for (int number : {SIGINT, SIGTERM, SIGHUP}) signal(number, SIG_IGN);
  char byte;
  ssize_t got;
  do got = read(lifeline, &byte, 1);
  while (got < 0 && errno == EINTR);
  if (got == 1) _exit(0);
  std::cerr << "the test process is gone without cleaning up\n";
  print_logs(directory);
  unmount_below(directory);
  std::error_code ignored;
  // Never descend into a mount that could not be taken away.
  if (mounts_below(directory).empty()) std::filesystem::remove_all(directory, ignored);
  _exit(0);
}

}  // namespace

std::vector<std::string> mounts_below(const std::string& directory) {
  std::vector<std::string> found;
  std::ifstream mounts("/proc/self/mountinfo");
  std::string line;
  while (std::getline(mounts, line)) {
    std::istringstream words(line);
    std::string skipped;
    std::string point;
    for (int i = 0; i < 4; i++) words >> skipped;
    words >> point;
    if (point.rfind(directory + "/", 0) == 0) found.push_back(point);
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

bool unmount_below(const std::string& directory) {
  for (int i = 0; i < kUnmountTries; i++) {
    std::vector<std::string> mounts = mounts_below(directory);
    if (mounts.empty()) return true;
    for (const std::string& point : mounts) umount2(point.c_str(), MNT_FORCE | MNT_DETACH);
    if (mounts_below(directory).empty()) return true;
    usleep(kUnmountPauseUs);
  }
  return false;
}

void print_logs(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (!entry.is_directory()) continue;
    std::string text = read_text_file(entry.path().string() + "/log");
    if (text.empty()) continue;
    std::cerr << "---- log of " << entry.path().filename().string() << "\n"
              << (text.size() > kLogTailBytes ? text.substr(text.size() - kLogTailBytes) : text);
  }
}

pid_t start_janitor(const std::string& directory, int lifeline_read, int lifeline_write) {
  // Or the janitor would print again what the owner has not printed yet.
  std::cout.flush();
  fflush(nullptr);
  pid_t pid = fork();
  if (pid != 0) return pid;
  close(lifeline_write);
  run_janitor(directory, lifeline_read);
}

}  // namespace litefs::test
