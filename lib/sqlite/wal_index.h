// SQLite's wal-index (the -shm file): reading its header safely, and writing the whole of it as a
// WAL writer.
//
// Layout (wal.c, head comment, and "WAL-INDEX FORMAT"), all in the machine's byte order but the
// salts, which are the WAL header's bytes:
//
//     0  header: version (3007000), unused, change counter, initialised (1 byte), order of the
//        words in the WAL's checksums (1 byte), page size (2 bytes, 65536 stored as 1), max_frame,
//        size in pages, frame checksum (2 words), salts (2 words), checksum of the 40 bytes before
//        it (2 words)
//    48  the header again; written before the first copy, read after it
//    96  checkpoint info: nBackfill, five read marks, eight lock bytes (never stored to),
//        nBackfillAttempted, unused
//   136  block 0 goes on with 4062 page numbers, one a frame, and a hash table of 8192 16-bit slots
// 32768  each further block: 4096 page numbers and a hash table
//
// A slot holds the place of a frame in its block, counted from 1; 0 ends a chain. The hash of a
// page number is (pgno * 383) mod 8192, collisions go to the next slot.
//
// Entries above max_frame mean nothing: readers pass over them, whoever appends next removes them
// (from the block of max_frame at once, from a later block when its first entry is made). So
// entries may be made long before their transaction is published, and left behind by a dead writer.
// Thread rule: a WalIndexWriter belongs to one thread.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "sqlite/wal.h"

namespace litefs {

constexpr size_t kWalIndexHeaderBytes = 48;
constexpr size_t kWalCheckpointInfoBytes = 40;
constexpr size_t kWalIndexBlockBytes = 32768;
constexpr uint32_t kReadMarkUnused = 0xffffffff;

struct WalIndexHeader {
  uint32_t change = 0;  // iChange
  bool big_endian_checksum = false;
  uint32_t page_size = 0;      // decoded from szPage; may be 0 while max_frame is 0: no frame was ever seen
  uint32_t max_frame = 0;      // mxFrame
  Pgno size_pages = 0;         // nPage; 0 with max_frame 0: SQLite takes the database file's size
  WalChecksum frame_checksum;  // running checksum after max_frame; means nothing while that is 0
  WalSalts salts;

  bool operator==(const WalIndexHeader&) const = default;
  WalAnchor anchor() const { return WalAnchor{salts, max_frame, frame_checksum}; }

  // From the file's first 96 bytes. The first copy whose own checksum verifies and that is
  // initialised, has the known version and a valid page size; nothing when neither is (being
  // written, recovered, or poisoned).
  static std::optional<WalIndexHeader> parse(ByteView both_copies);
  void store_copy(uint8_t* out) const;  // one 48-byte copy, checksum included
};

// What a checkpoint has done, read beside the header.
struct WalCheckpointInfo {
  uint32_t backfilled = 0;  // nBackfill
  uint32_t read_marks[5] = {};
  uint32_t backfill_attempted = 0;

  // From the 40 bytes behind the two headers.
  static WalCheckpointInfo load(const uint8_t* in);
};

// The poison of the fence: gives both header copies in the file a version that no SQLite knows, with a valid checksum,
// so that every connection that maps this file answers SQLITE_CANTOPEN at its next statement. Answers what the header
// said before; nothing where it said nothing valid. kBusy: a writer publishes faster than this can be done.
//
// Only version and checksum are written, and the rest is looked at again: a writer in the middle of a transaction
// compares the header with the one that it knows and, where they differ, takes every frame beyond *this* mxFrame for
// its own, to be overwritten in place (sqlite3WalFrames). With a smaller mxFrame it would write uncommitted pages over
// committed frames.
Result<std::optional<WalIndexHeader>> poison_wal_index(File& shm);

// The wal-index as a writer sees it: blocks mapped from the file, which it grows. The file must not
// be truncated while this lives: hold DMS. Machines whose memory pages are larger than a block are
// refused by map().
class WalIndexWriter {
 public:
  // Maps block 0 of `shm`, growing the file when it is shorter.
  static Result<std::unique_ptr<WalIndexWriter>> open(File& shm);

  // What SQLite's readers accept: two equal, valid copies. Nothing also when a writer died between
  // them.
  std::optional<WalIndexHeader> header() const;
  WalCheckpointInfo checkpoint_info() const;
  // Publishes: second copy, barrier, first copy.
  void write_header(const WalIndexHeader& header);
  void set_backfilled(uint32_t frame);
  void set_backfill_attempted(uint32_t frame);
  void set_read_mark(int reader, uint32_t frame);
  // Zeroes block 0: headers, checkpoint info, its entries. Those of later blocks go when they are
  // first appended to.
  void reset();

  // Maps the blocks of frames 1 to `frame`, growing the file. What follows CHECKs that they are
  // mapped.
  Status map_to(uint32_t frame);
  // Enters frame → page (walIndexAppend), after removing leftovers of a dead writer at and above
  // `frame` (walCleanupHash). Maps what it needs. kCorrupt when the hash table is full of nonsense.
  Status append(uint32_t frame, Pgno pgno);
  // Removes entries above max_frame from its block.
  void clean_above(uint32_t max_frame);
  // The newest frame ≤ max_frame that holds the page, and > min_frame; 0: none
  // (sqlite3WalFindFrame).
  uint32_t find(Pgno pgno, uint32_t max_frame, uint32_t min_frame = 0) const;
  // The page number of frame `frame`, as the index says.
  Pgno page_of(uint32_t frame) const;

 private:
  struct Table;

  explicit WalIndexWriter(File& shm) : shm_(shm) {}
  Status map_blocks(size_t count);
  Table table(uint32_t block) const;

  File& shm_;
  std::vector<std::unique_ptr<Mapping>> blocks_;
};

}  // namespace litefs
