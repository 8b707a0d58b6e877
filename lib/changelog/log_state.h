// What a change log and its cursors share: the committed extent of every segment. Used by the
// change log alone. Thread rule: any thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "changelog/segment.h"

namespace litefs {

struct Segment {
  SegmentName name;
  uint64_t size_bytes = 0;  // of complete entries
};

struct LogState {
  explicit LogState(std::string directory_path) : directory(std::move(directory_path)) {}

  std::string path(const SegmentName& name) const { return directory + "/" + name.file(); }

  // The last segment that may hold the entry with this TXID; nothing when all begin after it.
  std::optional<size_t> find(TxId txid) const REQUIRES(mutex) {
    auto after = std::upper_bound(segments.begin(), segments.end(), txid,
                                  [](TxId v, const Segment& segment) { return v < segment.name.txid; });
    if (after == segments.begin()) return std::nullopt;
    return static_cast<size_t>(after - segments.begin()) - 1;
  }

  // Envelope and record of the newest entry.
  uint64_t last_entry_bytes() const REQUIRES(mutex) { return last ? kEnvelopeBytes + last->record_bytes : 0; }

  const std::string directory;
  // Counts cut_after() and clear(), raised before the first byte is cut: who reads checks it after
  // reading.
  std::atomic<uint64_t> cuts{0};

  // No other lock is taken, and no file touched, under it.
  mutable Mutex mutex;
  std::vector<Segment> segments GUARDED_BY(mutex);  // oldest first
  std::optional<LogEntryInfo> last GUARDED_BY(mutex);
};

}  // namespace litefs
