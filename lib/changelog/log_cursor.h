// Finding a position in a change log, and the cursor that reads on from it. Used by the change log
// alone.
//
// Thread rule: functions may be called from any thread; a cursor belongs to one.
#pragma once

#include <memory>

#include "changelog/log_state.h"

namespace litefs {

// An entry of the log, with its segment's file open for reading.
struct FoundEntry {
  SegmentName segment;
  std::unique_ptr<File> file;
  SegmentEntry entry;
};

// The entry that holds a TXID; nothing when there is none.
Result<std::optional<FoundEntry>> find_entry(FileSystem& files, const LogState& state, TxId txid);

// The entry whose position, after it, is exactly `position`: kNotFound when there is none.
Result<FoundEntry> find_entry(FileSystem& files, const LogState& state, const Position& position);

// The oldest entry; nothing when the log is empty.
Result<std::optional<LogEntryInfo>> find_oldest(FileSystem& files, const LogState& state);

Result<std::unique_ptr<LogCursor>> make_cursor(FileSystem& files, std::shared_ptr<const LogState> state,
                                               const Position& position);

}  // namespace litefs
