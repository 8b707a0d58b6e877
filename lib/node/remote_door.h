// The door to a database whose node runs in another process. What the host must know is asked there; what it sees by
// itself in the files (commits in the WAL, the pages that a journal names) is not. Where a sync matters only to what is
// asked later, it is told with that.
// Thread rule: any thread, but for what SQLite's locks keep to one: a journal's and a checkpoint's calls.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "env/file.h"
#include "node/database_door.h"
#include "node/guest_link.h"

namespace litefs {

class RemoteDoor final : public DatabaseDoor {
 public:
  // `root`: DATA/db. `index_users`: of the database, in this process; they may have been before this host.
  RemoteDoor(std::shared_ptr<GuestLink> link, FileSystem& files, const std::string& root, const std::string& name,
             std::shared_ptr<const std::atomic<int>> index_users)
      : link_(std::move(link)),
        files_(files),
        name_(name),
        journal_path_(root + "/" + FileName{name, FileKind::kJournal}.text()),
        index_users_(std::move(index_users)) {}

  bool is_primary() { return link_->role() == NodeRole::kPrimary; }
  Error read_only();
  Status may_write() override;
  Status open(bool create) override;
  Status opened_before() override { return is_primary() ? open(false) : Status(); }
  Status wal_opened() override;
  Status index_mapped() override;
  Status index_unmapped() override;
  Status before_index_unlink() override;
  void checkpoint_begins() override {
    checkpoint_asks_ = true;
    journal_active_ = false;  // also where its end was refused, and another process has played it back
  }
  Result<bool> before_write(FileKind kind, uint64_t offset_bytes, ByteView data) override;
  Result<bool> before_resize(FileKind kind, uint64_t size_bytes) override;
  Result<bool> before_unlink(const FileName& file, bool sync) override;
  void resized(FileKind, uint64_t) override {}
  void unlinked(FileKind) override {}
  Result<bool> before_sync(FileKind kind) override;
  void synced(FileKind, const Status&) override {}
  void write_locked() override {}
  void write_unlocked() override {}
  void commit_frame_written() override {}

 private:
  struct Detail {
    uint64_t number = 0;
    std::string data{};
  };
  Result<Bytes> ask(GuestOperation operation, const FileName& file, const Detail& detail);
  Status ask(GuestOperation operation, FileKind kind, uint64_t number = 0);
  Result<bool> ask_to_do(GuestOperation operation, const FileName& file, const Detail& detail);
  Result<bool> before_journal_write(uint64_t offset_bytes, ByteView data);

  const std::shared_ptr<GuestLink> link_;
  FileSystem& files_;
  const std::string name_;
  const std::string journal_path_;
  const std::shared_ptr<const std::atomic<int>> index_users_;
  // A host that is new has to be told and asked, whatever the one before was.
  std::atomic<bool> synced_{true};           // files have been, and the host has not been told
  std::atomic<bool> checkpoint_asks_{true};  // a checkpoint has begun, and the host has not been asked
  std::atomic<bool> journal_active_{false};  // this process has begun one
};

}  // namespace litefs
