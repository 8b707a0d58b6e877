// The benchmark's parts and what they share. Thread rule: one thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/report.h"
#include "bench/worker.h"
#include "system/cluster.h"

namespace litefs::bench {

struct Options {
  std::vector<std::string> only;  // names; empty: all
  std::string replica = "both";   // no, yes, both
  int rounds = 9;
  int slice_ms = 300;
  bool quick = false;  // fewer rounds, smaller databases: to see that it works, not for figures
  std::string litefs;
  std::string passthrough;
  std::string directory;  // where everything is made; empty: the system's temporary directory

  bool wants(const std::string& name) const;
  int64_t big_bytes() const { return quick ? 20'000'000 : 200'000'000; }
  int64_t resync_bytes() const { return quick ? 60'000'000 : 500'000'000; }
  int64_t huge_bytes() const { return quick ? 60'000'000 : 2'000'000'000; }
  test::ClusterOptions cluster(size_t nodes) const;
};

// The names that `only` may hold, of each part.
std::vector<std::string> local_names();
std::vector<std::string> replication_names();
std::vector<std::string> restart_names();

// Applications on native files, on the bare pass-through and on the mount, in interleaved slices.
void run_local(const Options& options, bool with_replica);
// Latency, catch-up, bytes on the wire, first load, resync.
void run_replication(const Options& options);
// Restart after SIGKILL, memory, idle CPU.
void run_restart(const Options& options);

}  // namespace litefs::bench
