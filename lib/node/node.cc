#include "node/node.h"

#include <algorithm>
#include <cstdlib>
#include <future>

#include "litefs/litefs.h"
#include "node/guest_wire.h"

namespace litefs {
namespace {

constexpr size_t kWorkers = 3;
constexpr int64_t kHousekeepingMs = 250;
constexpr int64_t kObserveMs = 100;
constexpr std::chrono::milliseconds kTakePause{20};

// Takes what a predecessor holds until its last thread has ended. Nothing tells when that is, so it is tried again.
template <class Take>
auto take_within(std::chrono::milliseconds time_max, Take take) -> decltype(take()) {
  const auto until = std::chrono::steady_clock::now() + time_max;
  for (;;) {
    auto taken = take();
    const bool held = !taken.ok() && taken.error().code() == ErrorCode::kBusy;
    if (!held || std::chrono::steady_clock::now() >= until) return taken;
    std::this_thread::sleep_for(kTakePause);
  }
}

}  // namespace

DatabaseEnvironment Node::database_environment(Node& node) {
  DatabaseEnvironment environment{node.env_.files,
                                  node.env_.clock,
                                  node.env_.random,
                                  node.env_.log,
                                  node.options_.data_dir,
                                  node.node_file_->node(),
                                  node,
                                  node};
  environment.left_over = [&mounts = *node.dead_mounts_](const std::vector<std::string>& names) {
    return mounts.holders(names);
  };
  environment.run_later = [&jobs = node.late_jobs_](std::function<void()> job) { jobs.post(std::move(job)); };
  environment.attended = [&node] { return node.live_.load(); };
  const char* skip = std::getenv("LITEFS_TEST_NO_DRAINS");
  environment.skip_drains = skip && std::string(skip) == "1";
  return environment;
}

Result<std::unique_ptr<Node>> Node::create(const NodeEnvironment& environment, const Options& options,
                                           std::chrono::milliseconds predecessor_max) {
  std::unique_ptr<NodeFile> node_file = TRY(take_within(
      predecessor_max, [&] { return NodeFile::open(environment.files, options.data_dir, environment.random); }));
  // It would say that who has a database open has it from a process that ran the node (member.cc).
  if (!options.fuse_dir.empty()) {
    TRY(environment.files.remove_if_there(options.data_dir + "/" + kGuestSocketName));
  }
  if (options.candidate) {
    // The epoch of this run is stored before anything can be written in it.
    const Epoch next{node_file->epoch().value + 1};
    Status raised = Reserve(environment.files, options.data_dir).lend([&] { return node_file->raise_epoch(next); });
    if (!raised.ok() && raised.error().code() == ErrorCode::kNoSpace) {
      return Error(ErrorCode::kNoSpace, raised.error().message() + ": make room, then start again");
    }
    TRY(raised);
    if (node_file->cluster() == 0) TRY(node_file->set_cluster(environment.random.nonzero_u64()));
  }
  std::unique_ptr<DeadMounts> dead_mounts =
      TRY(DeadMounts::open(environment.files, environment.clock, options.data_dir + "/mounts"));
  auto node = std::unique_ptr<Node>(new Node(environment, options, {std::move(node_file), std::move(dead_mounts)}));
  TRY(node->start_loop(predecessor_max));
  return node;
}

Node::Node(const NodeEnvironment& environment, const Options& options, Own own)
    : env_(environment),
      options_(options),
      node_file_(std::move(own.node_file)),
      dead_mounts_(std::move(own.dead_mounts)),
      reserve_(environment.files, options.data_dir),
      epoch_(node_file_->epoch()),
      store_(database_environment(*this)),
      workers_("worker", kWorkers),
      loop_(uv_event_loop(environment.log)) {}

Node::~Node() { stop(); }

// Takes the port, so that a start that cannot have it fails before it touches a database.
Status Node::start_loop(std::chrono::milliseconds predecessor_max) {
  poller_ = TRY(TailPoller::start(env_.clock, env_.log));
  PrimaryRoleOptions primary;
  primary.host_name = options_.hostname;
  primary.url = "http://" + options_.primary.text();
  primary.candidate = options_.candidate;
  primary.primary_url = primary.url;
  primary_role_ = std::make_unique<PrimaryRole>(store_, *node_file_, FeedThreads{*loop_, workers_}, env_.log, primary);
  server_ = TRY(take_within(predecessor_max, [&] {
    return PeerServer::listen(*loop_, *primary_role_, env_.clock, env_.log, PrimarySessionOptions(),
                              options_.listen.text());
  }));
  address_ = server_->address();
  status_listener_ = TRY(take_within(predecessor_max, [&] {
    return loop_->listen_unix(options_.data_dir + "/" + kStatusSocketName,
                              [this](std::unique_ptr<Stream> stream) { status_client(std::move(stream)); });
  }));
  housekeeping_ = loop_->timer([this] {
    retry_fenced();
    capture_unseen_ends();
    retention();
  });
  housekeeping_->start(kHousekeepingMs, kHousekeepingMs);
  loop_thread_ = std::thread([this] {
    name_thread("loop");
    loop_->run();
  });
  return {};
}

// Runs a job on the loop's thread and waits for it. Not from the loop's own thread.
void Node::run_on_loop(std::function<void()> job) {
  std::promise<void> done;
  loop_->post([&] {
    job();
    done.set_value();
  });
  done.get_future().wait();
}

Status Node::start_database(Database& database) {
  // What nobody has open nobody opens now: who wants to asks the node before.
  const bool live = live_ && TRY(database.is_open_elsewhere());
  if (live) return is_primary() ? database.start_live_primary(epoch_) : database.start_live_replica();
  TRY(database.fence());
  return is_primary() ? database.start_primary(epoch_) : database.start_replica();
}

Status Node::open_databases(bool live) {
  live_ = live;
  TRY(store_.open());
  for (const std::shared_ptr<Database>& database : store_.all()) {
    Status started = start_database(*database);
    if (started.ok()) continue;
    if (started.error().code() == ErrorCode::kBusy) {
      env_.log.warning("database waits for the processes that have it open")
          .kv("database", database->name())
          .error(started.error());
    } else if (database->info().state != DatabaseState::kStopped) {
      database->stop_for(started.error());
    }
  }
  reserve_.fill();
  return {};
}

void Node::set_front_end(FrontEnd* front_end) { front_end_ = front_end; }

Status Node::serve() {
  run_on_loop([this] {
    if (!is_primary()) {
      ReplicaRoleOptions replica;
      replica.host_name = options_.hostname;
      replica.welcomed = [this] { observe(); };
      replica_role_ = std::make_unique<ReplicaRole>(store_, *node_file_, ReplicaRole::Threads{*loop_, workers_},
                                                    env_.clock, env_.random, env_.log, replica);
      replica_role_->attach_all();
    }
    observer_timer_ = loop_->timer([this] { observe(); });
    observer_timer_->start(0, kObserveMs);
    lease_ = static_lease(StaticLeaseOptions{options_.candidate, "http://" + options_.primary.text(), epoch_},
                          [this](std::function<void()> job) { loop_->post(std::move(job)); });
    lease_->start(*this);
  });
  serving_ = true;
  tell_role();
  return {};
}

NodeRole Node::role() const {
  if (!serving_) return NodeRole::kStarting;
  return is_primary() ? NodeRole::kPrimary : NodeRole::kReplica;
}

void Node::tell_role() {
  if (FrontEnd* front_end = front_end_) front_end->role_changed();
}

// Notes what other threads may ask for: .primary and .lag.
void Node::observe() {
  std::optional<int64_t> lag = is_primary() ? std::optional<int64_t>(0) : replica_role_->lag_ms();
  std::optional<wire::Welcome> primary = is_primary() ? std::nullopt : replica_role_->primary();
  const std::string host_name = primary ? primary->host_name : "";
  bool other_primary;
  {
    MutexLock lock(mutex_);
    lag_ms_ = lag;
    other_primary = primary_host_name_ != host_name;
    primary_host_name_ = host_name;
  }
  if (other_primary) tell_role();
}

void Node::lease_acquired(Epoch epoch, std::optional<int64_t>) {
  env_.log.info("primary").kv("epoch", epoch).kv("addr", address_);
  primary_role_->begin(epoch);
}

void Node::lease_lost() { primary_role_->end(); }

void Node::leader_is(const LeaderInfo& leader) {
  env_.log.info("replica").kv("primary", leader.url);
  replica_role_->follow(leader.url);
}

bool Node::wait_readable(std::chrono::milliseconds deadline) {
  auto until = std::chrono::steady_clock::now() + deadline;
  for (;;) {
    uint64_t seen;
    {
      MutexLock lock(mutex_);
      seen = changes_;
    }
    bool all = true;
    for (const std::shared_ptr<Database>& database : store_.all()) {
      DatabaseState state = database->info().state;
      bool readable = is_primary() || !database->exists() || database->attached();
      if (state != DatabaseState::kStopped && (!readable || state == DatabaseState::kFenced)) all = false;
    }
    if (all) return true;
    MutexLock lock(mutex_);
    while (changes_ == seen) {
      if (!readable_.wait_until(mutex_, until)) return false;
    }
  }
}

void Node::retry_fenced() {
  if (stopping_) return;
  for (const std::shared_ptr<Database>& database : store_.all()) {
    if (database->info().state != DatabaseState::kFenced) continue;
    workers_.post([this, database] {
      Status started = start_database(*database);
      if (started.ok() && !is_primary()) started = database->attach();
      if (started.ok()) env_.log.info("database is free again").kv("database", database->name());
    });
  }
}

// Of those that no application touches after such an end: without a sync, and under locking_mode=EXCLUSIVE.
void Node::capture_unseen_ends() {
  if (stopping_) return;
  for (const std::shared_ptr<Database>& database : store_.all()) {
    if (!database->journal_unseen()) continue;
    workers_.post([this, database] {
      Status captured = database->capture_unseen_end();
      if (!captured.ok()) env_.log.warning("capture failed").kv("database", database->name()).error(captured.error());
    });
  }
}

void Node::retention() {
  if (loop_->now_ms() < next_retention_ms_ || stopping_) return;
  next_retention_ms_ = loop_->now_ms() + options_.retention_monitor_interval_ms;
  workers_.post([this] {
    reserve_.fill();
    int64_t older_than_ms = env_.clock.wall_ms() - options_.retention_ms;
    for (const std::shared_ptr<Database>& database : store_.all()) {
      DatabaseState state = database->info().state;
      if (state != DatabaseState::kReady) continue;
      Status trimmed = database->trim_log(older_than_ms, options_.retention_bytes);
      if (!trimmed.ok()) env_.log.warning("retention failed").kv("database", database->name()).error(trimmed.error());
    }
  });
}

Result<std::shared_ptr<Database>> Node::create_database(const std::string& name) {
  std::shared_ptr<Database> database = TRY(store_.find_or_create(name));
  TRY(start_database(*database));
  return database;
}

Status Node::delete_database(Database& database) {
  const bool stopped = database.info().state == DatabaseState::kStopped;
  return reserve_.lend([&] { return stopped ? database.drop_stopped() : database.drop(); });
}

void Node::stop() {
  if (stopping_.exchange(true)) return;
  if (loop_thread_.joinable()) {
    run_on_loop([this] {
      housekeeping_.reset();
      observer_timer_.reset();
      if (replica_role_) replica_role_->stop();
    });
  }
  if (poller_) poller_->stop();
  workers_.stop();
  late_jobs_.stop();
  for (const std::shared_ptr<Database>& database : store_.all()) {
    Status stopped = database->stop();
    if (!stopped.ok()) env_.log.warning("unclean stop").kv("database", database->name()).error(stopped.error());
  }
  if (loop_thread_.joinable()) {
    run_on_loop([this] {
      // What the last drain captured has been posted before this.
      server_->goodbye(wire::GoodbyeReason::kStopping, "the node stops", "");
    });
    loop_->stop();
    loop_thread_.join();
  }
  lease_.reset();
  replica_role_.reset();
  server_.reset();
  exports_.clear();
  status_clients_.clear();
  status_listener_.reset();
  loop_.reset();
}

// ---- DatabaseObserver, LockDoors ----

void Node::committed(const std::string& name, CapturedBatch batch) {
  // To wake the loop costs a commit more than most of what else is done with it.
  if (!server_->has_peers()) return;
  std::shared_ptr<Database> database = store_.find(name);
  DatabaseId id = database ? database->id() : DatabaseId{};
  loop_->post(
      [this, name, id, commits = PrimaryRole::batch_of(std::move(batch))] { server_->committed(name, id, commits); });
}

void Node::changed(const std::string& name) {
  {
    MutexLock lock(mutex_);
    ++changes_;
    readable_.notify_all();
  }
  if (FrontEnd* front_end = front_end_) front_end->database_changed(name);
}

void Node::moved(const std::string& name) {
  if (FrontEnd* front_end = front_end_) front_end->position_moved(name);
}

Status Node::file_resized(const std::string& file_name) {
  FrontEnd* front_end = front_end_;
  return front_end ? front_end->file_resized(file_name) : Status();
}

void Node::file_created(const std::string& file_name) {
  if (FrontEnd* front_end = front_end_) front_end->file_created(file_name);
}

void Node::file_removed(const std::string& file_name) {
  if (FrontEnd* front_end = front_end_) front_end->file_removed(file_name);
}

Result<std::unique_ptr<LockDoor>> Node::open(const std::string& name) {
  FrontEnd* front_end = front_end_;
  if (!front_end) return Error(ErrorCode::kBusy, "no front end yet");
  return front_end->lock_door(name);
}

// ---- status ----

std::string Node::primary_host_name() {
  MutexLock lock(mutex_);
  return primary_host_name_;
}

std::optional<int64_t> Node::lag_ms() {
  MutexLock lock(mutex_);
  return lag_ms_;
}

NodeStatus Node::status() {
  NodeStatus status;
  run_on_loop([&] { status = status_on_loop(); });
  return status;
}

NodeStatus Node::status_on_loop() {
  NodeStatus status;
  status.version = litefs_version();
  status.role = role();
  status.hostname = options_.hostname;
  status.node_id = node_file_->node();
  status.cluster_id = node_file_->cluster();
  status.epoch = is_primary() ? epoch_ : node_file_->epoch();
  status.mount = options_.fuse_dir;
  status.addr = address_;
  if (replica_role_) {
    PrimaryStatus primary;
    primary.url = "http://" + options_.primary.text();
    primary.connected = replica_role_->connected();
    if (replica_role_->primary()) primary.hostname = replica_role_->primary()->host_name;
    status.primary = primary;
    status.lag_ms = replica_role_->lag_ms();
  } else if (is_primary()) {
    status.lag_ms = 0;
  }
  for (const std::shared_ptr<Database>& database : store_.all()) {
    DatabaseInfo info = database->info();
    if (info.size_pages == 0 && info.state != DatabaseState::kLoading && info.state != DatabaseState::kStopped)
      continue;
    DatabaseStatus out;
    out.name = info.name;
    out.id = info.id;
    out.page_size = info.page_size;
    out.size_bytes = static_cast<uint64_t>(info.size_pages) * info.page_size;
    out.position = info.position;
    out.state = info.state;
    out.detail = info.detail;
    out.log_bytes = info.log_bytes;
    if (is_primary()) {
      out.lag_ms = 0;
    } else if (replica_role_) {
      if (std::optional<ReplicaLag> lag = replica_role_->lag(info.name)) out.lag_ms = lag->lag_ms;
    }
    if (info.progress_total_bytes != 0) {
      LoadProgress progress;
      progress.bytes = info.progress_bytes;
      progress.total_bytes = info.progress_total_bytes;
      int64_t ms = (env_.clock.monotonic_ns() - info.progress_started_ns) / 1000000;
      if (ms > 0) progress.bytes_per_s = info.progress_bytes * 1000 / static_cast<uint64_t>(ms);
      if (progress.bytes_per_s > 0) {
        progress.eta_s = static_cast<int64_t>((progress.total_bytes - progress.bytes) / progress.bytes_per_s);
      }
      out.progress = progress;
    }
    status.databases.push_back(std::move(out));
  }
  for (const ReplicaStatus& replica : server_->status()) {
    PeerStatus peer;
    peer.node_id = replica.replica.node;
    peer.hostname = replica.replica.host_name;
    peer.address = replica.address;
    peer.connected_since_ms = replica.connected_wall_ms;
    for (const ReplicaStatus::Database& database : replica.databases) {
      uint64_t latest = database.latest.txid.value, received = database.received.value;
      peer.databases.push_back({database.name, database.received, latest > received ? latest - received : 0});
    }
    status.peers.push_back(std::move(peer));
  }
  return status;
}

}  // namespace litefs
