// A copy of a database while it is being loaded: pages from a fuzzy copy, then the records since its start, until all
// of it is one committed state (DESIGN section 7).
//
// The sender took each page at some moment between the copy's start and its end, and checked it against its page
// hash of that moment. So a record from in between finds a page as it was before it (it is applied), as it is after
// it (nothing to do), or newer still: then a later record must meet it, before the copy is consistent. In the end
// every page must have been met and the XOR of the page hashes must be the position's checksum.
//
// The pages lie in a file beside the database (page 1 with zero local bytes), their hashes in memory (8 bytes a page).
// Thread rule: the owner serialises.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "changelog/record.h"
#include "env/file.h"

namespace litefs {

class SnapshotLoad {
 public:
  static Result<std::unique_ptr<SnapshotLoad>> create(FileSystem& files, const std::string& path, DatabaseId id,
                                                      const Position& start, uint64_t total_bytes);

  // Pages as Database::read_snapshot makes them.
  Status add_pages(ByteView piece);
  // No more pages come; records up to here make the copy consistent.
  void set_target(const Position& target) { target_ = target; }
  // The next record; kInvalid when it does not continue the copy.
  Status apply(RecordSource& record, PageCodec& codec);
  // Whether the copy is a committed state. An error when it should be and is not.
  Result<bool> complete() const;

  const Position& position() const { return position_; }
  // For a copy that is made of one record instead of a stream.
  void set_position(const Position& position) { position_ = position; }
  DatabaseId id() const { return id_; }
  uint32_t page_size() const { return page_size_; }
  Pgno size_pages() const { return static_cast<Pgno>(hashes_.size()); }
  Checksum hash(Pgno pgno) const { return hashes_[pgno - 1]; }
  Status read_page(Pgno pgno, MutableByteView page);
  Status write_page(Pgno pgno, ByteView page);
  File& file() { return *file_; }
  uint64_t loaded_bytes() const { return loaded_bytes_; }
  uint64_t total_bytes() const { return total_bytes_; }

 private:
  SnapshotLoad() = default;
  Status apply_page(const EncodedPage& page, PageCodec& codec);

  std::unique_ptr<File> file_;
  DatabaseId id_;
  Position position_;  // after the last record
  std::optional<Position> target_;
  uint32_t page_size_ = 0;
  std::vector<Checksum> hashes_;
  std::unordered_set<Pgno> newer_;  // pages that a later record must meet
  Bytes current_;
  Bytes next_;
  uint64_t loaded_bytes_ = 0;
  uint64_t total_bytes_ = 0;
};

}  // namespace litefs
