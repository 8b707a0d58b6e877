// What a primary's sessions ask of this node (repl/doors.h: PrimaryHost). Thread rule: the loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "db/store.h"
#include "node/log_feed.h"
#include "node/node_file.h"
#include "repl/doors.h"

namespace litefs {

struct PrimaryRoleOptions {
  std::string host_name;
  std::string url;          // advertised
  bool candidate = false;   // begin() will come
  std::string primary_url;  // told to replicas that come to a node that is not primary
};

class PrimaryRole final : public PrimaryHost {
 public:
  PrimaryRole(Store& store, NodeFile& node, const FeedThreads& threads, const Log& log,
              const PrimaryRoleOptions& options)
      : store_(store), node_(node), threads_(threads), log_(log), options_(options) {}

  // From here on replicas are served, in this epoch.
  void begin(Epoch epoch) { epoch_ = epoch; }
  void end() { epoch_ = Epoch{}; }

  // A batch as the sessions want it.
  static std::shared_ptr<const CommitBatch> batch_of(CapturedBatch captured);

  NodeIdentity identity() override;
  bool is_primary(std::string* primary_url) override;
  bool is_starting() override { return options_.candidate && epoch_.value == 0; }
  std::vector<PrimaryDatabase> databases() override;
  std::optional<PrimaryDatabase> database(const std::string& name) override;
  std::unique_ptr<LogHold> hold_log(const std::string& name, DatabaseId id, TxId after) override;
  void open_feed(const std::string& name, DatabaseId id, const Position& position, FeedDone done) override;
  void start_snapshot(const std::string& name, bool compares, SnapshotDone done) override;
  void replica_joined(const NodeIdentity&) override {}  // the session has logged it
  void replica_left(const NodeIdentity& replica, const Status& why) override;
  void replica_acked(NodeId, const std::string&, TxId, TxId) override {}
  void higher_epoch_seen(Epoch epoch, NodeId seen_by) override;

 private:
  Store& store_;
  NodeFile& node_;
  FeedThreads threads_;
  Log log_;
  PrimaryRoleOptions options_;
  Epoch epoch_;  // 0: not primary
  uint64_t next_hold_ = 1;
};

}  // namespace litefs
