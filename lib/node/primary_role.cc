#include "node/primary_role.h"

namespace litefs {
namespace {

class DatabaseLogHold final : public LogHold {
 public:
  DatabaseLogHold(std::shared_ptr<Database> database, uint64_t key, TxId after)
      : database_(std::move(database)), key_(key) {
    database_->hold_log(key_, after);
  }
  ~DatabaseLogHold() override { database_->release_log(key_); }
  void advance(TxId durable) override { database_->hold_log(key_, durable); }

 private:
  std::shared_ptr<Database> database_;
  uint64_t key_;
};

// Nothing: a database without a transaction, which replicas need not know. One that is not ready is there whatever it
// says of itself.
std::optional<PrimaryDatabase> describe(const DatabaseInfo& info) {
  const bool readable = info.state == DatabaseState::kReady;
  if (readable && (info.id.value == 0 || info.position.txid.value == 0)) return std::nullopt;
  return PrimaryDatabase{.name = info.name, .id = info.id, .position = info.position, .readable = readable};
}

}  // namespace

std::shared_ptr<const CommitBatch> PrimaryRole::batch_of(CapturedBatch captured) {
  auto batch = std::make_shared<CommitBatch>();
  batch->after = captured.after;
  batch->bytes = captured.bytes;
  for (CapturedBatch::Item& item : captured.items) {
    RecordPlace place;
    place.txid_first = item.info.txid_first;
    place.before = item.info.before;
    place.after = item.info.position;
    place.record_bytes = item.info.record_bytes;
    batch->records.push_back({place, std::move(item.record)});
  }
  return batch;
}

NodeIdentity PrimaryRole::identity() {
  // Not the highest epoch seen: what this run writes is in its own.
  return NodeIdentity{node_.cluster(), node_.node(), epoch_, options_.host_name, options_.url};
}

bool PrimaryRole::is_primary(std::string* primary_url) {
  *primary_url = options_.primary_url;
  return epoch_.value != 0;
}

std::vector<PrimaryDatabase> PrimaryRole::databases() {
  std::vector<PrimaryDatabase> databases;
  for (const std::shared_ptr<Database>& database : store_.all()) {
    if (std::optional<PrimaryDatabase> known = describe(database->info())) databases.push_back(*known);
  }
  return databases;
}

std::optional<PrimaryDatabase> PrimaryRole::database(const std::string& name) {
  std::shared_ptr<Database> database = store_.find(name);
  return database ? describe(database->info()) : std::nullopt;
}

std::unique_ptr<LogHold> PrimaryRole::hold_log(const std::string& name, DatabaseId, TxId after) {
  std::shared_ptr<Database> database = store_.find(name);
  if (!database) return nullptr;
  return std::make_unique<DatabaseLogHold>(std::move(database), next_hold_++, after);
}

void PrimaryRole::open_feed(const std::string& name, DatabaseId id, const Position& position, FeedDone done) {
  std::shared_ptr<Database> database = store_.find(name);
  if (!database) {
    threads_.loop.post([done, name] { done(Error(ErrorCode::kNotFound, "no database '" + name + "'")); });
    return;
  }
  open_log_feed(threads_, std::move(database), id, position, std::move(done));
}

void PrimaryRole::start_snapshot(const std::string& name, bool compares, SnapshotDone done) {
  std::shared_ptr<Database> database = store_.find(name);
  std::optional<PrimaryDatabase> known = database ? describe(database->info()) : std::nullopt;
  if (known && !known->readable) {
    threads_.loop.post([done, name] { done(Error(ErrorCode::kBusy, "'" + name + "' cannot be read now")); });
    return;
  }
  if (!known) {
    threads_.loop.post([done, name] { done(Error(ErrorCode::kNotFound, "no database '" + name + "'")); });
    return;
  }
  start_snapshot_feed(threads_, std::move(database), compares, std::move(done));
}

void PrimaryRole::replica_left(const NodeIdentity& replica, const Status& why) {
  log_.info("replica gone")
      .kv("node", replica.node)
      .kv("hostname", replica.host_name)
      .kv("why", why.ok() ? "it said goodbye" : why.error().message());
}

void PrimaryRole::higher_epoch_seen(Epoch epoch, NodeId seen_by) {
  log_.error(
          "a replica has seen a higher epoch than this primary's; restart this node, whose next epoch is above it; "
          "lease.candidate must be true on one node only")
      .kv("node", seen_by)
      .kv("epoch", epoch)
      .kv("own", epoch_);
  threads_.workers.post([&node = node_, log = log_, epoch] {
    Status noted = node.raise_epoch(epoch);
    if (!noted.ok()) log.error("cannot note the epoch that was seen").error(noted.error());
  });
}

}  // namespace litefs
