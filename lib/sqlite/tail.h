// Following a WAL: the decision what has been committed since an anchor.
//
// SQLite publishes a transaction by moving mxFrame in the wal-index. Whoever follows mxFrame sees exactly what
// SQLite has published (FUSE.md section 3), provided that it reads on to mxFrame before any checkpoint completes.
// decide_tail() is that decision, as a pure function of what was read; wal_tail.h (db) does the reading.
// Thread rule: pure function.
#pragma once

#include <optional>
#include <string>

#include "sqlite/wal.h"
#include "sqlite/wal_index.h"

namespace litefs {

struct TailInput {
  // Whether any connection may be using the wal-index. When none is, the next one recovers by the chain of frame
  // checksums, and so do we.
  bool index_in_use = false;
  // The wal-index header whose checksum verified; nothing while it is torn, empty, or being recovered.
  std::optional<WalIndexHeader> index;
  // The WAL file's header; nothing when the file is missing, empty, or has none that is valid.
  std::optional<WalHeader> wal;
  // Up to where everything has been delivered.
  WalAnchor anchor;
};

enum class TailAction {
  kNothing,     // everything published has been delivered
  kDeliver,     // frames after `from` through `to_frame`; the running checksum must reach `expected`
  kFollowChain, // frames after `from` as far as the chain of checksums goes
  kWait,        // the files are between two states: read them again
  kMismatch,    // the published history is not a continuation of what was delivered
};

struct TailDecision {
  TailAction action = TailAction::kNothing;
  WalAnchor from;  // of the generation to read: the anchor itself, or frame 0 of a new generation
  uint32_t to_frame = 0;
  WalChecksum expected;
  const char* why = "";  // for kWait and kMismatch
};

TailDecision decide_tail(const TailInput& input);

}  // namespace litefs
