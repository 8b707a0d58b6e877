// The door to a database whose node runs in this process. It keeps no replicated state: only whether a writer of this
// process holds WAL_WRITE. One may serve all of a database's open files, or one call.
// Thread rule: any thread. Lock order: index_mutex_, the database's; nothing is called under mutex_.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/mutex.h"
#include "node/database_door.h"
#include "node/in_process.h"

namespace litefs {

class LocalDoor final : public DatabaseDoor {
 public:
  // Whose connections: those of this process tell of their commits.
  enum class For { kThisProcess, kGuest };
  LocalDoor(InProcessNode& node, std::string name, For who) : node_(node), name_(std::move(name)), who_(who) {}

  bool is_primary() { return node_.node().is_primary(); }
  Error read_only();
  Status may_write() override;
  Status open(bool create) override;
  Status opened_before() override { return is_primary() ? open(false) : Status(); }
  Status wal_opened() override;
  Status index_mapped() override;
  Status index_unmapped() override;
  Status before_index_unlink() override;
  void checkpoint_begins() override {}
  Result<bool> before_write(FileKind kind, uint64_t offset_bytes, ByteView data) override;
  Result<bool> before_resize(FileKind kind, uint64_t size_bytes) override;
  Result<bool> before_unlink(const FileName& file, bool sync) override;
  void resized(FileKind kind, uint64_t size_bytes) override;
  void unlinked(FileKind kind) override;
  Result<bool> before_sync(FileKind kind) override;
  void synced(FileKind kind, const Status& synced) override;
  void write_locked() override { write_locked_ = true; }
  void write_unlocked() override;
  void commit_frame_written() override;

  // kNotFound: the node has none of this name.
  Result<std::shared_ptr<Database>> database();

 private:
  Status may_open_on_primary(bool create);
  Status ask_before_unlink(const FileName& file, bool sync);
  std::shared_ptr<CommitSignal> signal();
  void tell_commit(const std::shared_ptr<Database>& database);

  InProcessNode& node_;
  const std::string name_;
  const For who_;
  std::atomic<bool> write_locked_{false};

  Mutex mutex_;
  std::shared_ptr<Database> database_ GUARDED_BY(mutex_);
  std::shared_ptr<CommitSignal> signal_ GUARDED_BY(mutex_);  // on a primary
};

}  // namespace litefs
