// The page hash of every page of a database, mapped from DATA/meta/NAME/sums.
//
// Format: little-endian u64 for each page from page 1: its page_hash (changelog/page_codec.h), 0 where there is no
// page (and for the lock page). Which position they belong to stands in the control file. Grown in powers of
// two; its room is taken when it grows (reserve), as a store into a hole of a full disk raises SIGBUS. Thread rule: the
// owner serialises.
#pragma once

#include <memory>

#include "base/types.h"
#include "env/file.h"

namespace litefs {

class PageSums {
 public:
  static Result<std::unique_ptr<PageSums>> open(FileSystem& files, const std::string& path);

  // 0 beyond what was ever set.
  Checksum get(Pgno pgno) const { return pgno == 0 || pgno > capacity_ ? Checksum{} : Checksum{load_le64(at(pgno))}; }
  // No page above it is set.
  Pgno highest() const { return highest_; }
  // How many pages the file had room for when it was opened: with fewer than the database has, it was lost.
  Pgno found_pages() const { return found_pages_; }
  // Of a database that has these pages and no others.
  Checksum combined(Pgno size_pages) const;
  // Makes room for pages 1 … size_pages. set() needs it. kNoSpace: as it was. So it comes before whatever cannot be
  // taken back.
  Status reserve(Pgno size_pages);
  void set(Pgno pgno, Checksum hash);
  // Forgets pages above size_pages.
  void shrink(Pgno size_pages);
  Status sync() { return mapping_ ? mapping_->sync() : Status(); }

 private:
  explicit PageSums(std::unique_ptr<File> file) : file_(std::move(file)) {}
  uint8_t* at(Pgno pgno) const { return mapping_->data() + static_cast<size_t>(pgno - 1) * 8; }
  Status map(Pgno capacity);

  std::unique_ptr<File> file_;
  std::unique_ptr<Mapping> mapping_;
  Pgno capacity_ = 0;
  Pgno found_pages_ = 0;
  Pgno highest_ = 0;  // no page above it is set
};

}  // namespace litefs
