// A replica's side of the node: what comes over the connection is gathered by database and applied on the worker pool,
// one database's work at a time and in order (repl/doors.h: ReplicaHost).
//
// Limits: kQueueBytesMax of records and pages waiting for the workers, then the connection is not read; a database that
// cannot be applied to now is tried again each kRetryMs. A copy that proves to differ from its primary is set aside
// under lost/ and loaded anew. Thread rule: the loop's thread; the jobs run on workers.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "db/store.h"
#include "env/loop.h"
#include "env/worker_pool.h"
#include "node/node_file.h"
#include "repl/replica_connector.h"

namespace litefs {

struct ReplicaRoleOptions {
  std::string host_name;
  std::string url;
  std::function<void()> welcomed;  // a session has begun
};

class ReplicaRole final : public ReplicaHost {
 public:
  struct Threads {
    EventLoop& loop;
    WorkerPool& workers;
  };
  ReplicaRole(Store& store, NodeFile& node, const Threads& threads, Clock& clock, Random& random, const Log& log,
              const ReplicaRoleOptions& options);
  ~ReplicaRole() override;

  void follow(const std::string& primary_url);
  // Brings databases that exist at start to where they can be read (attach), in the background.
  void attach_all();
  void stop();

  // Known after the first welcome.
  std::optional<wire::Welcome> primary() const { return primary_; }
  bool connected() const;
  ReplicaConnector::Status connector_status() const { return connector_->status(); }
  std::optional<ReplicaLag> lag(const std::string& name) const;
  // Of the whole node: the largest of its databases, growing while the primary is silent. Nothing before the first
  // connection.
  std::optional<int64_t> lag_ms() const;

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
  void primary_position(const std::string&, const Position&, TxId) override {}
  void turn_ended() override;
  void refused(const wire::Refuse& refuse) override;
  void goodbye(const wire::Goodbye& goodbye) override;
  void session_ended(const Status& why) override;

 private:
  // One database's way from the connection to the workers.
  struct Lane {
    std::shared_ptr<Database> database;
    std::shared_ptr<Strand> strand;
    DatabaseId id;
    uint32_t index = 0;                                        // of its present start
    wire::SnapshotReason reason = wire::SnapshotReason::kNew;  // likewise
    std::vector<Bytes> records;                                // whole ones of this turn
    size_t bytes = 0;                                          // in `records`
    Bytes partial;                                             // a record that came only in part
    TxId large_through;                                        // that record's TXID
    bool large = false;                                        // that record goes to the disk in pieces
    // Something that came could not be taken (the database is fenced, the disk is full): what follows it is of no use.
    // Once the database works again the connection is made anew, from what it has.
    std::shared_ptr<std::atomic<bool>> broken = std::make_shared<std::atomic<bool>>(false);
    // How often in a row it was a full disk. Said once, and nothing is asked for again before there is some room; each
    // time that it was not enough it is waited for longer.
    int no_room = 0;
  };

  // The session and the start within it that a job works for.
  struct Origin {
    uint64_t session = 0;
    uint32_t index = 0;
  };

  Result<Lane*> lane(const std::string& name);
  Lane* known_lane(const std::string& name);
  // What a job is for: how much it counts against the queue (0: it brings no data), and through which record it brings
  // its database, which is what may be acknowledged once it is done.
  struct Load {
    size_t bytes = 0;
    TxId through{};
    bool brings_data = false;  // what it brings is lost when it fails: it must be sent again
  };
  void run(Lane& lane, const Load& load, std::function<Status(Database&)> job);
  void finished(const std::string& name, const Origin& origin, const Load& load, const Status& done);
  void cannot_take(Lane& lane, const Error& error);
  void retry_later(Lane& lane);
  void pass_on(Lane& lane);

  Store& store_;
  NodeFile& node_;
  Threads threads_;
  Clock& clock_;
  Log log_;
  ReplicaRoleOptions options_;
  std::map<std::string, Lane> lanes_;
  std::vector<Lane*> dirty_;
  size_t queued_bytes_ = 0;
  bool paused_ = false;
  ReplicaSession* session_ = nullptr;
  uint64_t session_number_ = 0;  // indexes begin anew with each session
  std::shared_ptr<std::atomic<uint64_t>> generation_ = std::make_shared<std::atomic<uint64_t>>(0);
  std::optional<wire::Welcome> primary_;
  int64_t disconnected_ns_ = 0;
  std::map<std::string, std::unique_ptr<Timer>> retries_;
  std::unique_ptr<ReplicaConnector> connector_;
};

}  // namespace litefs
