// A set of page numbers, small where they lie together. Thread rule: plain value.
#pragma once

#include <array>
#include <cstdint>
#include <map>

#include "base/types.h"

namespace litefs {

class PageSet {
 public:
  void add(Pgno pgno) { blocks_[pgno / kBlockPages][pgno % kBlockPages / 64] |= uint64_t{1} << (pgno % 64); }
  bool has(Pgno pgno) const {
    auto it = blocks_.find(pgno / kBlockPages);
    return it != blocks_.end() && (it->second[pgno % kBlockPages / 64] >> (pgno % 64) & 1);
  }
  bool empty() const { return blocks_.empty(); }
  void clear() { blocks_.clear(); }
  // In ascending order.
  template <class Visit>
  void for_each(const Visit& visit) const {
    for (const auto& [block, words] : blocks_) {
      for (uint32_t w = 0; w < words.size(); ++w) {
        for (uint64_t bits = words[w]; bits != 0; bits &= bits - 1) {
          visit(block * kBlockPages + w * 64 + static_cast<uint32_t>(__builtin_ctzll(bits)));
        }
      }
    }
  }

 private:
  static constexpr uint32_t kBlockPages = 4096;
  std::map<uint32_t, std::array<uint64_t, kBlockPages / 64>> blocks_;
};

}  // namespace litefs
