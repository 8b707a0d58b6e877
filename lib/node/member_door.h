// The door to a database for the connections of this process, whoever runs the node: DatabaseDoor, asked again of the
// next host where one ends meanwhile. One for each database that is open, shared by all its files.
// A new host is told what it must know before it is asked anything; of what another process does not need to be asked
// it is not told either, as it finds by itself who has the database open. So nobody waits for a host that is stopped to
// learn that he may write.
// Thread rule: any thread. Nothing is asked under mutex_.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/mutex.h"
#include "node/database_door.h"
#include "node/member.h"

namespace litefs {

class MemberDoor final : public DatabaseDoor {
 public:
  MemberDoor(Member& member, std::string name) : member_(member), name_(std::move(name)) {}

  Status may_write() override;
  Status open(bool create) override;
  Status opened_before() override { return open(false); }
  Status wal_opened() override;
  Status index_mapped() override;
  Status index_unmapped() override;
  Status before_index_unlink() override;
  void checkpoint_begins() override;
  Result<bool> before_write(FileKind kind, uint64_t offset_bytes, ByteView data) override;
  Result<bool> before_resize(FileKind kind, uint64_t size_bytes) override;
  Result<bool> before_unlink(const FileName& file, bool sync) override;
  void resized(FileKind kind, uint64_t size_bytes) override;
  void unlinked(FileKind kind) override;
  Result<bool> before_sync(FileKind kind) override;
  void synced(FileKind kind, const Status& synced) override;
  void write_locked() override;
  void write_unlocked() override;
  void commit_frame_written() override;

 private:
  struct Current {
    std::shared_ptr<DatabaseDoor> door;
    Member::Seat seat;
  };
  std::shared_ptr<DatabaseDoor> door_of(const Member::Seat& seat);
  // A door that has been told.
  Result<Current> current(std::chrono::steady_clock::time_point until);
  Status repeat(DatabaseDoor& door) REQUIRES(telling_);
  // The door of now, for what asks no other process; null: there is none, and what would be told is found by the next
  // host itself.
  std::shared_ptr<DatabaseDoor> now();
  template <class Ask>
  auto ask(const Ask& ask) -> decltype(ask(std::declval<DatabaseDoor&>()));

  Member& member_;
  const std::string name_;
  const std::shared_ptr<std::atomic<int>> index_users_ = std::make_shared<std::atomic<int>>(0);

  Mutex telling_;  // held while a host is told

  Mutex mutex_;
  std::shared_ptr<DatabaseDoor> door_ GUARDED_BY(mutex_);
  uint64_t seat_ GUARDED_BY(mutex_) = 0;  // whose door it is
  uint64_t told_ GUARDED_BY(mutex_) = 0;  // the last seat that was told
  bool opened_ GUARDED_BY(mutex_) = false;
  bool wal_opened_ GUARDED_BY(mutex_) = false;
};

}  // namespace litefs
