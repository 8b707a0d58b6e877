#include "bench/proc.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <sstream>
#include <string>

#include "system/process.h"

namespace litefs::bench {

namespace {

// The numeric names in a directory of /proc.
std::vector<int> numbers_in(const std::string& path) {
  std::vector<int> numbers;
  DIR* directory = opendir(path.c_str());
  if (!directory) return numbers;
  while (dirent* entry = readdir(directory)) {
    if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9') numbers.push_back(atoi(entry->d_name));
  }
  closedir(directory);
  return numbers;
}

// "NAME:   123 kB" in a file of such lines, in bytes.
int64_t kilobytes_line(const std::string& text, const std::string& name) {
  size_t at = text.find("\n" + name + ":");
  if (at == std::string::npos) return 0;
  return std::atoll(text.c_str() + at + name.size() + 2) * 1024;
}

pid_t parent_of(pid_t process) {
  std::string stat = test::read_text_file("/proc/" + std::to_string(process) + "/stat");
  size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return 0;
  char state;
  pid_t parent = 0;
  std::istringstream(stat.substr(name_end + 1)) >> state >> parent;
  return parent;
}

uint16_t local_port(int socket_fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(socket_fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  if (address.ss_family == AF_INET) return ntohs(reinterpret_cast<sockaddr_in&>(address).sin_port);
  if (address.ss_family == AF_INET6) return ntohs(reinterpret_cast<sockaddr_in6&>(address).sin6_port);
  return 0;
}

// Adds up what `count` takes from each connection on the process's port.
int64_t tcp_total(pid_t process, uint16_t port, const std::function<uint64_t(const tcp_info&)>& count) {
  int64_t total = 0;
  int pidfd = static_cast<int>(syscall(SYS_pidfd_open, process, 0));
  std::string descriptors = "/proc/" + std::to_string(process) + "/fd";
  for (int number : numbers_in(descriptors)) {
    std::error_code error;
    auto target = std::filesystem::read_symlink(descriptors + "/" + std::to_string(number), error);
    if (error || target.string().rfind("socket:", 0) != 0) continue;
    int fd = static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, number, 0));
    if (fd < 0) continue;
    tcp_info info{};
    socklen_t size = sizeof info;
    if (local_port(fd) == port && getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0) {
      total += static_cast<int64_t>(count(info));
    }
    close(fd);
  }
  close(pidfd);
  return total;
}

}  // namespace

std::vector<pid_t> process_tree(pid_t root) {
  std::vector<pid_t> all = numbers_in("/proc");
  std::vector<pid_t> tree = {root};
  for (size_t i = 0; i < tree.size(); i++) {
    for (pid_t process : all) {
      if (parent_of(process) == tree[i]) tree.push_back(process);
    }
  }
  return tree;
}

Memory memory_of(const std::vector<pid_t>& processes) {
  Memory memory;
  for (pid_t process : processes) {
    std::string directory = "/proc/" + std::to_string(process);
    memory.resident_bytes += kilobytes_line(test::read_text_file(directory + "/status"), "VmRSS");
    memory.proportional_bytes += kilobytes_line(test::read_text_file(directory + "/smaps_rollup"), "Pss");
  }
  return memory;
}

int64_t cpu_ns(const std::vector<pid_t>& processes) {
  int64_t total = 0;
  for (pid_t process : processes) {
    std::string tasks = "/proc/" + std::to_string(process) + "/task";
    for (int task : numbers_in(tasks)) {
      // The first number of schedstat is the time on a CPU, ns.
      total += std::atoll(test::read_text_file(tasks + "/" + std::to_string(task) + "/schedstat").c_str());
    }
  }
  return total;
}

// Each connection's count begins with one for its SYN: differences are what is asked for.
int64_t tcp_payload_sent(pid_t process, uint16_t port) {
  return tcp_total(process, port, [](const tcp_info& info) { return info.tcpi_bytes_acked; });
}

int64_t tcp_payload_received(pid_t process, uint16_t port) {
  return tcp_total(process, port, [](const tcp_info& info) { return info.tcpi_bytes_received; });
}

}  // namespace litefs::bench
