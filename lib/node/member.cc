#include "node/member.h"

#include <filesystem>
#include <set>
#include <utility>

#include "env/owned_descriptor.h"
#include "env/process.h"
#include "env/quiet_signals.h"
#include "env/worker_pool.h"
#include "node/local_door.h"
#include "node/node_file.h"
#include "node/remote_door.h"

namespace litefs {
namespace {

// How long an open tries a data directory that is taken while nobody answers for it: its node may be starting, or of a
// kind that has no guests.
constexpr std::chrono::milliseconds kJoinMax{5'000};
constexpr std::chrono::milliseconds kRetryPause{20};
constexpr std::chrono::milliseconds kFailurePause{500};

using SteadyClock = std::chrono::steady_clock;

using DirectoryKey = std::pair<uint64_t, uint64_t>;  // device, inode

// The data directories that this process is a member of. Two members would not know of each other's descriptors
// (late_closing.h).
class Directories {
 public:
  const uint32_t generation = fork_generation();

  bool add(const DirectoryKey& key) {
    MutexLock lock(mutex_);
    return keys_.insert(key).second;
  }
  void remove(const DirectoryKey& key) {
    MutexLock lock(mutex_);
    keys_.erase(key);
  }

 private:
  Mutex mutex_;
  std::set<DirectoryKey> keys_ GUARDED_BY(mutex_);
};

// A forked process has one of its own: the mutex of before may have been held when it was made.
Directories& directories() {
  static constinit std::atomic<Directories*> current{nullptr};
  Directories* now = current.load();
  while (!now || now->generation != fork_generation()) {
    auto next = std::make_unique<Directories>();
    if (current.compare_exchange_strong(now, next.get())) return *next.release();
  }
  return *now;
}

Result<std::string> make_canonical(FileSystem& files, const std::string& directory) {
  TRY(files.make_directories(directory));
  std::error_code error;
  std::string path = std::filesystem::canonical(directory, error).string();
  if (error) return Error(ErrorCode::kIo, directory + ": " + error.message());
  return path;
}

}  // namespace

Result<std::unique_ptr<Member>> Member::open(const Options& options, const Log& log, Listener& listener) {
  auto member = std::unique_ptr<Member>(new Member(options, log, listener));
  TRY(member->prepare());
  TRY(member->join());
  if (!member->is_host()) member->thread_ = std::thread([self = member.get()] { self->run(); });
  return member;
}

// The node and SQLite must call each file by the same path (late_closing.h).
Status Member::prepare() {
  options_.data_dir = TRY(make_canonical(files_, options_.data_dir));
  root_ = TRY(make_canonical(files_, options_.data_dir + "/db"));
  if (root_ != options_.data_dir + "/db") {
    return Error(ErrorCode::kInvalid, options_.data_dir + "/db is a symbolic link; make the data directory one");
  }
  const FileInfo info = TRY(files_.info(options_.data_dir));
  const DirectoryKey key{info.device, info.inode};
  if (!directories().add(key)) {
    return Error(ErrorCode::kBusy, "this process (pid " + std::to_string(process_id()) + ") has the node of " +
                                       options_.data_dir + " open already");
  }
  directory_ = key;
  return {};
}

// Host or guest, whichever is free.
Status Member::join() {
  const auto until = SteadyClock::now() + kJoinMax;
  for (;;) {
    Status hosted = become_host();
    if (hosted.ok() || hosted.error().code() != ErrorCode::kBusy) return hosted;
    Status joined = become_guest();
    if (joined.ok()) return joined;
    switch (joined.error().code()) {
      case ErrorCode::kUnsupported:
      case ErrorCode::kInvalid: return joined;
      case ErrorCode::kTimedOut:
        return Error(ErrorCode::kBusy, "the data directory " + options_.data_dir + ": " + joined.error().message());
      case ErrorCode::kNotFound:
        if (SteadyClock::now() >= until) return hosted;
        break;
      default: break;
    }
    std::this_thread::sleep_for(kRetryPause);
  }
}

void Member::leave() {
  Seat seat;
  {
    MutexLock lock(mutex_);
    closing_ = true;
    seat = seat_;
    changed_.notify_all();
  }
  if (seat.link) seat.link->shut();
  if (seat.node) seat.node->cancel_waits();
  if (thread_.joinable()) thread_.join();
  // The thread may have taken the node over in between.
  seat = this->seat();
  if (seat.node) seat.node->cancel_waits();
  // Guests of this process wait for the next host from here on.
  if (std::shared_ptr<GuestServer> server = this->server()) server->stop();
}

void Member::end() {
  leave();
  if (std::shared_ptr<InProcessNode> node = hosted()) node->node().stop();
}

Member::~Member() {
  leave();
  Seat last;
  {
    MutexLock lock(mutex_);
    last = std::exchange(seat_, Seat());
    server_.reset();
  }
  last = Seat();  // the node stops
  if (directory_) directories().remove(*directory_);
  if (attending_) static_cast<void>(attending_->try_lock(kAttendByte, 1, LockKind::kNone).ok());
}

// ---- host or guest ----

Status Member::become_host() {
  std::shared_ptr<GuestServer> server;
  InProcessNode::Place place{files_};
  place.taken = [&]() -> Result<InProcessNode::Others> {
    // A host that ends by itself takes its socket's name away, and a mount that of a host before.
    const InProcessNode::Others others{TRY(attend()), TRY(files_.exists(options_.data_dir + "/" + kGuestSocketName))};
    server = TRY(GuestServer::start(options_.data_dir, log_));
    MutexLock lock(mutex_);
    server_ = server;
    return others;
  };
  Result<std::unique_ptr<InProcessNode>> node = InProcessNode::open(options_, log_, *this, place);
  if (!node.ok()) {
    if (server) server->stop();
    MutexLock lock(mutex_);
    server_.reset();
    return node.error();
  }
  Seat seat;
  seat.node = std::move(node).value();
  server->serve(*seat.node);
  set_seat(std::move(seat));
  return {};
}

// Of a data directory that this process has the node of: whether others attend it.
Result<bool> Member::attend() {
  if (attending_) return true;
  std::unique_ptr<File> file = TRY(files_.open(options_.data_dir + "/lock", OpenMode::kCreate));
  const bool others = TRY(file->is_locked(kAttendByte, 1));
  TRY(file->try_lock(kAttendByte, 1, LockKind::kShared));
  attending_ = std::move(file);
  return others;
}

Status Member::become_guest() {
  Seat seat;
  seat.link = TRY(GuestLink::connect(options_.data_dir));
  const NodeRole role = seat.link->role();
  if (role != NodeRole::kStarting && (role == NodeRole::kPrimary) != options_.candidate) {
    return Error(ErrorCode::kInvalid, "the node of " + options_.data_dir + ", which another process runs, is " +
                                          (options_.candidate ? "a replica" : "the primary") +
                                          "; all processes need the same options");
  }
  // Not before: a host that starts must not take us for somebody who has databases open.
  TRY(attend());
  set_seat(std::move(seat));
  return {};
}

void Member::set_seat(Seat seat) {
  if (seat.link && follows_) static_cast<void>(seat.link->call({.operation = GuestOperation::kFollowPositions}).ok());
  MutexLock lock(mutex_);
  seat.number = ++seats_;
  seat_ = std::move(seat);
  seat_number_ = seat_.number;
  changed_.notify_all();
}

Member::Seat Member::seat() {
  MutexLock lock(mutex_);
  return seat_;
}

Result<Member::Seat> Member::wait_seat(SteadyClock::time_point until) {
  MutexLock lock(mutex_);
  while (!seat_ && !closing_) {
    if (!changed_.wait_until(mutex_, until)) break;
  }
  if (closing_) return Error(ErrorCode::kCancelled, "the node is closed");
  if (seat_) return seat_;
  return Error(ErrorCode::kTimedOut, "the process that ran the node has ended, and no other runs it yet");
}

void Member::leave_seat(uint64_t number) {
  MutexLock lock(mutex_);
  if (seat_.number != number || !seat_.link) return;
  seat_ = Seat();
  seat_number_ = 0;
}

// Follows the host's events, until it is this process.
void Member::run() {
  name_thread("member");
  for (;;) {
    Seat seat;
    {
      MutexLock lock(mutex_);
      if (closing_) return;
      seat = seat_;
    }
    if (seat.node) return;
    if (!seat) {
      take_over();
      continue;
    }
    Result<uint8_t> event = seat.link->wait_event();
    if (!event.ok()) {
      leave_seat(seat.number);
      continue;
    }
    if (event.value() & static_cast<uint8_t>(GuestEvent::kState)) listener_.role_changed();
    if (event.value() & static_cast<uint8_t>(GuestEvent::kPosition)) tell_positions();
  }
}

void Member::take_over() {
  const QuietSignals quiet;
  std::string told;
  for (;;) {
    Status hosted = become_host();
    if (hosted.ok()) {
      log_.info("this process runs the node from here on");
      break;
    }
    Status joined = hosted.error().code() == ErrorCode::kBusy ? become_guest() : hosted;
    if (joined.ok()) break;
    const ErrorCode code = joined.error().code();
    const bool retries =
        code == ErrorCode::kNotFound || code == ErrorCode::kUnavailable || code == ErrorCode::kTimedOut;
    if (!retries && told != joined.error().message()) {
      told = joined.error().message();
      log_.error("the process that ran the node has ended, and this one cannot run it").error(joined.error());
    }
    if (wait_closing(retries ? kRetryPause : kFailurePause)) return;
  }
  listener_.role_changed();
  tell_positions();
}

// Of a guest: the host does not say which.
void Member::tell_positions() {
  if (!follows_) return;
  Result<std::vector<std::pair<std::string, Position>>> positions = this->positions();
  if (!positions.ok()) return;
  for (const auto& [name, position] : positions.value()) {
    Position& told = told_[name];
    if (told == position) continue;
    told = position;
    listener_.position_moved(name);
  }
}

bool Member::wait_closing(std::chrono::milliseconds pause) {
  const auto until = SteadyClock::now() + pause;
  MutexLock lock(mutex_);
  while (!closing_) {
    if (!changed_.wait_until(mutex_, until)) break;
  }
  return closing_;
}

std::unique_ptr<DatabaseDoor> Member::make_door(const Seat& seat, const std::string& name,
                                                std::shared_ptr<const std::atomic<int>> index_users) {
  if (seat.node) return std::make_unique<LocalDoor>(*seat.node, name, LocalDoor::For::kThisProcess);
  return std::make_unique<RemoteDoor>(seat.link, files_, root_, name, std::move(index_users));
}

// ---- questions ----

// Asks who answers now, and again whoever comes after him.
template <class Ask>
auto Member::ask(const Ask& ask) -> decltype(ask(Seat())) {
  for (;;) {
    const Seat seat = TRY(wait_seat(SteadyClock::now() + kHostMax));
    auto answer = ask(seat);
    if (answer.ok() || answer.error().code() != ErrorCode::kCancelled) return answer;
    leave_seat(seat.number);
  }
}

bool Member::is_closing() {
  MutexLock lock(mutex_);
  return closing_;
}

bool Member::is_host() { return seat().node != nullptr; }

NodeRole Member::role() {
  const Seat seat = this->seat();
  if (seat.node) return seat.node->node().role();
  return seat.link ? seat.link->role() : NodeRole::kStarting;
}

std::string Member::primary_host_name() {
  const Seat seat = this->seat();
  if (seat.node) return seat.node->node().primary_host_name();
  return seat.link ? seat.link->primary_host_name() : "";
}

Result<std::string> Member::address() {
  return ask([](const Seat& seat) -> Result<std::string> {
    return seat.node ? seat.node->node().address() : seat.link->address();
  });
}

Result<NodeStatus> Member::status() {
  return ask([](const Seat& seat) -> Result<NodeStatus> {
    if (seat.node) return seat.node->node().status();
    return decode_node_status(TRY(seat.link->call({.operation = GuestOperation::kStatus})));
  });
}

Result<std::optional<int64_t>> Member::lag_ms() {
  const Seat now = seat();
  if (now.node) return now.node->node().lag_ms();
  return TRY(status()).lag_ms;
}

Result<Position> Member::position(const std::string& name, bool drains) {
  return ask([&](const Seat& seat) -> Result<Position> {
    if (seat.node) return seat.node->position(name, drains);
    const Bytes answer = TRY(seat.link->call({.operation = GuestOperation::kPosition, .name = name, .number = drains}));
    ByteReader in(answer, "a position");
    return get_position(in);
  });
}

Status Member::wait_position(const std::string& name, const Position& wanted, std::chrono::milliseconds timeout) {
  const auto until = SteadyClock::now() + timeout;
  return ask([&](const Seat& seat) -> Status {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - SteadyClock::now());
    const auto rest = std::max(left, std::chrono::milliseconds(0));
    if (seat.node) return seat.node->wait_position(name, wanted, rest);
    GuestRequest request{.operation = GuestOperation::kWaitPosition, .name = name};
    request.number = static_cast<uint64_t>(rest.count());
    request.position = wanted;
    TRY(seat.link->call(request));
    return {};
  });
}

Result<std::vector<std::pair<std::string, Position>>> Member::positions() {
  return ask([](const Seat& seat) -> Result<std::vector<std::pair<std::string, Position>>> {
    std::vector<std::pair<std::string, Position>> positions;
    if (seat.node) {
      for (const auto& database : seat.node->node().store().all()) {
        positions.emplace_back(database->name(), database->position());
      }
      return positions;
    }
    const Bytes answer = TRY(seat.link->call({.operation = GuestOperation::kPositions}));
    ByteReader in(answer, "positions");
    for (uint64_t left = TRY(in.varint()); left > 0; --left) {
      std::string name = TRY(in.string(answer.size()));
      positions.emplace_back(std::move(name), TRY(get_position(in)));
    }
    return positions;
  });
}

void Member::follow_positions() {
  Seat seat;
  {
    follows_ = true;
    seat = this->seat();
  }
  if (seat.link) static_cast<void>(seat.link->call({.operation = GuestOperation::kFollowPositions}).ok());
}

// ---- the node of this process ----

std::shared_ptr<GuestServer> Member::server() {
  MutexLock lock(mutex_);
  return server_;
}

void Member::role_changed() {
  if (std::shared_ptr<GuestServer> server = this->server()) server->state_changed();
  listener_.role_changed();
}

void Member::state_changed() {
  if (std::shared_ptr<GuestServer> server = this->server()) server->state_changed();
}

void Member::position_moved(const std::string& name) {
  if (std::shared_ptr<GuestServer> server = this->server()) server->position_moved();
  listener_.position_moved(name);
}

}  // namespace litefs
