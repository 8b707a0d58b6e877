// What SQLite's calls on the files of one database mean to it: FUSE.md's table (section 2), for who sees every call.
//
// The VFS puts each call to such a door before the call takes effect, unless a method's name says otherwise. On a
// replica the files are SQLite's own business, but for writers, who are refused. Where the node runs in another process
// (remote_door.h), that process makes a transaction's end final itself: so it does not stay behind, captured and not
// final, when the process that asked dies; such a method answers that the call has been done.
//
// kCancelled, of any method: the node stops, or its process has died; whoever runs it next can be asked the same.
// Thread rule: any thread.
#pragma once

#include "base/bytes.h"
#include "base/result.h"
#include "sqlite/file_name.h"

namespace litefs {

class DatabaseDoor {
 public:
  virtual ~DatabaseDoor() = default;

  // A writer asks for its lock. kReadOnly: "this node is a replica; the primary is HOST"; kIo: the database is stopped,
  // and what is committed would not be captured.
  virtual Status may_write() = 0;

  // An application opens the database. `create`: it does not exist, and is to be made.
  virtual Status open(bool create) = 0;
  // It has it open since before this host was there, and may hold any lock on it: on a replica nothing is waited for.
  virtual Status opened_before() = 0;

  // -wal has been opened.
  virtual Status wal_opened() = 0;
  // A connection has mapped -shm for the first time, or has let go of it.
  virtual Status index_mapped() = 0;
  virtual Status index_unmapped() = 0;
  // -shm is about to be unlinked.
  virtual Status before_index_unlink() = 0;
  // A checkpoint is about to move frames to the database.
  virtual void checkpoint_begins() = 0;

  // These answer whether the call has been done.
  virtual Result<bool> before_write(FileKind kind, uint64_t offset_bytes, ByteView data) = 0;
  virtual Result<bool> before_resize(FileKind kind, uint64_t size_bytes) = 0;
  // `file`: of this database. `sync`: its directory, too.
  virtual Result<bool> before_unlink(const FileName& file, bool sync) = 0;
  virtual Result<bool> before_sync(FileKind kind) = 0;
  // Where it had not.
  virtual void resized(FileKind kind, uint64_t size_bytes) = 0;
  virtual void unlinked(FileKind kind) = 0;
  virtual void synced(FileKind kind, const Status& synced) = 0;

  // Around WAL_WRITE.
  virtual void write_locked() = 0;
  virtual void write_unlocked() = 0;
  // A commit frame has been written to -wal.
  virtual void commit_frame_written() = 0;
};

}  // namespace litefs
