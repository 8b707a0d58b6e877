// SQLite's wal-index (the -shm file): reading its header safely, and writing the whole of it as a WAL writer.
//
// Layout (wal.c, head comment, and "WAL-INDEX FORMAT"): two copies of a 48-byte header, a 40-byte WalCkptInfo
// (nBackfill, five read marks, lock bytes, nBackfillAttempted), then in blocks of 32 KiB page-number arrays
// and hash tables. All in the machine's byte order. Thread rule: a WalIndexWriter belongs to one thread.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "sqlite/wal.h"

namespace litefs {

constexpr size_t kWalIndexHeaderBytes = 48;
constexpr size_t kWalIndexBlockBytes = 32768;

struct WalIndexHeader {
  uint32_t change = 0;  // iChange
  bool big_endian_checksum = false;
  uint32_t page_size = 0;  // decoded from szPage
  uint32_t max_frame = 0;  // mxFrame
  Pgno size_pages = 0;     // nPage
  WalChecksum frame_checksum;  // running checksum after max_frame
  WalSalts salts;

  WalAnchor anchor() const { return WalAnchor{salts, max_frame, frame_checksum}; }

  // From the file's first 96 bytes. The first copy whose own checksum verifies and that is initialised, has the
  // known version and a valid page size; nothing when neither is (being written, recovered, or poisoned).
  static std::optional<WalIndexHeader> parse(ByteView both_copies);
  void store_copy(uint8_t* out) const;  // one 48-byte copy, checksum included
};

// What a checkpoint has done, read beside the header.
struct WalCheckpointInfo {
  uint32_t backfilled = 0;  // nBackfill
  uint32_t read_marks[5] = {};
};

// The poison of the fence: both header copies with a valid checksum and a version that no SQLite knows, so
// that every connection that maps this file answers SQLITE_CANTOPEN at its next statement.
void store_poisoned_wal_index(uint8_t out[2 * kWalIndexHeaderBytes]);

// The wal-index as a writer sees it: blocks mapped from the file, which it grows.
class WalIndexWriter {
 public:
  // Maps block 0 of `shm`, growing the file when it is shorter.
  static Result<std::unique_ptr<WalIndexWriter>> open(File& shm);

  std::optional<WalIndexHeader> header() const;
  WalCheckpointInfo checkpoint_info() const;
  // Publishes: second copy, barrier, first copy.
  void write_header(const WalIndexHeader& header);
  void set_backfilled(uint32_t frame);
  void set_backfill_attempted(uint32_t frame);
  void set_read_mark(int reader, uint32_t frame);
  // Zeroes block 0's header and checkpoint info and every hash table, as recovery does before it starts.
  void reset();

  // Enters frame → page (walIndexAppend); `max_frame` is the published one, above which leftovers of a dead
  // writer are cleaned (walCleanupHash).
  Status append(uint32_t frame, Pgno pgno, uint32_t max_frame);
  // Removes entries above max_frame from its block.
  void clean_above(uint32_t max_frame);
  // The newest frame ≤ max_frame that holds the page, and > min_frame; 0: none (walFindFrame).
  uint32_t find(Pgno pgno, uint32_t max_frame, uint32_t min_frame = 0);
  // The page number of frame `frame`.
  Pgno page_of(uint32_t frame);

 private:
  explicit WalIndexWriter(File& shm) : shm_(shm) {}
  Result<uint8_t*> block(uint32_t index);

  File& shm_;
  std::vector<std::unique_ptr<Mapping>> blocks_;
};

}  // namespace litefs
