// The first 100 bytes of a SQLite database, and the bytes of page 1 that belong to the node.
//
// Source: SQLite's file format document, section 1.3, and lockBtree() in btree.c. Thread rule:
// plain values.
#pragma once

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"

namespace litefs {

constexpr size_t kDatabaseHeaderBytes = 100;

struct DatabaseHeader {
  uint32_t page_size = 0;          // bytes
  uint8_t write_version = 0;       // offset 18: 1 rollback journal, 2 WAL
  uint8_t read_version = 0;        // offset 19
  uint32_t change_counter = 0;     // offset 24
  Pgno size_pages = 0;             // offset 28, as stored
  uint32_t version_valid_for = 0;  // offset 92

  bool is_wal() const { return write_version == 2 && read_version == 2; }

  // kInvalid, with the reason, for what is no SQLite 3 database (magic, page size, usable size,
  // fractions, versions above 2), by lockBtree's checks.
  static Result<DatabaseHeader> parse(ByteView first_bytes);

  // The size in pages that SQLite would use (lockBtree): the stored one where change_counter equals
  // version_valid_for and it is not 0, else the file's, a last partial page included.
  Pgno effective_size(uint64_t file_bytes) const;
};

bool valid_page_size(uint64_t bytes);

// The page that holds SQLite's lock bytes (offset 2^30); never written, in no record, in no
// checksum.
inline Pgno lock_page(uint32_t page_size) { return (1u << 30) / page_size + 1; }

// Zeroes the local bytes of page 1 (18–19, 24–27, 92–95). Hashes, records and previous images are
// made of masked pages only.
void mask_local_bytes(MutableByteView page1);

// Sets the local bytes of a masked page 1 before a node writes it: file format WAL or not; change
// counter and version-valid-for equal to `counter`, so that SQLite trusts the size in bytes 28–31,
// when `size_pages` is what those bytes say, else different, so that it does not.
void set_local_bytes(MutableByteView page1, bool wal, uint32_t counter, Pgno size_pages);

}  // namespace litefs
