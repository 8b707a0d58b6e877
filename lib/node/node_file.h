// DATA/lock and DATA/node: that one process runs the node, and who the node is.
//
// Byte 0 of DATA/lock is locked (OFD) by the process that runs the node, whose id it holds as decimal text and a line
// end; byte kAttendByte shared by all that may have its databases open through liblitefs (member.h).
// DATA/node is text, one "key value" a line, replaced atomically: "litefs-node 1", node, cluster (16 hex digits;
// cluster 0: it has joined none yet) and epoch (decimal: the highest seen or promised). Thread rule: any thread.
#pragma once

#include <memory>
#include <string>

#include "base/mutex.h"
#include "base/types.h"
#include "env/clock.h"
#include "env/file.h"

namespace litefs {

inline constexpr uint64_t kAttendByte = 1;

class NodeFile {
 public:
  // Makes the directory, takes its lock (kBusy: another litefs runs on it, and which), reads or makes the identity.
  static Result<std::unique_ptr<NodeFile>> open(FileSystem& files, const std::string& data_dir, Random& random);
  ~NodeFile();

  NodeId node();
  uint64_t cluster();
  Epoch epoch();
  // Durable when they return.
  Status set_cluster(uint64_t cluster);
  // No effect when `epoch` is not higher.
  Status raise_epoch(Epoch epoch);

 private:
  struct Identity {
    NodeId node;
    uint64_t cluster = 0;
    Epoch epoch;
  };
  NodeFile(FileSystem& files, const std::string& data_dir) : files_(files), path_(data_dir + "/node") {}
  Status store(const Identity& identity) REQUIRES(mutex_);
  static Result<Identity> parse(const std::string& text, const std::string& path);

  FileSystem& files_;
  const std::string path_;
  std::unique_ptr<File> lock_;  // null: held by another
  Mutex mutex_;
  Identity identity_ GUARDED_BY(mutex_);
};

}  // namespace litefs
