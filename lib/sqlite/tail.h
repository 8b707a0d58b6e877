// Following a WAL: the decision what has been committed since an anchor.
//
// SQLite publishes a transaction by moving mxFrame in the wal-index. Whoever follows mxFrame sees exactly what
// SQLite has published (FUSE.md section 3), provided that it reads on to mxFrame before any checkpoint completes.
// decide_tail() is that decision, as a pure function of what was read; wal_tail.h (db) does the reading.
//
// A connection that was in locking_mode=EXCLUSIVE when it opened the WAL has its wal-index in its own memory (wal.c,
// WAL_HEAPMEMORY_MODE), and so has nobody else one: it holds the database's EXCLUSIVE lock as long as it has the WAL
// open, and cannot go back to NORMAL before. Then the chain of frame checksums alone tells what is committed
// (*chain mode*). It tells it too early by the sync that follows a commit frame: where that fails SQLite takes the
// commit back and leaves the frame chained until the next transaction overwrites it. ChainTrust decides from when on
// the last commit of the chain counts; one that counted and is overwritten all the same is a mismatch here.
// Thread rule: a pure function; the owner of a ChainTrust serialises.
#pragma once

#include <cstdint>
#include <optional>

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
  // Without an index, and with a WAL of the anchor's generation: the checksum that the frame at the anchor stores now;
  // nothing when the file ends before it. Means nothing at frame 0.
  std::optional<WalChecksum> at_anchor;
};

enum class TailAction {
  kNothing,      // everything published has been delivered
  kDeliver,      // frames after `from` through `to_frame`; the running checksum must reach `expected`
  kFollowChain,  // frames after `from` as far as the chain of checksums goes
  kWait,         // the files are between two states: read them again
  kMismatch,     // the published history is not a continuation of what was delivered
};

struct TailDecision {
  TailAction action = TailAction::kNothing;
  WalAnchor from;  // of the generation to read: the anchor itself, or frame 0 of a new generation
  uint32_t to_frame = 0;
  WalChecksum expected;
  const char* why = "";  // for kWait and kMismatch
};

TailDecision decide_tail(const TailInput& input);

// What a drain may take for granted about the last commit of the chain.
enum class ChainEnd {
  kUnknown,  // its writer may be about to sync it
  kSettled,  // its writer has gone on to something that it does only after a commit: the sync has succeeded, or it
             // checkpoints, or closes
  kRefused,  // its sync has failed
};

class ChainTrust {
 public:
  // What nobody has said anything about for this long has been accepted: with synchronous NORMAL or OFF there is no
  // sync, and an error between the last frame's write and the commit is next to impossible (out of memory).
  static constexpr int64_t kAcceptedAfterNs = 20'000'000;

  // Whether the commit that ends at `end`, the last of the chain, counts. `syncing`: a sync of the WAL is going on,
  // whose outcome will be told by another call.
  bool accepts(const WalAnchor& end, ChainEnd what, bool syncing, int64_t now_ns);
  // Whether its sync has failed: it does not come to count by waiting.
  bool refuses(const WalAnchor& end) const { return refused_ == end; }
  // The next user of the WAL recovers it by the chain alone, so that a refused commit becomes one.
  void new_user() { refused_.reset(); }

 private:
  std::optional<WalAnchor> refused_;
  WalAnchor candidate_;
  int64_t candidate_since_ns_ = 0;
};

}  // namespace litefs
