#include "sqlite/free_list.h"

namespace litefs {
namespace {
constexpr size_t kFirstTrunkOffset = 32;
constexpr size_t kTrunkHeaderBytes = 8;
}  // namespace

Status visit_free_leaves(uint32_t page_size, Pgno size_pages,
                         const std::function<Status(Pgno pgno, MutableByteView page)>& read,
                         const std::function<void(Pgno pgno)>& visit) {
  if (size_pages == 0) return {};
  Bytes page(page_size);
  TRY(read(1, page));
  Pgno trunk = load_be32(page.data() + kFirstTrunkOffset);
  const uint32_t leaves_max = (page_size - kTrunkHeaderBytes) / 4;
  // A list that comes back to itself has no more trunks than the database has pages.
  for (Pgno trunks = 0; trunk > 1 && trunk <= size_pages && trunks < size_pages; ++trunks) {
    TRY(read(trunk, page));
    uint32_t leaves = load_be32(page.data() + 4);
    if (leaves > leaves_max) return {};
    for (uint32_t i = 0; i < leaves; ++i) {
      Pgno leaf = load_be32(page.data() + kTrunkHeaderBytes + 4 * i);
      if (leaf > 1 && leaf <= size_pages) visit(leaf);
    }
    trunk = load_be32(page.data());
  }
  return {};
}

}  // namespace litefs
