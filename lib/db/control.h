// A database's control file: what the node must find again after any crash, in one mapped page.
//
// Format: 4096 bytes; two slots at offsets 0 and 2048, each (all little-endian): magic u64, sequence u64, the
// fields of ControlState in order, XXH3-64 of the slot before it. A store writes the slot that is not current;
// the reader takes the valid one with the higher sequence. So a SIGKILL in the middle of a store leaves the
// state before it. After a power cut the page may be anything the device had: `boot` tells, and the log and the
// database decide (database_recover.cc). Thread rule: the owner serialises.
#pragma once

#include <memory>

#include "base/types.h"
#include "changelog/change_log.h"
#include "env/file.h"
#include "sqlite/wal.h"

namespace litefs {

// A state of the database: what has been captured or applied, and where in the WAL that is.
struct ControlPoint {
  Position position;
  Pgno size_pages = 0;  // 0: the database does not exist
  WalAnchor anchor;     // salts all zero: no WAL frame belongs to this state
  bool operator==(const ControlPoint&) const = default;
};

// How a planned change will reach the files, so that recovery can tell whether it did.
enum class PlannedKind : uint32_t {
  kNone = 0,
  kWal = 1,     // one WAL transaction that ends at the planned anchor
  kLoad = 2,    // the same, whose pages are in no log (a load): the page sums must be made anew
  kRename = 3,  // a new file renamed into place
  kRemove = 4,  // the database's files are removed
};

struct ControlState {
  DatabaseId id;
  uint32_t page_size = 0;
  ControlPoint current;
  PlannedKind planned_kind = PlannedKind::kNone;
  ControlPoint planned;
  DatabaseId planned_id;
  uint32_t planned_page_size = 0;
  LogEnd log_end;
  uint64_t boot = 0;          // hash of the boot id under which this was written
  uint32_t applied_last = 0;  // 1: the files follow the log; 0: the log follows the files
  // Of the database file when it was last known to be at rest (no transaction, nothing pending in a WAL); mtime 0:
  // never.
  uint64_t clean_size_bytes = 0;
  int64_t clean_mtime_ns = 0;
  // In rollback modes: the file's change counter as captured, and before that. A file that a crash left in the middle
  // of a transaction has one of them when its journal has been played back, unless somebody else has written it since.
  uint32_t change_counter = 0;
  uint32_t change_counter_before = 0;
  // The transaction whose writes to the file have been seen while those to its journal are not
  // (database_unseen_journal.cc); 0: there is none.
  uint64_t journal_stamp = 0;
};

class Control {
 public:
  // Opens or creates. A file without a valid slot is an empty state (and `existed` false).
  static Result<std::unique_ptr<Control>> open(FileSystem& files, const std::string& path);

  const ControlState& state() const { return state_; }
  bool existed() const { return existed_; }
  void store(const ControlState& state);
  Status sync() { return mapping_->sync(); }

 private:
  Control() = default;

  std::unique_ptr<Mapping> mapping_;  // holds the file without a descriptor
  ControlState state_;
  uint64_t sequence_ = 0;
  bool existed_ = false;
};

}  // namespace litefs
