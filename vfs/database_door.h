// What SQLite's calls on the files of one database mean to it: FUSE.md's table (section 2), for who sees every call.
//
// One for each database that is open, shared by all its files. It keeps no replicated state: who uses the wal-index,
// and whether a writer holds WAL_WRITE, both only within this process. All of it is asked before the call takes effect,
// unless its name says otherwise. On a replica the files are SQLite's own business, but for writers, who are refused.
// Thread rule: any thread. Lock order: index_mutex_, the database's; nothing is called under mutex_.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/mutex.h"
#include "node/in_process.h"
#include "sqlite/file_name.h"

namespace litefs {

class DatabaseDoor {
 public:
  DatabaseDoor(InProcessNode& node, std::string name);

  bool is_primary() const { return node_.node().is_primary(); }
  // "this node is a replica; the primary is HOST"
  Error read_only() const;
  // A writer asks for its lock. kReadOnly; kIo: the database is stopped, and what is committed would not be captured.
  Status may_write();

  // An application opens the database. `create`: it does not exist, and is to be made.
  Status open(bool create);

  // -wal has been opened.
  Status wal_opened();
  // A connection has mapped -shm for the first time, or has let go of it.
  Status index_mapped();
  void index_unmapped();
  // -shm is about to be unlinked.
  Status before_index_unlink();

  Status before_write(FileKind kind, uint64_t offset_bytes, ByteView data);
  Status before_resize(FileKind kind, uint64_t size_bytes);
  void resized(FileKind kind, uint64_t size_bytes);
  Status before_sync(FileKind kind);
  void synced(FileKind kind, const Status& synced);
  // `file`: of this database.
  Status before_unlink(const FileName& file);
  void unlinked(FileKind kind);

  // Around WAL_WRITE.
  void write_locked() { write_locked_ = true; }
  void write_unlocked();
  // A commit frame has been written to -wal.
  void commit_frame_written();

 private:
  Status may_open_on_primary(bool create);
  // Never null for a database that has been opened.
  std::shared_ptr<Database> database();
  std::shared_ptr<CommitSignal> signal();

  InProcessNode& node_;
  const std::string name_;
  std::atomic<bool> write_locked_{false};

  Mutex mutex_;
  std::shared_ptr<Database> database_ GUARDED_BY(mutex_);
  std::shared_ptr<CommitSignal> signal_ GUARDED_BY(mutex_);  // on a primary

  Mutex index_mutex_;
  int index_users_ GUARDED_BY(index_mutex_) = 0;
};

}  // namespace litefs
