// A node's configuration: the file litefs.yml, checked whole before anything starts.
//
// Keys are LiteFS's own where the meaning is the same, so that its users' files work; those of LiteFS that liblitefs
// does not have are errors that say so, and any other key is an error with its line. The table of keys is in
// options.cc (for readers: in README.md). `$NAME` and `${…}` in values are replaced by values.h's rules; as this
// is done value by value, after the YAML has been read, a variable cannot change the file's structure.
//
// What is checked: types and values, keys given twice, and that the keys fit each other. What is not: anything that
// only the machine can tell (whether directories exist, the port is free). Thread rule: plain values, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "node/values.h"

namespace litefs {

// What an application's read-write open gets on a replica's mount (FUSE.md 2 and 4).
enum class ReplicaOpen {
  kAuto,      // as kReadOnly where lease.candidate is false, as kWritable where it is true
  kReadOnly,  // refused, so that SQLite opens read-only
  kWritable,  // granted; a writer gets "database is locked"
};

struct ExecCommand {
  std::vector<std::string> argv;  // at least one
  bool if_candidate = false;      // skipped on a node with lease.candidate false
};

struct Options {
  std::string fuse_dir;  // absolute, as data_dir; neither lies in the other. Empty: no mount
  bool fuse_allow_other = false;
  ReplicaOpen fuse_replica_open = ReplicaOpen::kAuto;

  std::string data_dir;
  int64_t retention_ms = 24LL * 3600 * 1000;
  uint64_t retention_bytes = uint64_t{1} << 30;  // for each database
  int64_t retention_monitor_interval_ms = 60 * 1000;

  HostPort listen = {"", 20202};  // port 0: any free one

  // The static lease: the one candidate is the primary.
  bool candidate = true;
  std::string hostname;  // what other nodes call this one; never empty
  HostPort primary;      // where the primary is reached (lease.advertise-url)

  LogLevel log_level = LogLevel::kInfo;
  bool log_timestamps = true;

  // Run in order once the databases are readable; each but the last must succeed before the next one starts.
  std::vector<ExecCommand> exec;
};

// What a configuration may refer to outside of itself.
struct OptionsContext {
  VariableLookup variable;        // empty: variables are not replaced
  std::string hostname;           // this machine's; also ${HOSTNAME} where that is not set
  std::string working_directory;  // what relative paths are relative to; absolute
  bool needs_mount = true;        // else fuse.dir may be missing
};

// The error's message is "FILE:LINE: KEY: what is wrong, what is allowed", without LINE where a key is missing.
Result<Options> parse_options(const std::string& text, const std::string& file_name, const OptionsContext& context);

// Whether `path` is `directory` or lies in it; both absolute and without "." and "..".
bool is_inside(const std::string& path, const std::string& directory);

}  // namespace litefs
