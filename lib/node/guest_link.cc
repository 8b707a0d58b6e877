#include "node/guest_link.h"

#include <algorithm>

namespace litefs {
namespace {

// Connections that are kept for later calls; a burst of threads may have more for a while.
constexpr size_t kIdleMax = 4;

// How long a host is waited for, where it may be: at all; once it has been silent; by who is about to leave.
constexpr std::chrono::milliseconds kAnswerMax{30'000};
constexpr std::chrono::milliseconds kSilentAnswerMax{1'000};
constexpr std::chrono::milliseconds kPartingAnswerMax{5'000};
// Most answers come sooner; a transaction's end waits for the disk.
constexpr std::chrono::microseconds kAwake{300};

// The host does something to a file, or takes what is in one at that moment for what it is to be.
bool changes_files(GuestOperation operation) {
  switch (operation) {
    case GuestOperation::kJournalWrite:
    case GuestOperation::kJournalTruncate:
    case GuestOperation::kDatabaseResize:
    case GuestOperation::kDatabaseSync:
    case GuestOperation::kWalResize:
    case GuestOperation::kWalSync:
    case GuestOperation::kUnlink: return true;
    default: return false;
  }
}

bool is_parting(GuestOperation operation) {
  return operation == GuestOperation::kIndexUnmapped || operation == GuestOperation::kBeforeIndexUnlink;
}

Error ended() { return Error(ErrorCode::kCancelled, "the process that runs the node has ended"); }

}  // namespace

GuestLink::GuestLink(const std::string& data_dir) : path_(data_dir + "/" + kGuestSocketName) {}

GuestLink::~GuestLink() = default;

Result<std::shared_ptr<GuestLink>> GuestLink::connect(const std::string& data_dir) {
  auto link = std::shared_ptr<GuestLink>(new GuestLink(data_dir));
  link->events_ = TRY(link->open_channel(GuestConnection::kEvents));
  TRY(link->take_state());
  return link;
}

Result<std::unique_ptr<LocalChannel>> GuestLink::open_channel(GuestConnection kind) {
  const std::chrono::milliseconds wait_max = answer_max();
  std::unique_ptr<LocalChannel> channel = TRY(LocalChannel::connect(path_, wait_max));
  TRY(channel->send(encode_hello(kind)));
  const Result<Bytes> greeting = channel->receive(kGuestReplyBytesMax, std::chrono::steady_clock::now() + wait_max);
  if (!greeting.ok() && greeting.error().code() == ErrorCode::kTimedOut) return silent(*channel);
  const Bytes reply = TRY(decode_reply(TRY(greeting)));
  if (kind == GuestConnection::kEvents) {
    ByteReader in(reply, "a host's greeting");
    address_ = TRY(in.string(reply.size()));
  }
  return channel;
}

Result<std::unique_ptr<LocalChannel>> GuestLink::take_channel() {
  std::unique_ptr<LocalChannel> channel;
  {
    MutexLock lock(mutex_);
    if (shut_) return ended();
    if (!idle_.empty()) {
      channel = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  if (!channel) channel = TRY(open_channel(GuestConnection::kCalls));
  MutexLock lock(mutex_);
  if (shut_) return ended();
  used_.push_back(channel.get());
  return channel;
}

void GuestLink::give_back(std::unique_ptr<LocalChannel> channel) {
  MutexLock lock(mutex_);
  std::erase(used_, channel.get());
  if (idle_.size() < kIdleMax) idle_.push_back(std::move(channel));
}

std::chrono::milliseconds GuestLink::answer_max() const { return silent_ ? kSilentAnswerMax : kAnswerMax; }

LocalChannel::Deadline GuestLink::deadline(const GuestRequest& request) const {
  if (changes_files(request.operation)) return std::nullopt;
  std::chrono::milliseconds wait_max = answer_max();
  if (is_parting(request.operation)) wait_max = std::min(wait_max, kPartingAnswerMax);
  if (request.operation == GuestOperation::kWaitPosition) wait_max += std::chrono::milliseconds(request.number);
  return std::chrono::steady_clock::now() + wait_max;
}

Error GuestLink::silent(const LocalChannel& channel) {
  silent_ = true;
  return Error(ErrorCode::kTimedOut, "process " + std::to_string(channel.peer_process()) +
                                         ", which runs the node, does not answer: it is stopped, or starting");
}

Result<Bytes> GuestLink::exchange(LocalChannel& channel, const GuestRequest& request) {
  TRY(channel.send(encode(request)));
  return channel.receive(kGuestReplyBytesMax, deadline(request), kAwake);
}

Result<Bytes> GuestLink::call(const GuestRequest& request) {
  Result<std::unique_ptr<LocalChannel>> channel = take_channel();
  if (!channel.ok()) return channel.error().code() == ErrorCode::kTimedOut ? channel.error() : ended();
  const Result<Bytes> reply = exchange(*channel.value(), request);
  if (!reply.ok()) {
    MutexLock lock(mutex_);
    std::erase(used_, channel.value().get());
    return reply.error().code() == ErrorCode::kTimedOut ? silent(*channel.value()) : ended();
  }
  silent_ = false;
  give_back(std::move(channel).value());
  return decode_reply(reply.value());
}

Status GuestLink::take_state() {
  GuestState state = TRY(decode_guest_state(TRY(call({.operation = GuestOperation::kState}))));
  MutexLock lock(mutex_);
  role_ = state.role;
  any_stopped_ = !state.stopped.empty();
  state_ = std::move(state);
  return {};
}

std::string GuestLink::primary_host_name() {
  MutexLock lock(mutex_);
  return state_.primary_host_name;
}

Status GuestLink::check_running(const std::string& database) {
  if (!any_stopped_) return {};
  MutexLock lock(mutex_);
  for (const auto& [name, why] : state_.stopped) {
    if (name == database) return Error(ErrorCode::kIo, "it is stopped: " + why);
  }
  return {};
}

Result<uint8_t> GuestLink::wait_event() {
  Result<Bytes> event = events_->receive(1);
  if (!event.ok() || event.value().size() != 1) return ended();
  if (event.value()[0] & static_cast<uint8_t>(GuestEvent::kState)) TRY(take_state());
  return event.value()[0];
}

void GuestLink::shut() {
  events_->shut();
  MutexLock lock(mutex_);
  shut_ = true;
  for (LocalChannel* channel : used_) channel->shut();
}

}  // namespace litefs
