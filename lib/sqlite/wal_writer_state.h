// What the parts of WalWriter share: wal_attach.cc, wal_writer.cc, wal_checkpoint.cc. Not for
// anybody else.
#pragma once

#include <memory>
#include <optional>

#include "sqlite/wal_writer.h"

namespace litefs {

struct WalWriter::State {
  State(WalWriterFiles files_in, std::unique_ptr<LockDoor> locks_in, const WalWriterOptions& options_in,
        Random& random_in)
      : files(std::move(files_in)), locks(std::move(locks_in)), options(options_in), random(random_in) {}

  // wal_attach.cc
  Status join_shared_memory();
  Status load_or_recover();
  Status adopt(const WalIndexHeader& header);
  Status recover();
  Status check_database();
  Error other_page_size(uint32_t found) const;

  // wal_writer.cc
  Status restart_if_possible();
  void start_generation();
  Status write_wal_header();
  void seal_last_frame(Pgno commit_size);
  Status enter_run();
  Status write_run();
  Status read_page(Pgno pgno, MutableByteView page);

  // wal_checkpoint.cc
  Result<uint32_t> safe_frame();
  Status backfill(uint32_t from, uint32_t to, bool sync);
  Status copy_pages(uint32_t from, uint32_t to);

  size_t frame_bytes() const { return kWalFrameHeaderBytes + options.page_size; }
  size_t frames_in_run() const { return run.size() / frame_bytes(); }
  uint64_t frame_offset(uint32_t frame) const {
    return kWalHeaderBytes + static_cast<uint64_t>(frame - 1) * frame_bytes();
  }
  Result<HeldLock> lock_shm(uint64_t start, uint64_t length, LockKind kind) {
    return HeldLock::take(*locks, LockFile::kShm, start, length, kind);
  }

  // The order of these is the order of their end, backwards: the mapping goes before DMS, DMS
  // before the files.
  WalWriterFiles files;
  std::unique_ptr<LockDoor> locks;
  std::optional<HeldLock> shared;  // the database
  std::optional<HeldLock> write;   // WAL_WRITE
  std::optional<HeldLock> dms;
  std::unique_ptr<WalIndexWriter> index;

  WalWriterOptions options;
  Random& random;

  WalIndexHeader published;
  Pgno size_pages = 0;
  // As in the file, or about to be written there.
  std::optional<WalHeader> wal_header;
  enum class Generation {
    kUnknown,  // max_frame is 0: to be begun
    kBegun,    // in the wal-index, its header not yet in the file
    kReady,
  };
  Generation generation = Generation::kUnknown;
  // The database holds pages of a checkpoint without sync.
  bool database_unsynced = false;

  enum class Phase { kIdle, kOpen, kPrepared, kFailed };
  Phase phase = Phase::kIdle;
  Bytes run;               // frames not written yet, the last one not sealed
  uint32_t run_first = 0;  // frame number of the run's first
  uint32_t entered = 0;    // frames up to here are in the wal-index
  WalChecksum running;     // after the last sealed frame
  Pgno size_after = 0;     // of the prepared transaction
};

}  // namespace litefs
