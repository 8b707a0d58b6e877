// Pages in ranges, for two nodes that compare what they have by page hashes (DESIGN section 7).
//
// Range r, from 0, is the pages 256 r + 1 to 256 r + 256. Its range sum is the XXH3-64, seeded with r, of its page
// hashes as 256 little-endian u64, 0 for a page that is not there and for the lock page. So two databases agree in a
// range when their range sums do. Thread rule: plain values.
#pragma once

#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "changelog/page_codec.h"

namespace litefs {

constexpr Pgno kRangePages = 256;
constexpr uint32_t kRangesEnd = 1u << 24;  // all ranges are below it
// What one question asks for at most.
constexpr size_t kRangeSumsMax = 4096;
constexpr size_t kPageSumRangesMax = 64;

inline constexpr uint32_t ranges_of(Pgno size_pages) {
  return size_pages / kRangePages + (size_pages % kRangePages != 0);
}
inline constexpr Pgno first_page_of(uint32_t range) { return range * kRangePages + 1; }

// Sums that one node asks of the other.
struct SumsQuestion {
  bool of_pages = false;         // 256 page hashes of each range; else the range sum of each
  std::vector<uint32_t> ranges;  // ascending

  size_t ranges_max() const { return of_pages ? kPageSumRangesMax : kRangeSumsMax; }
  size_t answer_sums() const { return ranges.size() * (of_pages ? kRangePages : 1); }
};

// `page_hashes`: exactly 256 of 8 bytes.
inline Checksum range_sum(uint32_t range, ByteView page_hashes) { return page_hash(range, page_hashes); }

}  // namespace litefs
