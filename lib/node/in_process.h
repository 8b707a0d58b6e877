// A node inside of an application: the front end of a node without a mount, whose locks are taken on the real files.
//
// Connections of this process use those files by SQLite's own descriptors (the VFS tells late_closing() of them); the
// node's locks are open-file-description locks, which conflict with SQLite's even within one process. Whoever waits for
// a database or a position sleeps here. The node is this process's or, for guests of other processes, asked through
// it (guest_server.h). Thread rule: made and destroyed by the owner's thread; the rest by any thread.
#pragma once

#include <chrono>
#include <functional>
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
    // A database began or ceased to be ready.
    virtual void state_changed() = 0;
  };

  // Who may have databases open at the start, and keep them so.
  struct Others {
    bool attend = false;  // guests of the host before, which go on
    bool remain = false;  // processes that were forked by a host that was killed, which cannot use what they have open
  };
  // Where other processes, or connections of this one, may have databases open at the start, none is closed to them
  // meanwhile. `files` knows of this process's connections and outlives the node; its data directory is canonical.
  struct Place {
    LateClosingFiles& files;
    // Called when the data directory and the port are the node's; an error ends the start.
    std::function<Result<Others>()> taken{};
  };
  static Result<std::unique_ptr<InProcessNode>> open(const Options& options, const Log& log, Listener& listener,
                                                     const Place& place);
  ~InProcessNode() override;

  Node& node() { return *node_; }
  FileSystem& files() { return files_; }
  // DATA/db.
  const std::string& root() const { return root_; }

  // From here on whoever waits, or begins to, gets kCancelled.
  void cancel_waits();
  // "this node is a replica; the primary is HOST"
  Error read_only();
  // Whether any process has this database's -shm locked.
  Result<bool> index_in_use(const std::string& name);

  // A replica's database, once it can be read. kNotFound: the node has none of this name, nor is it on its way here;
  // kBusy: not before the deadline; kIo: it is stopped.
  Result<std::shared_ptr<Database>> wait_readable(const std::string& name, std::chrono::milliseconds timeout);
  // `drains`: on a primary, after capturing what has been committed.
  Result<Position> position(const std::string& name, bool drains);
  // Epoch 0: the TXID alone counts; checksum 0: it is not compared. kTimedOut, kDiverged; kIo: it is stopped.
  Status wait_position(const std::string& name, const Position& wanted, std::chrono::milliseconds timeout);

 private:
  InProcessNode(Listener& listener, LateClosingFiles& files, std::string root)
      : listener_(listener), files_(files), root_(std::move(root)) {}
  Result<uint64_t> changes();
  bool wait_change(uint64_t seen, std::chrono::steady_clock::time_point until);
  void note_change();
  void follow_all();

  // FrontEnd
  Result<std::unique_ptr<LockDoor>> lock_door(const std::string& name) override;
  Status file_resized(const std::string&) override { return {}; }
  void file_created(const std::string&) override {}
  void file_removed(const std::string&) override {}
  void database_changed(const std::string&) override {
    note_change();
    listener_.state_changed();
  }
  void position_moved(const std::string& name) override;
  void role_changed() override { listener_.role_changed(); }

  Listener& listener_;
  LateClosingFiles& files_;
  const std::string root_;
  const std::unique_ptr<Clock> clock_ = system_clock();
  const std::unique_ptr<Random> random_ = system_random();
  std::unique_ptr<Node> node_;

  Mutex mutex_;
  CondVar changed_ GUARDED_BY(mutex_);
  uint64_t changes_ GUARDED_BY(mutex_) = 0;
  bool cancelled_ GUARDED_BY(mutex_) = false;
};

}  // namespace litefs
