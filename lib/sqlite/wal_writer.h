// A writer of SQLite's WAL that shares the files with live SQLite connections: a replica's way to
// apply.
//
// It holds WAL_WRITE, the database's SHARED and DMS shared for as long as it lives, so no
// application writes. A transaction's frames are appended behind max_frame, entered in the
// wal-index, and published by the header: readers keep their snapshot, new readers see the new
// state, nobody waits for anybody. It checkpoints by walCheckpoint's rules (PASSIVE) and restarts
// the WAL by walRestartLog's, holding WAL_CKPT too (SQLite before 3.51.3 has a race there). Source:
// wal.c of SQLite 3.40.
//
// Crash safety: frames are durable like SQLite's at synchronous=NORMAL (synced before a checkpoint;
// a new generation's header is synced before its first frame, lest a power cut leave the head of
// the old generation valid over a newer database). Only what unsynced checkpoints moved is not: see
// checkpoint(). A crash between the write of a commit frame and its publication leaves a
// transaction that is recovered where the wal-index is recovered, and overwritten where it lives on
// in other processes: as with SQLite's own writers. Errors leave the published state as it was.
// Thread rule: one thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "env/clock.h"
#include "env/file.h"
#include "sqlite/locks.h"
#include "sqlite/wal.h"
#include "sqlite/wal_index.h"

namespace litefs {

struct WalWriterFiles {
  std::unique_ptr<File> database;  // real files, opened read-write
  std::unique_ptr<File> wal;       // may be empty: a header is written with the first transaction
  std::unique_ptr<File> shm;
};

struct WalWriterOptions {
  uint32_t page_size = 0;
  // Called when a checkpoint has changed the database file's size, before readers may rely on it:
  // the mount tells the kernel here. An error ends the checkpoint as if a reader had been in the
  // way.
  std::function<Status()> on_resize;
  // The same for every checkpoint that has written pages: where the kernel caches the file, the
  // mount invalidates it here. Called before on_resize.
  std::function<Status()> on_write;
};

struct CheckpointOutcome {
  uint32_t max_frame = 0;
  uint32_t backfilled = 0;  // equal to max_frame: complete
};

class WalWriter {
 public:
  // A transaction's frames are gathered into writes of at most this many bytes (but at least one
  // frame).
  static constexpr size_t kRunBytes = 256 * 1024;

  // Takes the locks (kBusy when an application holds one that is needed), joins the DMS protocol
  // (unixLockSharedMemory: alone → truncates -shm, else shares it), recovers the wal-index from the
  // WAL when there is no valid one (or this is the first process), and leaves both ready. Recovery
  // wants every reader gone (kBusy). kInvalid: the newest page 1 is none of a database in WAL mode
  // with this page size; kCorrupt: the wal-index does not fit the WAL. `random` outlives the
  // writer.
  static Result<std::unique_ptr<WalWriter>> attach(WalWriterFiles files, std::unique_ptr<LockDoor> locks,
                                                   const WalWriterOptions& options, Random& random);
  ~WalWriter();  // releases the locks, leaves the files
  WalWriter(const WalWriter&) = delete;
  WalWriter& operator=(const WalWriter&) = delete;

  // Published state: the anchor after the last committed frame (frame 0 and the current salts in an
  // empty generation) and the database's size in pages.
  WalAnchor end() const;
  Pgno size_pages() const;

  // Reads the page's newest committed image: its newest frame, else the database file. Zeroes past
  // its end.
  Status read_page(Pgno pgno, MutableByteView page);

  // One transaction: begin, pages in any order (a later image of a page wins), then prepare and
  // publish. Frames are written in runs of up to kRunBytes; memory is bounded. begin() restarts the
  // WAL first when it is fully backfilled and readers allow. After an error only abort() may
  // follow.
  Status begin();
  // kInvalid for page 0 and the lock page, which are never written.
  Status add_page(Pgno pgno, ByteView page);
  // Completes the transaction but for its visibility: returns the anchor that publish() will reach.
  // At least one page must have been added. The commit frame is not in the file yet: a crash before
  // publish() forgets it all.
  Result<WalAnchor> prepare(Pgno size_after);
  Status publish();
  void abort();  // forgets frames that were not published; nothing to do without a transaction

  // As SQLite's PASSIVE checkpoint. kBusy when another process checkpoints. With `sync` the WAL is
  // synced before and, when the checkpoint is complete, the database after, as SQLite does; without
  // it nothing is durable before the next complete one with it. Not during a transaction.
  Result<CheckpointOutcome> checkpoint(bool sync);
  // Frames in the WAL that no checkpoint has moved yet.
  uint32_t frames_to_checkpoint() const;

  File& database_file();

 private:
  struct State;
  explicit WalWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace litefs
