// A node: the databases of one data directory, in one role, replicating.
//
// Node owns the loop thread, the worker pool, the store and both roles' sessions; front ends (the mount, the VFS) bring
// in the doors through which the node takes locks and tells the kernel, and ask it what applications may do.
// The order of a start is DESIGN section 12's: create() takes the data directory and the port, open_databases()
// recovers, then the front end opens its door (set_front_end), serve() begins to replicate. Until then status says
// "starting". A node that takes over databases which other processes go on using (open_databases(true)) needs the front
// end's lock doors for that: set_front_end comes before it. From then on the front end is called, by this thread's
// open_databases, too.
//
// Thread rule: create, open_databases, set_front_end, serve and stop by the owner's thread, in this order (but for the
// last two sentences); the rest by any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "base/log.h"
#include "base/mutex.h"
#include "db/reserve.h"
#include "db/store.h"
#include "env/clock.h"
#include "env/dead_mounts.h"
#include "env/file.h"
#include "env/loop.h"
#include "env/worker_pool.h"
#include "node/export_session.h"
#include "node/late_jobs.h"
#include "node/node_file.h"
#include "node/options.h"
#include "node/primary_role.h"
#include "node/replica_role.h"
#include "node/status.h"
#include "node/tail_poller.h"
#include "repl/lease.h"
#include "repl/peer_server.h"

namespace litefs {

// What a front end does for the node. Every call may come from any thread.
class FrontEnd {
 public:
  virtual ~FrontEnd() = default;
  virtual Result<std::unique_ptr<LockDoor>> lock_door(const std::string& name) = 0;
  virtual Status file_resized(const std::string& file_name) = 0;
  virtual void file_created(const std::string& file_name) = 0;
  virtual void file_removed(const std::string& file_name) = 0;
  // A database became ready, or stopped being so.
  virtual void database_changed(const std::string& name) = 0;
  // A database's position moved. Only notes and wakes: a database's mutex is held.
  virtual void position_moved(const std::string&) {}
  // role() or primary_host_name() answers something else now.
  virtual void role_changed() {}
};

struct NodeEnvironment {
  FileSystem& files;
  Clock& clock;
  Random& random;
  Log log;
};

class Node final : private DatabaseObserver, private LockDoors, private LeaseListener {
 public:
  // `predecessor_max`: how long a data directory or a port that is in use is tried again, where a predecessor has been
  // killed and may still be ending.
  static Result<std::unique_ptr<Node>> create(const NodeEnvironment& environment, const Options& options,
                                              std::chrono::milliseconds predecessor_max = {});
  ~Node() override;

  // Fences and recovers every database; one that left-over processes hold is tried again in the background. `live`: the
  // node's predecessor has died, and others go on using the files (Database::start_live_primary): nothing is fenced as
  // long as the node lives, and what cannot be taken over is fenced only by name, tried again, and says what it needs.
  Status open_databases(bool live = false);
  void set_front_end(FrontEnd* front_end);
  // Begins to replicate.
  Status serve();
  // Whether every database that is here can be read, waiting until it is so or the deadline has passed.
  bool wait_readable(std::chrono::milliseconds deadline);
  // Ends sessions, drains, syncs. The front end still stands; it goes afterwards.
  void stop();

  bool is_primary() const { return options_.candidate; }
  NodeRole role() const;
  // Where other nodes reach this one: the port that was given, or the free one that was found.
  const std::string& address() const { return address_; }
  const Options& options() const { return options_; }
  Store& store() { return store_; }
  // A database that an application makes on a primary, ready for its first write.
  Result<std::shared_ptr<Database>> create_database(const std::string& name);
  // Before the front end removes its file. On a full disk, too: it is how room is made.
  Status delete_database(Database& database);
  // Its WAL was opened: begin to follow it.
  void follow_tail(std::shared_ptr<Database> database) { poller_->touch(std::move(database)); }
  // Others have it open, who tell of nothing.
  void watch_commits(std::shared_ptr<Database> database) { poller_->watch(std::move(database)); }
  // Its commits are known to the front end, which tells of them.
  std::shared_ptr<CommitSignal> commit_signal(std::shared_ptr<Database> database) {
    return poller_->signal(std::move(database));
  }

  // A mount of this node's databases is about to be put where applications find it.
  Status mounting(uint64_t device) {
    return reserve_.lend([&] { return dead_mounts_->add(device); });
  }

  // The primary's host name as this node knows it; empty on the primary and while unknown.
  std::string primary_host_name();
  // Milliseconds behind the primary; 0 on the primary, nothing while unknown.
  std::optional<int64_t> lag_ms();
  NodeStatus status();

 private:
  struct Own {
    std::unique_ptr<NodeFile> node_file;
    std::unique_ptr<DeadMounts> dead_mounts;
  };
  Node(const NodeEnvironment& environment, const Options& options, Own own);

  static DatabaseEnvironment database_environment(Node& node);
  Status start_loop(std::chrono::milliseconds predecessor_max);
  void run_on_loop(std::function<void()> job);
  Status start_database(Database& database);
  void observe();
  void tell_role();
  void retry_fenced();
  void capture_unseen_ends();
  void retention();
  NodeStatus status_on_loop();
  void status_client(std::unique_ptr<Stream> stream);
  void answer_local(Stream* client, const std::string& line);
  Status may_import(const std::string& name);
  void start_export(Stream* client, std::shared_ptr<Database> database);

  // DatabaseObserver
  void committed(const std::string& name, CapturedBatch batch) override;
  void changed(const std::string& name) override;
  void moved(const std::string& name) override;
  Status file_resized(const std::string& file_name) override;
  void file_created(const std::string& file_name) override;
  void file_removed(const std::string& file_name) override;
  // LockDoors
  Result<std::unique_ptr<LockDoor>> open(const std::string& name) override;
  // LeaseListener
  void lease_acquired(Epoch epoch, std::optional<int64_t> until_ms) override;
  void lease_renewed(std::optional<int64_t>) override {}
  void lease_lost() override;
  void leader_is(const LeaderInfo& leader) override;

  const NodeEnvironment env_;
  const Options options_;
  std::unique_ptr<NodeFile> node_file_;
  std::unique_ptr<DeadMounts> dead_mounts_;
  Reserve reserve_;
  const Epoch epoch_;  // of this run, on a primary
  Store store_;
  WorkerPool workers_;
  LateJobs late_jobs_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<TailPoller> poller_;
  std::thread loop_thread_;
  std::string address_;  // from create() on
  std::atomic<bool> stopping_{false};
  std::atomic<bool> serving_{false};
  std::atomic<bool> live_{false};  // others use the databases: they are never fenced
  std::atomic<FrontEnd*> front_end_{nullptr};

  // On the loop's thread only.
  std::unique_ptr<PrimaryRole> primary_role_;
  std::unique_ptr<ReplicaRole> replica_role_;
  std::unique_ptr<PeerServer> server_;
  std::unique_ptr<Lease> lease_;
  std::unique_ptr<Listener> status_listener_;
  std::vector<std::unique_ptr<Stream>> status_clients_;
  std::vector<std::shared_ptr<ExportSession>> exports_;
  uint64_t next_export_ = 0;
  std::unique_ptr<Timer> housekeeping_;
  std::unique_ptr<Timer> observer_timer_;
  int64_t next_retention_ms_ = 0;

  Mutex mutex_;
  CondVar readable_ GUARDED_BY(mutex_);
  uint64_t changes_ GUARDED_BY(mutex_) = 0;
  std::string primary_host_name_ GUARDED_BY(mutex_);
  std::optional<int64_t> lag_ms_ GUARDED_BY(mutex_);
};

}  // namespace litefs
