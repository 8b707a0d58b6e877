// The positions of a database's history that its change log has no longer, so that a primary can tell a replica that
// was merely away for too long from one that went another way.
//
// FORMAT of DATA/meta/NAME/past: entries of 24 bytes, ascending by TXID: epoch, TXID, checksum, little-endian u64. They
// are appended before the log's segments are removed, and not synced: what is not known here is taken for another
// history, which costs a copy under the replica's lost/ and nothing else. A torn end is ignored, and written over. When
// the file has kPastEntriesMax entries, the older half goes.
// Thread rule: the owner serialises.
#pragma once

#include <string>
#include <vector>

#include "base/types.h"
#include "env/file.h"

namespace litefs {

constexpr uint64_t kPastEntriesMax = 1u << 20;

class PastPositions {
 public:
  PastPositions(FileSystem& files, std::string path) : files_(files), path_(std::move(path)) {}

  // Ascending; those that are not beyond the newest one here are left out.
  Status add(const std::vector<Position>& positions);
  Result<bool> has(const Position& position);
  // Another history begins.
  Status clear();

 private:
  Status drop_older_half(uint64_t entries);

  FileSystem& files_;
  std::string path_;
};

}  // namespace litefs
