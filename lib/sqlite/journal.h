// SQLite's rollback journal: reading, and playing back a hot one.
//
// Layout (file format document, section 3; pager.c), all big-endian:
//
//   segments, each starting on a boundary of the first segment's sector size:
//      0  magic d9 d5 05 f9 20 a1 63 d7, or zeros while records are not yet synced
//      8  number of records; 0xffffffff: up to the end of the file (synchronous=OFF); 0 with a
//         zero magic
//     12  checksum seed    16  original size in pages    20  sector size    24  page size
//     28  nothing up to the sector size
//         records: page number, the page as it was, checksum (seed plus every 200th byte, counted
//         from the page's end)
//   at the end, for a transaction over several databases (each number in 4 bytes): number of the
//   lock page, the super-journal's name, its length, the sum of its bytes, magic
//
// Thread rule: plain functions.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"
#include "env/file.h"

namespace litefs {

struct JournalHeader {
  uint32_t records = 0;  // as stored; 0xffffffff: up to the end of the file
  uint32_t checksum_seed = 0;
  Pgno original_size = 0;  // pages
  uint32_t sector_size = 0;
  uint32_t page_size = 0;

  // Nothing when the magic is not there (a finalized, empty or not yet synced journal).
  static std::optional<JournalHeader> parse(ByteView bytes);
};

constexpr size_t kJournalHeaderBytes = 28;

// Whether a transaction has begun this journal and not made it final: its header is not all zero.
bool journal_is_begun(ByteView first_bytes);
// Whether the database may have been changed under it, by SQLite's own test (hasHotJournal): SQLite writes the magic,
// and the count, only when it syncs; the rest before.
bool journal_is_hot(ByteView first_bytes);
// Of the file there; false where there is none.
Result<bool> journal_is_hot(FileSystem& files, const std::string& path);

// The super-journal that the journal names; empty: none (readSuperJournal's checks).
Result<std::string> journal_super_name(File& journal);
// The last of the writes by which SQLite enters that name (writeSuperJournal).
bool ends_super_name(uint64_t offset_bytes, ByteView data);
// The name, before the write that ends it; empty: there is none.
Result<std::string> super_name_before(File& journal, uint64_t magic_offset_bytes);

// Visits the journal's valid records in order (page number, original page), by pager_playback's
// rules for a hot journal: it ends at the first record that is cut, has a wrong checksum or an
// impossible page number; pages beyond the original size are passed over. Answers the header of the
// first segment, or nothing when the journal is not hot. Whether a super-journal that it names
// still exists, and is not empty, is the caller's to ask: without it the transaction is committed.
// kUnsupported: a journal of SQLite before 3.5.8, which does not say its page size.
Result<std::optional<JournalHeader>> read_journal(File& journal,
                                                  const std::function<Status(Pgno pgno, ByteView original)>& visit);

// Where the original pages are in a journal: the pages as they were when the transaction began.
class JournalIndex {
 public:
  // Nothing when the journal is not hot (read_journal's rules).
  static Result<std::optional<JournalIndex>> read(std::unique_ptr<File> journal);

  const JournalHeader& header() const { return header_; }
  File& file() const { return *journal_; }
  // The original of a page; false when it is not in the journal.
  Result<bool> original(Pgno pgno, MutableByteView page) const;
  bool has(Pgno pgno) const { return places_.count(pgno) != 0; }
  const std::unordered_map<Pgno, uint64_t>& places() const { return places_; }

 private:
  JournalHeader header_;
  std::unique_ptr<File> journal_;
  Bytes whole_;                                // of a small journal
  std::unordered_map<Pgno, uint64_t> places_;  // offset of the page's bytes
};

// Rolls the database back as SQLite would: journal synced, original size, original pages, database
// synced. The caller then removes the journal. Answers false when there was nothing to play back
// (not hot, or the database is empty: SQLite then takes the journal for another database's). Nobody
// else may have the database open.
Result<bool> play_back_journal(File& journal, File& database);

}  // namespace litefs
