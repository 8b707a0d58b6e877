// A database's change log: records in append-only segments, DIR/EPOCH-TXID.seg (16 hex digits each), named by
// their first record.
//
// (The byte-exact segment format is specified here by whoever implements it: a segment header with magic,
// version and database name hash is not needed, the directory says whose it is; each entry is a fixed-size
// local envelope, then the record. The envelope holds the record's length, the position after it, its TXID
// range, wall clock, the owner's 24 opaque bytes, and an XXH3-64 of the envelope itself, and never leaves
// the node. An entry is complete when its envelope's hash and its record's hash are right.)
//
// A record larger than memory should hold is appended in pieces: its envelope is written last, so that a
// crash leaves a torn tail, which open() cuts. Segments are grown by the file system, not preallocated;
// rotated when larger than segment_bytes, between entries.
//
// Thread rule: one thread appends at a time (the caller's database mutex); cursors read from any thread while
// appends go on, and see every entry that append() had returned from when end() was read. trim() may run
// beside cursors: a cursor keeps its segment's file open and goes on reading it.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/types.h"
#include "changelog/record.h"
#include "env/file.h"

namespace litefs {

// 24 bytes that the log keeps with each entry for its owner (db: the WAL anchor), never sent.
using LocalNote = std::array<uint8_t, 24>;

struct LogEntryInfo {
  Position position;  // after the record
  Checksum before;    // checksum before the record
  TxId txid_first;
  int64_t wall_ms = 0;
  uint64_t record_bytes = 0;
  LocalNote note{};
};

// Where the log ends, as the owner remembers it across a restart of the process on the same boot.
struct LogEnd {
  Epoch segment_epoch;  // the segment's name
  TxId segment_txid;
  uint64_t offset_bytes = 0;  // 0: nothing is known
};

struct ChangeLogOptions {
  uint64_t segment_bytes = 16u << 20;
};

// Reads entries in order. Made by ChangeLog::read_after.
class LogCursor {
 public:
  virtual ~LogCursor() = default;
  // Moves to the next entry; false at the end of the log (call again later). kCorrupt names segment and
  // offset; kNotFound when the next segment has been trimmed away.
  virtual Result<bool> next() = 0;
  // Of the entry that next() moved to.
  virtual const LogEntryInfo& info() const = 0;
  virtual RecordSource& record() = 0;
};

class ChangeLog {
 public:
  // Opens or creates the log in `directory`. Entries before `known_end` (same boot, same process's successor)
  // are trusted without reading them; everything behind it, or the whole last segment without it, is checked,
  // and a torn tail is cut (logged, with bytes). Time does not depend on the number of segments.
  static Result<std::unique_ptr<ChangeLog>> open(FileSystem& files, const std::string& directory,
                                                 const ChangeLogOptions& options, std::optional<LogEnd> known_end,
                                                 const Log& log);
  virtual ~ChangeLog() = default;

  struct Entry {
    LogEntryInfo info;  // record_bytes is taken from `record`
    ByteView record;
  };
  // Appends complete records with one write. After an error the log is as before (what was written is cut).
  virtual Status append(const std::vector<Entry>& entries) = 0;

  // Appends one record in pieces: begin, pieces in order, commit with the final info. Anything but a commit
  // (an error, an abort, a crash) leaves the log as before.
  virtual Status begin_large() = 0;
  virtual Status append_large(ByteView piece) = 0;
  virtual Status commit_large(const LogEntryInfo& info) = 0;
  virtual void abort_large() = 0;

  // fdatasync of what is not synced yet (and of the directory after a rotation).
  virtual Status sync() = 0;

  // The newest entry; nothing when the log is empty.
  virtual std::optional<LogEntryInfo> last() const = 0;
  // The position before the oldest entry that can be read; nothing when the log is empty.
  virtual Result<std::optional<Position>> oldest_before() = 0;
  virtual LogEnd end() const = 0;
  virtual uint64_t size_bytes() const = 0;

  // A cursor on the entries after `position`. kNotFound when no entry of the log, and not the start of its
  // first one, has exactly this position (epoch, TXID and checksum). The zero position stands before TXID 1.
  virtual Result<std::unique_ptr<LogCursor>> read_after(const Position& position) = 0;

  // Cuts every entry after `position`, which must be an entry's (or the zero position: cuts all).
  virtual Status cut_after(const Position& position) = 0;
  // Removes all segments; the log is empty and begins anew.
  virtual Status clear() = 0;

  // Removes whole segments that are older than `older_than_wall_ms` or beyond `bytes_max` in total, oldest
  // first; never the last segment, and none that holds an entry after `keep_after` unless the log is over
  // `bytes_hard_max`. Returns how many were removed.
  struct Retention {
    int64_t older_than_wall_ms = 0;
    uint64_t bytes_max = 0;
    uint64_t bytes_hard_max = 0;
    std::optional<TxId> keep_after;
  };
  virtual Result<size_t> trim(const Retention& retention) = 0;
};

}  // namespace litefs
