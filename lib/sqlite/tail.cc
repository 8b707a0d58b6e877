#include "sqlite/tail.h"

namespace litefs {
namespace {

TailDecision result(TailAction action, const char* why = "") {
  TailDecision decision;
  decision.action = action;
  decision.why = why;
  return decision;
}

// The anchor where it is of this generation, else the generation's start.
WalAnchor start_in(const WalHeader& wal, const WalAnchor& anchor) {
  if (wal.salts == anchor.salts) return anchor;
  return WalAnchor{wal.salts, 0, wal.checksum};
}

}  // namespace

TailDecision decide_tail(const TailInput& input) {
  if (!input.index_in_use) {
    if (!input.wal) return result(TailAction::kNothing);
    if (input.wal->salts == input.anchor.salts && input.anchor.frame != 0 && input.at_anchor != input.anchor.checksum) {
      return result(TailAction::kMismatch, "the frame at the anchor has been overwritten");
    }
    TailDecision decision = result(TailAction::kFollowChain);
    decision.from = start_in(*input.wal, input.anchor);
    return decision;
  }
  if (!input.index) return result(TailAction::kWait, "the wal-index has no valid header");
  const WalIndexHeader& index = *input.index;
  // A restart was published, its first frame was not: the old generation may come back if that writer is killed, so
  // the anchor stays where it is.
  if (index.max_frame == 0) return result(TailAction::kNothing);
  if (index.salts == input.anchor.salts) {
    if (index.max_frame == input.anchor.frame) {
      if (index.frame_checksum == input.anchor.checksum) return result(TailAction::kNothing);
      return result(TailAction::kMismatch, "the frame at the anchor has another checksum");
    }
    if (index.max_frame < input.anchor.frame) {
      return result(TailAction::kMismatch, "the wal-index ends before the anchor");
    }
  }
  if (!input.wal) return result(TailAction::kWait, "the WAL has no valid header");
  if (input.wal->salts != index.salts) {
    return result(TailAction::kWait, "the WAL is of another generation than its index");
  }
  if (input.wal->page_size != index.page_size) {
    return result(TailAction::kWait, "the WAL has another page size than its index");
  }
  TailDecision decision = result(TailAction::kDeliver);
  decision.from = start_in(*input.wal, input.anchor);
  decision.to_frame = index.max_frame;
  decision.expected = index.frame_checksum;
  return decision;
}

bool ChainTrust::accepts(const WalAnchor& end, ChainEnd what, bool syncing, int64_t now_ns) {
  if (what == ChainEnd::kRefused) refused_ = end;
  if (refused_ == end) return false;
  if (what == ChainEnd::kSettled) return true;
  if (!(candidate_ == end)) {
    candidate_ = end;
    candidate_since_ns_ = now_ns;
  }
  return !syncing && now_ns - candidate_since_ns_ >= kAcceptedAfterNs;
}

}  // namespace litefs
