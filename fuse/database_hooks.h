// What the mount's requests mean to a node's databases (FUSE.md's table), and what the node asks of the mount.
//
// Keeps no replicated state: only the opens that wait for a database to become readable, the copies on their way in,
// and what was refused last. Thread rule: any thread.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "fuse/copies_in.h"
#include "fuse/hooks.h"
#include "fuse/mount.h"
#include "node/node.h"

namespace litefs {

class DatabaseHooks final : public MountHooks, public FrontEnd {
 public:
  DatabaseHooks(Node& node, const Log& log);

  // The mount that these hooks serve, once it stands; null before and after.
  void set_mount(Mount* mount) { mount_ = mount; }

  // MountHooks
  void before_open(const Opening& opening, std::function<void(Status)> done) override;
  void opened(const FileName& file, const HowOpened& how) override;
  void closed(const FileName& file) override;
  Status before_write(const FileName& file, uint64_t offset_bytes, ByteView data) override;
  Status before_resize(const FileName& file, uint64_t size_bytes) override;
  Status before_sync(const FileName& file) override;
  void after_sync(const FileName& file, const Status& synced) override;
  Status before_unlink(const FileName& file) override;
  void after_unlink(const FileName& file) override;
  Status may_rename(const Renaming& renaming) override;
  Status before_rename(const Renaming& renaming) override;
  void after_rename(const Renaming& renaming) override;
  Status before_mkdir(const std::string& name) override;
  Status before_rmdir(const std::string& name) override;
  bool is_virtual_name(const std::string& name) override;
  Result<std::optional<std::string>> virtual_file(const std::string& name) override;
  std::vector<std::string> virtual_names() override;
  bool is_visible(const FileName& file) override;
  bool is_settled(const FileName& file) override;
  bool may_pass_through(const FileName& journal) override;

  // FrontEnd
  Result<std::unique_ptr<LockDoor>> lock_door(const std::string& name) override;
  Status file_resized(const std::string& file_name) override;
  void file_created(const std::string& file_name) override;
  void file_removed(const std::string& file_name) override;
  void database_changed(const std::string& name) override;

 private:
  void open_on_primary(const Opening& opening, std::function<void(Status)> done);
  Status make_renamed(const Renaming& renaming);
  Status may_open_on_primary(const Opening& opening);
  void open_wal_on_primary(const Opening& opening, std::function<void(Status)> done);
  void open_on_replica(const Opening& opening, std::function<void(Status)> done);
  std::shared_ptr<Database> started(const FileName& file, Status* why);
  Status refused(const FileName& file, Status status);
  bool replica_is_read_only() const;

  Node& node_;
  Log log_;
  std::atomic<Mount*> mount_{nullptr};
  CopiesIn copies_;
  Mutex mutex_;
  std::map<std::string, std::vector<std::function<void(Status)>>> waiting_ GUARDED_BY(mutex_);  // by database
  std::string last_refusal_ GUARDED_BY(mutex_);
  std::chrono::steady_clock::time_point last_refused_ GUARDED_BY(mutex_);
};

}  // namespace litefs
