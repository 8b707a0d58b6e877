#include "node/guest_link.h"

#include <algorithm>

namespace litefs {
namespace {

// Connections that are kept for later calls; a burst of threads may have more for a while.
constexpr size_t kIdleMax = 4;

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
  std::unique_ptr<LocalChannel> channel = TRY(LocalChannel::connect(path_));
  TRY(channel->send(encode_hello(kind)));
  const Bytes reply = TRY(decode_reply(TRY(channel->receive(kGuestReplyBytesMax))));
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

Result<Bytes> GuestLink::exchange(LocalChannel& channel, const GuestRequest& request) {
  TRY(channel.send(encode(request)));
  return channel.receive(kGuestReplyBytesMax);
}

Result<Bytes> GuestLink::call(const GuestRequest& request) {
  Result<std::unique_ptr<LocalChannel>> channel = take_channel();
  if (!channel.ok()) return ended();
  const Result<Bytes> reply = exchange(*channel.value(), request);
  if (!reply.ok()) {
    MutexLock lock(mutex_);
    std::erase(used_, channel.value().get());
    return ended();
  }
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
