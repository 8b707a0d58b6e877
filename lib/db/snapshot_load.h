// A copy of a database while it is being loaded: pages from a fuzzy copy, then the records since its start, until all
// of it is one committed state (DESIGN section 7).
//
// The sender took each page at some moment between the copy's start and its end, and checked it against its page
// hash of that moment. So a record from in between finds a page as it was before it (it is applied), as it is after
// it (nothing to do), or newer still: then a later record must meet it, before the copy is consistent. In the end
// every page must have been met and the XOR of the page hashes must be the position's checksum.
//
// A copy may build on a base, the database that is here already: then only pages in which sender and base differ come.
// A page that does not come was compared by its hash at some such moment, which is as good as its coming. The base must
// not change while the load lives.
//
// The pages that came lie in a file (page 1 with zero local bytes), their hashes in another one that is mapped, so that
// memory does not grow with the database. Both are scratch: nothing of them survives a restart.
// Thread rule: the owner serialises.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "changelog/record.h"
#include "db/page_sums.h"
#include "env/file.h"

namespace litefs {

class SnapshotLoad {
 public:
  struct Options {
    std::string path;  // of the pages; that of the hashes is this and ".sums"
    DatabaseId id;
    Position start;
    uint64_t total_bytes = 0;  // for who watches
  };
  struct Base {
    uint32_t page_size = 0;
    Pgno size_pages = 0;  // of the sender's database at the start
    const PageSums* sums = nullptr;
    std::function<Status(Pgno, MutableByteView)> read;  // masked
  };
  static Result<std::unique_ptr<SnapshotLoad>> create(FileSystem& files, const Options& options);
  // Before anything comes.
  Status build_on(Base base);
  bool has_base() const { return base_.has_value(); }

  // Pages as db/page_copier.h makes them.
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
  Pgno size_pages() const { return size_pages_; }
  Checksum hash(Pgno pgno) const { return hashes_->get(pgno); }
  // The page as it is in the copy so far. kDiverged: the base's is not what its hash says.
  Status read_page(Pgno pgno, MutableByteView page);
  Status write_page(Pgno pgno, ByteView page);
  File& file() { return *file_; }
  uint64_t loaded_bytes() const { return loaded_bytes_; }
  uint64_t total_bytes() const { return total_bytes_; }
  Pgno last_loaded() const { return last_loaded_; }
  // Removes what a load leaves in files.
  static Status remove_files(FileSystem& files, const std::string& path);

 private:
  SnapshotLoad() = default;
  Status apply_page(const EncodedPage& page, PageCodec& codec);
  void resize(Pgno size_pages);

  std::unique_ptr<File> file_;
  std::unique_ptr<PageSums> hashes_;
  std::optional<Base> base_;
  DatabaseId id_;
  Position position_;  // after the last record
  std::optional<Position> target_;
  uint32_t page_size_ = 0;
  Pgno size_pages_ = 0;
  Pgno last_loaded_ = 0;
  std::unordered_set<Pgno> newer_;  // pages that a later record must meet
  Bytes current_;
  Bytes next_;
  uint64_t loaded_bytes_ = 0;
  uint64_t total_bytes_ = 0;
};

}  // namespace litefs
