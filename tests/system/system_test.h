// What the system tests share: a cluster that knows whether a test failed, seeds, durations,
// writers' ledgers. A test includes this header last: it brings doctest.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "system/cluster.h"
#include "system/log_counters.h"
#include "test.h"

namespace litefs::test {

// Options of a cluster whose logs are printed when the running test case has failed.
ClusterOptions cluster_options(size_t nodes);

// LITEFS_TEST_SEED, or a random one; printed once a test program.
uint64_t test_seed();

// A number from the environment, for durations that CI keeps short.
int64_t environment_number(const char* name, int64_t otherwise);

// Starts the primary and one replica, with a database "db" in WAL that holds an empty table t(id, v), equal on both.
void start_pair(Cluster& cluster);

// The writers that worked on one database, and what each was told had been committed.
class Ledger {
 public:
  Ledger(Cluster& cluster, const std::string& database) : cluster_(cluster), database_(database) {}

  // Spawns a writer on the primary with the next number, whose errors go to a file of its own.
  // `seconds`: 0 is no limit.
  std::unique_ptr<Process> spawn_writer(double seconds, const std::string& profile, uint64_t seed);
  // Nothing reported committed is missing on the node: no number was given twice, none is above the
  // counter, and each entry still kept names the writer that reported it. Throws what is wrong.
  void check(size_t node);
  // Where the last spawned writer's errors go.
  const std::string& error_path() const { return error_path_; }

 private:
  Cluster& cluster_;
  std::string database_;
  std::map<int64_t, std::string> committed_paths_;  // by writer
  std::string error_path_;
};

}  // namespace litefs::test
