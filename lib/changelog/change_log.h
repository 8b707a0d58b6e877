// A database's change log: records in append-only segments, DIR/EPOCH-TXID.seg (16 lower-case hex
// digits each), named by their first record. The directory says whose log it is.
//
// SEGMENT FORMAT. A segment is entries and nothing else; an entry is a local envelope of 112 bytes,
// which never leaves the node, then a change record (record.h). All numbers little-endian:
//
//     0   4  magic "LFE1"
//     4   4  0, reserved
//     8   8  length of the record in bytes
//    16   8  length of the entry before in this segment, envelope and record; 0: it is the first
//    24   8  epoch of the record
//    32   8  epoch of the position before it; 0: none, or (in a log's first entry) not known
//    40   8  first TXID of the record
//    48   8  last TXID of the record
//    56   8  checksum before the record
//    64   8  checksum after the record
//    72   8  wall clock of the record, milliseconds since 1970
//    80  24  the owner's note
//   104   8  XXH3-64 of bytes 0 to 103, seeded with the envelope's offset in its segment
//
// An entry is complete when its envelope's hash and its record's hash are right. Entries follow one
// another without a gap: each begins at the position where the one before ended, across segments
// too. DIR/next.new is a segment that begins with a large record and is not complete; it is removed
// by open().
//
// A record larger than memory should hold is appended in pieces: its envelope is written last, so
// that a crash leaves a torn tail, which open() cuts. Segments are grown by the file system, not
// preallocated; rotated when larger than segment_bytes, between appends. A segment is synced before
// the next one begins, so that after a power cut, too, only the last one can be torn: anything
// wrong in an older one is an error.
//
// After an error of a sync, or one that leaves more in the files than the log holds, everything
// that writes answers kIo until the log is opened again.
//
// Thread rule: one thread at a time appends, syncs, cuts, clears and trims (the caller's database
// mutex); last(), end(), size_bytes(), oldest_before(), find() and read_after() may be called
// from any thread; a cursor belongs to one thread, reads while appends go on, and sees every entry that
// append() had returned from when end() was read. trim() may run beside cursors: a cursor keeps its
// segment's file open and goes on reading it. A cursor may outlive its log, but not the FileSystem.
#pragma once

#include <array>
#include <atomic>
#include <functional>
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
  // Of the position before the record. append() and commit_large() take it from the entry before;
  // the caller's counts only for the first entry of an empty log (the position of the snapshot on
  // which it builds; 0: not known).
  Epoch before_epoch{};
};

// Where the log ends, as the owner remembers it across a restart of the process on the same boot.
struct LogEnd {
  Epoch segment_epoch;  // the segment's name
  TxId segment_txid;
  uint64_t offset_bytes = 0;      // 0: nothing is known
  uint64_t last_entry_bytes = 0;  // length of the entry that ends there

  bool operator==(const LogEnd&) const = default;
};

struct ChangeLogOptions {
  uint64_t segment_bytes = 16u << 20;
};

// Reads entries in order. Made by ChangeLog::read_after.
class LogCursor {
 public:
  virtual ~LogCursor() = default;
  // Moves to the next entry; false at the end of the log (call again later; a cursor there holds a
  // descriptor and little memory). kCorrupt names segment and offset; kNotFound when the next
  // segment has been trimmed away; kDiverged when cut_after() or clear() has been called since the
  // cursor was made.
  virtual Result<bool> next() = 0;
  // Of the entry that next() moved to.
  virtual const LogEntryInfo& info() const = 0;
  // Its record, until next() is called again. The envelope has been checked, the record has not
  // (record.h, verify).
  virtual RecordSource& record() = 0;
};

// A sync of a log that is done later (ChangeLog::begin_sync), of all that has been written until then. Thread rule: any
// thread. It may outlive its log, but not the FileSystem.
class LogSync {
 public:
  explicit LogSync(std::shared_ptr<File> file) : file_(std::move(file)) {}
  // Who comes first syncs, the others wait for him; the answer is the same for all.
  Status finish();
  // From then on what is written may be left out.
  bool begun() const { return begun_; }

 private:
  const std::shared_ptr<File> file_;
  std::atomic<bool> begun_{false};
  Mutex mutex_;
  std::optional<Status> synced_ GUARDED_BY(mutex_);
};

class ChangeLog {
 public:
  // Opens or creates the log in `directory`. Entries before `known_end` (same boot, same process's
  // successor) are trusted without reading them, but for the last one's envelope; everything behind
  // it, or the whole last segment where `known_end` does not fit, is checked, and a torn tail is
  // cut (logged, with bytes). Of the other segments, however many, only the sizes are looked up.
  // kCorrupt for a segment that does not begin with the entry that its name says; kUnsupported for
  // records of a newer version.
  static Result<std::unique_ptr<ChangeLog>> open(FileSystem& files, const std::string& directory,
                                                 const ChangeLogOptions& options, std::optional<LogEnd> known_end,
                                                 const Log& log);
  virtual ~ChangeLog() = default;

  struct Entry {
    LogEntryInfo info;  // record_bytes is taken from `record`
    ByteView record;
  };
  // Appends complete records with one write. kInvalid when an entry does not follow the one before
  // it, or its record does not say what its info says. After an error the log is as before (what
  // was written is cut).
  virtual Status append(const std::vector<Entry>& entries) = 0;

  // Appends one record in pieces: begin, pieces in order, commit with the final info (record_bytes
  // is counted). Anything but a commit (an error, an abort, a crash) leaves the log as before;
  // after an error nothing is begun any more.
  virtual Status begin_large() = 0;
  virtual Status append_large(ByteView piece) = 0;
  virtual Status commit_large(const LogEntryInfo& info) = 0;
  // No error when nothing is begun.
  virtual void abort_large() = 0;

  // fdatasync of what is not synced yet (and of the directory after a rotation).
  virtual Status sync() = 0;
  // The same for another thread to do later, beside what is done here. Null: what was begun before covers it, or there
  // is nothing to do. An error of one that has ended is answered here, and by sync().
  virtual Result<std::shared_ptr<LogSync>> begin_sync() = 0;

  // The newest entry; nothing when the log is empty.
  virtual std::optional<LogEntryInfo> last() const = 0;
  // The position before the oldest entry that can be read; nothing when the log is empty.
  virtual Result<std::optional<Position>> oldest_before() = 0;
  // The entry that holds a TXID; nothing when there is none. Takes as long as read_after(). Beside a cut, clear() or
  // trim() it may also be kNotFound or kCorrupt, or one that is cut.
  virtual Result<std::optional<LogEntryInfo>> find(TxId txid) = 0;
  virtual LogEnd end() const = 0;
  virtual uint64_t size_bytes() const = 0;

  // A cursor on the entries after `position`. kNotFound when no entry of the log, and not the start
  // of its first one, has exactly this position (epoch, TXID and checksum; of the start the epoch
  // counts only where it is known). The zero position stands before TXID 1. An empty log knows no
  // positions and takes any: when its first entry does not begin there, next() answers kNotFound.
  // Time grows with the distance from the end in the last segment, or from the start of an older
  // one.
  virtual Result<std::unique_ptr<LogCursor>> read_after(const Position& position) = 0;

  // Cuts every entry after `position`, which must be an entry's (or the start of the first one, or
  // the zero position: cuts all); kNotFound when it is none and there are entries. Durable when it
  // returns: what was cut does not come back after a power cut.
  virtual Status cut_after(const Position& position) = 0;
  // Removes all segments; the log is empty and begins anew. Durable when it returns.
  virtual Status clear() = 0;

  // Removes whole segments that are older than `older_than_wall_ms` or beyond `bytes_max` in total,
  // oldest first; never the last segment, and none that holds an entry after `keep_after` unless
  // the log is over `bytes_hard_max`. 0 is no bound. A segment is older when the entry that follows
  // its last one is. Returns how many were removed.
  struct Retention {
    int64_t older_than_wall_ms = 0;
    uint64_t bytes_max = 0;
    uint64_t bytes_hard_max = 0;
    std::optional<TxId> keep_after{};
    // Told the positions behind a segment's entries, in order, before the segment is removed; an error keeps it.
    std::function<Status(const std::vector<Position>&)> retiring{};
  };
  virtual Result<size_t> trim(const Retention& retention) = 0;
};

}  // namespace litefs
