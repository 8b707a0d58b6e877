// Who still has files open of this node's earlier mounts.
//
// A connection of before goes on reading what the kernel has cached of a dead mount's file, with locks that nobody else
// sees, while it finds the files that it opens by name (a journal, say) in the mount that took the dead one's place. So
// a database is not for others before nobody has its files open there.
//
// The devices of this boot's mounts stand in a file: "BOOT-ID", then "MAJOR:MINOR", one a line, replaced atomically.
// One of which nobody has a file open is forgotten. Thread rule: any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "env/clock.h"
#include "env/file.h"
#include "env/process.h"

namespace litefs {

class DeadMounts {
 public:
  // kCorrupt: the file is there and is something else.
  static Result<std::unique_ptr<DeadMounts>> open(FileSystem& files, Clock& clock, const std::string& path);

  // A mount with this device (as stat has it) begins: it will be a dead one at the next start.
  Status add(uint64_t device);
  // Processes that have a file open of which the path in its mount ends with one of these names. Processes that this
  // user may not look at are left out. Who has none will have none, but by way of somebody who has.
  std::vector<ProcessName> holders(const std::vector<std::string>& file_names);

 private:
  DeadMounts(FileSystem& files, Clock& clock, const std::string& path) : files_(files), clock_(clock), path_(path) {}
  Status parse(const std::string& text) REQUIRES(mutex_);
  void scan_when_due() REQUIRES(mutex_);

  FileSystem& files_;
  Clock& clock_;
  const std::string path_;
  Mutex mutex_;
  std::vector<uint64_t> devices_ GUARDED_BY(mutex_);  // dead, and somebody has files open there
  std::vector<OpenFile> open_ GUARDED_BY(mutex_);     // found by the last scan
  int64_t scanned_ns_ GUARDED_BY(mutex_) = 0;         // 0: never
};

}  // namespace litefs
