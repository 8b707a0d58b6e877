// SQLite's rollback journal: reading, and playing back a hot one.
//
// Layout (file format document, section 3; pager.c): segments that begin on sector boundaries with a 28-byte
// header (magic, number of records or 0xffffffff, checksum seed, original size in pages, sector size, page
// size), then records (page number, page, checksum). A journal may end in a super-journal's name. Thread
// rule: plain functions.
#pragma once

#include <functional>
#include <optional>
#include <string>

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

// True when a journal of this content is part of a running or interrupted transaction: its first bytes are not
// all zero (SQLite writes magic and count only when it syncs, the rest before).
bool journal_is_active(ByteView first_bytes);

// The super-journal that the journal names; empty: none (readSuperJournal's checks).
Result<std::string> journal_super_name(File& journal);

// Visits the journal's valid records in order (page number, original page), by pager_playback's rules.
// Answers the header of the first segment, or nothing when the journal is not hot.
Result<std::optional<JournalHeader>> read_journal(
    File& journal, const std::function<Status(Pgno pgno, ByteView original)>& visit);

// Rolls the database back as SQLite would: original pages, original size, sync. The caller then removes the
// journal. Answers false when there was nothing to play back. Nobody else may have the database open.
Result<bool> play_back_journal(File& journal, File& database);

}  // namespace litefs
