// A primary and replicas on loopback sockets, each with an event loop in a thread of its own. The
// primary's databases are real change logs; a replica keeps positions and checks that every record
// follows on the last.
#pragma once

#include <atomic>
#include <future>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "changelog/change_log.h"
#include "env/worker_pool.h"
#include "repl/peer_server.h"
#include "repl/replica_connector.h"

namespace litefs::test {

inline constexpr int64_t kTestWaitMs = 20000;

uint64_t test_seed();

// Collects log lines, for tests that look for one.
class LineSink final : public LogSink {
 public:
  void write(LogLevel level, std::string_view line) override;
  bool has(const std::string& part);
  // Waits for it; false at the deadline.
  bool comes(const std::string& part);

 private:
  bool has_locked(const std::string& part) REQUIRES(mutex_);
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::string> lines_ GUARDED_BY(mutex_);
};

// Runs a loop in a thread; everything that the loop made must be gone when this is.
class LoopThread {
 public:
  explicit LoopThread(const Log& log = Log(null_log_sink()))
      : loop_(uv_event_loop(log)), thread_([this] { loop_->run(); }) {}
  ~LoopThread() {
    loop_->stop();
    thread_.join();
  }

  EventLoop& loop() { return *loop_; }
  // Runs `fn` on the loop's thread and waits for it.
  template <class F>
  auto call(F fn) {
    std::promise<decltype(fn())> done;
    loop_->post([&] {
      if constexpr (std::is_void_v<decltype(fn())>) {
        fn();
        done.set_value();
      } else {
        done.set_value(fn());
      }
    });
    return done.get_future().get();
  }

 private:
  std::unique_ptr<EventLoop> loop_;
  std::thread thread_;
};

// Something that another thread changes and a test waits for.
class Signal {
 public:
  // Calls `condition` under the lock that `change` takes, until it is true. False after
  // kTestWaitMs.
  bool wait(const std::function<bool()>& condition);
  void change(const std::function<void()>& fn);

 private:
  Mutex mutex_;
  CondVar changed_;
};

struct TestPrimaryOptions {
  NodeIdentity identity{.cluster_id = 7, .node = NodeId{1}, .epoch = Epoch{3}, .host_name = "one", .url = ""};
  PrimarySessionOptions session{};
  bool primary = true;
  std::string primary_url{};
  bool starting = false;
};

class TestPrimary final : public PrimaryHost {
 public:
  TestPrimary(const std::string& directory, const TestPrimaryOptions& options = {},
              std::shared_ptr<LogSink> sink = null_log_sink());
  ~TestPrimary() override;

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  LoopThread& thread() { return thread_; }
  PeerServer& server() { return *server_; }  // on the loop's thread

  // One transaction with this many bytes of incompressible page.
  Position commit(const std::string& name, size_t bytes = 512);
  // One transaction too large for memory, appended in pieces of a page.
  Position commit_large(const std::string& name, size_t pages);
  void drop(const std::string& name);
  Position position(const std::string& name);
  // Forgets the log, as retention would.
  void clear_log(const std::string& name);
  std::vector<ReplicaStatus> status();
  bool wait_replicas(size_t count);
  // The longest queue that a session was seen with.
  size_t queue_peak() const { return queue_peak_; }

  std::atomic<int> snapshots{0};
  std::atomic<int> feeds{0};
  std::atomic<size_t> snapshot_bytes{100};
  // What a snapshot that compares asks, in order, before its bytes; what was answered.
  std::vector<SumsQuestion> questions;
  std::vector<std::vector<Checksum>> answers;  // once a replica has the snapshot
  // How many reads of a snapshot are answered with kBusy, between its pieces.
  std::atomic<int> busy_reads{0};
  std::atomic<bool> fail_feeds{false};
  std::atomic<bool> readable{true};  // all databases
  std::atomic<uint64_t> epoch_seen{0};
  std::atomic<uint64_t> held_through{0};  // the last advance() of any hold

  NodeIdentity identity() override;
  bool is_primary(std::string* primary_url) override;
  bool is_starting() override { return options_.starting; }
  std::vector<PrimaryDatabase> databases() override;
  std::optional<PrimaryDatabase> database(const std::string& name) override;
  std::unique_ptr<LogHold> hold_log(const std::string& name, DatabaseId id, TxId after) override;
  void open_feed(const std::string& name, DatabaseId id, const Position& position, FeedDone done) override;
  void start_snapshot(const std::string& name, bool compares, SnapshotDone done) override;
  void replica_joined(const NodeIdentity& replica) override;
  void replica_left(const NodeIdentity& replica, const Status& why) override;
  void replica_acked(NodeId replica, const std::string& name, TxId received, TxId durable) override;
  void higher_epoch_seen(Epoch epoch, NodeId seen_by) override;

 private:
  friend class TestFeed;
  struct Db {
    DatabaseId id;
    Position position{};
    std::unique_ptr<ChangeLog> log;
    bool dropped = false;
  };

  Db& db_locked(const std::string& name) REQUIRES(mutex_);
  RecordHeader header_locked(const Db& db, size_t page_size, uint32_t pages) REQUIRES(mutex_);
  void tell(const std::string& name, const Db& db, CommitBatch batch) REQUIRES(mutex_);

  TestPrimaryOptions options_;
  std::string directory_;
  Log log_;
  std::unique_ptr<FileSystem> files_ = posix_file_system();
  std::unique_ptr<Clock> clock_ = system_clock();
  Mutex mutex_;
  std::map<std::string, Db> databases_ GUARDED_BY(mutex_);
  PageCodec codec_ GUARDED_BY(mutex_);
  std::mt19937_64 random_ GUARDED_BY(mutex_);
  Signal signal_;
  int replicas_ = 0;  // under signal_
  std::atomic<size_t> queue_peak_{0};
  uint16_t port_ = 0;
  WorkerPool workers_{"test", 2};
  LoopThread thread_;
  std::unique_ptr<PeerServer> server_;
  std::unique_ptr<Timer> sampler_;
};

struct TestReplicaOptions {
  NodeIdentity identity{.cluster_id = 0, .node = NodeId{2}, .epoch = Epoch{0}, .host_name = "two", .url = ""};
  ReplicaConnectorOptions connector{.times = {}, .backoff_min_ms = 10, .backoff_max_ms = 50};
};

class TestReplica final : public ReplicaHost {
 public:
  struct Db {
    DatabaseId id;
    Position position{};
    uint64_t records = 0;
    wire::SnapshotReason reason = wire::SnapshotReason::kNew;
    int snapshots = 0;
    int differences = 0;  // of them
    Position primary{};   // by heartbeat
    Position consistent_at{};
  };

  explicit TestReplica(const TestReplicaOptions& options = {}, std::shared_ptr<LogSink> sink = null_log_sink());
  ~TestReplica() override;

  void follow(const std::string& address);
  // Cuts the connection from our side, without a word.
  void disconnect();
  LoopThread& thread() { return thread_; }
  ReplicaConnector& connector() { return *connector_; }  // on the loop's thread

  bool wait_position(const std::string& name, const Position& position);
  bool wait(const std::function<bool()>& condition) { return signal_.wait(condition); }
  // Under the lock of wait(); the rest of the world calls db().
  std::map<std::string, Db> dbs;
  Db db(const std::string& name);
  void set_db(const std::string& name, const Db& db);

  // Hooks, on the loop's thread.
  std::function<void(ReplicaSession&)> on_piece;
  // In place of an answer of sums that are their own place in it.
  std::function<void(ReplicaSession&, uint32_t index, const SumsQuestion&)> on_question;
  bool hold_acks = false;
  std::atomic<int> sessions{0};
  std::atomic<int> ended{0};
  std::string error;              // the last session's end; under wait()'s lock
  wire::Refuse refuse;            // likewise
  wire::Goodbye farewell;         // likewise
  std::set<std::string> unknown;  // likewise

  NodeIdentity identity() override;
  std::vector<wire::DatabaseHeld> databases() override;
  Status session_welcomed(ReplicaSession& session, const wire::Welcome& welcome) override;
  Status database_started(const DatabaseStart& start) override;
  Status log_piece(const std::string& name, const IncomingPiece& piece) override;
  Status snapshot_begin(const std::string& name, const IncomingSnapshot& snapshot) override;
  Status sums_wanted(const std::string& name, const SumsQuestion& question) override;
  Status snapshot_piece(const std::string& name, ByteView bytes) override;
  Status snapshot_end(const std::string& name, const Position& consistent_at) override;
  void database_ended(const std::string& name, wire::EndReason reason, const std::string& text) override;
  void primary_position(const std::string& name, const Position& position, TxId commit) override;
  void turn_ended() override;
  void refused(const wire::Refuse& said) override;
  void goodbye(const wire::Goodbye& said) override;
  void session_ended(const Status& why) override;

 private:
  // What has come of a record; of a long one only its beginning and its end.
  struct Partial {
    Bytes head;
    Bytes tail;
    uint64_t bytes = 0;
    Position snapshot_start;
  };
  std::map<std::string, uint32_t> indexes_;  // loop thread: of each database's present start
  Status record_complete(const std::string& name, const Partial& record, uint64_t bytes);

  TestReplicaOptions options_;
  Log log_;
  Signal signal_;
  std::map<std::string, Partial> partial_;  // loop thread
  std::map<std::string, TxId> applied_;     // loop thread: to be acknowledged
  ReplicaSession* session_ = nullptr;
  std::unique_ptr<Clock> clock_ = system_clock();
  std::unique_ptr<Random> random_ = system_random();
  LoopThread thread_;
  std::unique_ptr<ReplicaConnector> connector_;
};

}  // namespace litefs::test
