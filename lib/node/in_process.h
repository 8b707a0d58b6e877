// A node inside of an application: the front end of a node without a mount, whose locks are taken on the real files.
//
// Connections of this process use those files by SQLite's own descriptors (the VFS tells late_closing() of them); the
// node's locks are open-file-description locks, which conflict with SQLite's even within one process. Whoever waits for
// a database or a position sleeps here. Thread rule: made and destroyed by the owner's thread; the rest by any thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/mutex.h"
#include "env/late_closing.h"
#include "node/node.h"

namespace litefs {

class InProcessNode final : private FrontEnd {
 public:
  // Who is told, with a database's mutex held or on the loop's thread: only notes and wakes. Outlives the node.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void role_changed() = 0;
    virtual void position_moved(const std::string& name) = 0;
  };

  static Result<std::unique_ptr<InProcessNode>> open(const Options& options, const Log& log, Listener& listener);
  // No connection has a database open any more.
  ~InProcessNode() override;

  Node& node() { return *node_; }
  LateClosingFiles& late_closing() { return late_closing_; }
  // DATA/db, without symbolic links.
  const std::string& root() const { return root_; }

  // A replica's database, once it can be read. kNotFound: the node has none of this name, nor is it on its way here;
  // kBusy: not before the deadline; kIo: it is stopped.
  Result<std::shared_ptr<Database>> wait_readable(const std::string& name, std::chrono::milliseconds timeout);
  // On a primary after capturing what has been committed.
  Result<Position> position(const std::string& name);
  // Epoch 0: the TXID alone counts; checksum 0: it is not compared. kTimedOut, kDiverged; kIo: it is stopped.
  Status wait_position(const std::string& name, const Position& wanted, std::chrono::milliseconds timeout);

 private:
  explicit InProcessNode(Listener& listener) : listener_(listener) {}
  Result<std::string> make_canonical(const std::string& directory);
  uint64_t changes();
  bool wait_change(uint64_t seen, std::chrono::steady_clock::time_point until);
  void note_change();

  // FrontEnd
  Result<std::unique_ptr<LockDoor>> lock_door(const std::string& name) override;
  Status file_resized(const std::string&) override { return {}; }
  void file_created(const std::string&) override {}
  void file_removed(const std::string&) override {}
  void database_changed(const std::string&) override { note_change(); }
  void position_moved(const std::string& name) override;
  void role_changed() override { listener_.role_changed(); }

  Listener& listener_;
  const std::unique_ptr<FileSystem> files_ = posix_file_system();
  LateClosingFiles late_closing_{*files_};
  const std::unique_ptr<Clock> clock_ = system_clock();
  const std::unique_ptr<Random> random_ = system_random();
  std::string root_;
  std::unique_ptr<Node> node_;

  Mutex mutex_;
  CondVar changed_ GUARDED_BY(mutex_);
  uint64_t changes_ GUARDED_BY(mutex_) = 0;
};

}  // namespace litefs
