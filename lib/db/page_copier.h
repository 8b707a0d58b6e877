// Reads a database's pages for a copy of it, while applications go on writing (DESIGN section 7,
// the fuzzy copy).
//
// Each page that it gives is the captured image of some moment during the call: its hash is the
// page's in `sums`. What costs time, reading and hashing, is done before and without the capture
// mutex, which a commit may be waiting for; under it hashes are compared, and for at most
// kHoldMaxNs pages that did not agree are read once more (Database::settle).
//
// A page that a rollback-mode transaction has written already, and not committed yet, is taken from
// the journal. SQLite does not journal a free page that it uses again, and a checkpoint may have
// moved frames that are not captured yet: such a page ends the piece, and the next call begins with
// it. Where it is the first, the answer is kBusy, nothing has moved, and the caller comes again in
// a moment; for how long is its decision.
//
// A piece's bytes are u32 page size, then (u32 pgno, page) each, little-endian; local bytes are
// zero. Thread rule: one thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "db/database.h"
#include "sqlite/journal.h"

namespace litefs {

class PageCopier {
 public:
  explicit PageCopier(std::shared_ptr<Database> database) : database_(std::move(database)) {}

  // Pages from `*next` on, at most pages_max; *next moves behind them. Empty at the end.
  Result<Bytes> read_from(Pgno* next, size_t pages_max);
  // Those of `pgnos` (ascending) from index *next on. Pages beyond the present size are left out.
  Result<Bytes> read_of(const std::vector<Pgno>& pgnos, size_t* next, size_t pages_max);

 private:
  // What stands at a place, in a database of a size; 0: the end.
  using PgnoAt = std::function<Pgno(uint64_t place, Pgno size_pages)>;
  Result<Bytes> read(uint64_t* next, size_t pages_max, const PgnoAt& pgno_at);
  Result<size_t> settle_first(uint32_t page_size);
  Status read_file(uint32_t page_size);
  void read_journal(size_t from);
  size_t settled() const;

  std::shared_ptr<Database> database_;
  std::vector<PageImage> images_;
  Bytes buffer_;                         // of the images
  std::optional<JournalIndex> journal_;  // of a transaction in flight, as long as its pages are met
};

}  // namespace litefs
