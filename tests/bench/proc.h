// What /proc and the kernel's sockets say of a node's processes. Thread rule: one thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace litefs::bench {

// A process and its descendants.
std::vector<pid_t> process_tree(pid_t root);

struct Memory {
  int64_t resident_bytes = 0;      // VmRSS, added up: pages shared between the processes count several times
  int64_t proportional_bytes = 0;  // Pss
};
Memory memory_of(const std::vector<pid_t>& processes);

// CPU time of all threads, ns.
int64_t cpu_ns(const std::vector<pid_t>& processes);

// Bytes of TCP payload that the process's connections on its listening port have sent and got
// acknowledged.
int64_t tcp_payload_sent(pid_t process, uint16_t port);
// And have received.
int64_t tcp_payload_received(pid_t process, uint16_t port);

}  // namespace litefs::bench
