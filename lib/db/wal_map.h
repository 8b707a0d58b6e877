// Page → newest captured frame of the current WAL generation. Memory: 16 bytes for each distinct page in the
// WAL. Thread rule: the owner serialises.
#pragma once

#include <functional>
#include <vector>

#include "base/types.h"
#include "sqlite/wal.h"

namespace litefs {

class WalMap {
 public:
  void clear() {
    slots_.clear();
    used_ = 0;
  }
  // Frame numbers are entered in rising order, so the last one wins.
  void set(Pgno pgno, uint32_t frame) {
    if ((used_ + 1) * 4 > slots_.size() * 3) grow();
    Slot& slot = find(pgno);
    if (slot.pgno == 0) {
      slot.pgno = pgno;
      ++used_;
    }
    slot.frame = frame;
  }
  // 0: the page is not in the WAL.
  uint32_t get(Pgno pgno) const { return slots_.empty() ? 0 : const_cast<WalMap*>(this)->find(pgno).frame; }
  Status for_each(const std::function<Status(Pgno)>& visit) const {
    for (const Slot& slot : slots_) {
      if (slot.pgno != 0) TRY(visit(slot.pgno));
    }
    return {};
  }

 private:
  struct Slot {
    Pgno pgno = 0;
    uint32_t frame = 0;
  };

  Slot& find(Pgno pgno) {
    size_t mask = slots_.size() - 1;
    size_t i = (pgno * 0x9e3779b1u) & mask;
    while (slots_[i].pgno != 0 && slots_[i].pgno != pgno) i = (i + 1) & mask;
    return slots_[i];
  }
  void grow() {
    std::vector<Slot> old(slots_.empty() ? 256 : slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.pgno != 0) find(slot.pgno) = slot;
    }
  }

  std::vector<Slot> slots_;
  size_t used_ = 0;
};

}  // namespace litefs
