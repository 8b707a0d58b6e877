// Follows the workload's counter through a node's change log, record by record, as a replica would
// apply it. Thread rule: plain functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace litefs::test {

// What a walk over a node's change log saw of the workload's counter.
struct CounterWalk {
  uint64_t records = 0;
  int64_t last = 0;
  std::vector<std::string> skipped;  // values that no record carries, and steps back
  std::vector<std::string> faults;   // records that do not decode or apply, TXIDs out of order
};
// Applies every record of the database's change log to an image in memory and follows the counter
// through it. Reads a copy of the log; the node may run, but its writers must be at rest.
CounterWalk log_counters(const std::string& data_directory, const std::string& database, const std::string& scratch);

}  // namespace litefs::test
