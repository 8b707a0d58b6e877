#include "db/page_sums.h"

#include <algorithm>
#include <bit>

namespace litefs {
namespace {
constexpr Pgno kCapacityMin = 1024;
}

Result<std::unique_ptr<PageSums>> PageSums::open(FileSystem& files, const std::string& path) {
  std::unique_ptr<File> file = TRY(files.open(path, OpenMode::kCreate));
  FileInfo info = TRY(file->info());
  auto sums = std::unique_ptr<PageSums>(new PageSums(std::move(file)));
  uint64_t pages = std::max<uint64_t>(info.size_bytes / 8, kCapacityMin);
  TRY(sums->map(static_cast<Pgno>(std::min<uint64_t>(pages, 0xfffffffe))));
  sums->highest_ = sums->capacity_;
  sums->found_pages_ = static_cast<Pgno>(std::min<uint64_t>(info.size_bytes / 8, sums->capacity_));
  return sums;
}

Status PageSums::map(Pgno capacity) {
  const uint64_t have_bytes = static_cast<uint64_t>(capacity_) * 8;
  TRY(file_->allocate(have_bytes, static_cast<uint64_t>(capacity) * 8 - have_bytes));
  mapping_ = TRY(file_->map(0, static_cast<size_t>(capacity) * 8, true));
  capacity_ = capacity;
  return {};
}

Checksum PageSums::combined(Pgno size_pages) const {
  Checksum all;
  for (Pgno p = 1; p <= std::min(size_pages, capacity_); ++p) all ^= get(p);
  return all;
}

Status PageSums::reserve(Pgno size_pages) {
  if (size_pages <= capacity_) return {};
  uint64_t want = std::bit_ceil(static_cast<uint64_t>(size_pages));
  return map(static_cast<Pgno>(std::min<uint64_t>(want, 0xfffffffe)));
}

void PageSums::set(Pgno pgno, Checksum hash) {
  CHECK_LE(pgno, capacity_);
  CHECK_GT(pgno, 0u);
  store_le64(at(pgno), hash.value);
  highest_ = std::max(highest_, pgno);
}

void PageSums::shrink(Pgno size_pages) {
  // Only what is set is written: the rest need not come from the disk and go there again.
  for (Pgno p = std::min(highest_, capacity_); p > size_pages; --p) {
    if (load_le64(at(p)) != 0) store_le64(at(p), 0);
  }
  highest_ = std::min(highest_, size_pages);
}

}  // namespace litefs
