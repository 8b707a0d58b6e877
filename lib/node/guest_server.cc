#include "node/guest_server.h"

#include <chrono>

#include "env/worker_pool.h"
#include "node/guest_calls.h"

namespace litefs {
namespace {

// Guests that follow positions are told this often at most.
constexpr std::chrono::milliseconds kPositionsPause{1};
// A guest with no room for an event (it is stopped, or busy) is tried again after this.
constexpr std::chrono::milliseconds kFullPause{50};

}  // namespace

Result<std::unique_ptr<GuestServer>> GuestServer::start(const std::string& data_dir, const Log& log) {
  std::unique_ptr<LocalListener> listener = TRY(LocalListener::listen(data_dir + "/" + kGuestSocketName));
  auto server = std::unique_ptr<GuestServer>(new GuestServer(std::move(listener), log));
  server->acceptor_ = std::thread([self = server.get()] { self->accept_connections(); });
  server->teller_ = std::thread([self = server.get()] { self->tell_events(); });
  return server;
}

void GuestServer::serve(InProcessNode& node) {
  MutexLock lock(mutex_);
  node_ = &node;
  changed_.notify_all();
}

void GuestServer::stop() {
  {
    MutexLock lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
    changed_.notify_all();
    for (Connection& connection : connections_) connection.channel->shut();
  }
  listener_->shut();
  acceptor_.join();
  teller_.join();
  std::list<Connection> connections;
  {
    MutexLock lock(mutex_);
    connections.swap(connections_);
  }
  for (Connection& connection : connections) connection.thread.join();
}

void GuestServer::accept_connections() {
  name_thread("guests");
  for (;;) {
    Result<std::unique_ptr<LocalChannel>> channel = listener_->accept();
    if (!channel.ok() && channel.error().code() == ErrorCode::kCancelled) return;
    if (!channel.ok()) {
      // Descriptors have run out; whoever wants to connect waits.
      log_.warning("a guest process cannot be answered").error(channel.error());
      std::this_thread::sleep_for(kFullPause);
      continue;
    }
    reap();
    MutexLock lock(mutex_);
    if (stopping_) return;
    Connection& connection = connections_.emplace_back();
    connection.channel = std::move(channel).value();
    try {
      connection.thread = std::thread([this, &connection] { run(connection); });
    } catch (const std::system_error& error) {
      log_.warning("a guest process cannot be answered").kv("error", error.what());
      connections_.pop_back();
    }
  }
}

void GuestServer::reap() {
  std::list<Connection> ended;
  {
    MutexLock lock(mutex_);
    for (auto it = connections_.begin(); it != connections_.end();) {
      const auto next = std::next(it);
      if (it->ended) ended.splice(ended.end(), connections_, it);
      it = next;
    }
  }
  for (Connection& connection : ended) connection.thread.join();
}

void GuestServer::run(Connection& connection) {
  name_thread("guest");
  Status greeted = greet(connection);
  if (!greeted.ok()) log_.debug("a guest process was not served").error(greeted.error());
  connection.channel->shut();
  MutexLock lock(mutex_);
  connection.ended = true;
}

InProcessNode* GuestServer::wait_node() {
  MutexLock lock(mutex_);
  while (!node_ && !stopping_) changed_.wait(mutex_);
  return stopping_ ? nullptr : node_;
}

Status GuestServer::greet(Connection& connection) {
  const Bytes hello = TRY(connection.channel->receive(kGuestRequestBytesMax));
  Result<GuestConnection> kind = decode_hello(hello);
  if (!kind.ok()) return connection.channel->send(encode_reply(kind.error()));
  InProcessNode* node = wait_node();
  if (!node) return {};
  Bytes address;
  ByteWriter(address).string(node->node().address());
  TRY(connection.channel->send(encode_reply(address)));
  if (kind.value() == GuestConnection::kCalls) {
    answer_calls(connection, *node);
    return {};
  }
  {
    MutexLock lock(mutex_);
    connection.events = true;
    // What it has asked before it is told of changes may have changed.
    connection.pending = static_cast<uint8_t>(GuestEvent::kState);
    news_ |= connection.pending;
    changed_.notify_all();
  }
  static_cast<void>(connection.channel->receive(0).ok());  // until it ends
  return {};
}

void GuestServer::answer_calls(Connection& connection, InProcessNode& node) {
  for (;;) {
    Result<Bytes> message = connection.channel->receive(kGuestRequestBytesMax);
    if (!message.ok()) return;
    Result<GuestRequest> request = decode_guest_request(message.value());
    const Result<Bytes> answered = request.ok() ? answer(node, request.value()) : Result<Bytes>(request.error());
    if (!connection.channel->send(encode_reply(answered)).ok()) return;
  }
}

Result<Bytes> GuestServer::answer(InProcessNode& node, const GuestRequest& request) {
  if (request.operation == GuestOperation::kFollowPositions) {
    MutexLock lock(mutex_);
    follow_positions_ = true;
    return Bytes();
  }
  return answer_guest(node, request);
}

// ---- events ----

void GuestServer::note(GuestEvent event) {
  MutexLock lock(mutex_);
  if (event == GuestEvent::kPosition && !follow_positions_) return;
  if (news_ & static_cast<uint8_t>(event)) return;
  news_ |= static_cast<uint8_t>(event);
  changed_.notify_all();
}

void GuestServer::state_changed() { note(GuestEvent::kState); }
void GuestServer::position_moved() { note(GuestEvent::kPosition); }

void GuestServer::tell_events() {
  name_thread("guest events");
  bool full = false;
  for (;;) {
    uint8_t news;
    {
      MutexLock lock(mutex_);
      while (news_ == 0 && !stopping_) {
        if (!full) {
          changed_.wait(mutex_);
        } else if (!changed_.wait_until(mutex_, std::chrono::steady_clock::now() + kFullPause)) {
          break;
        }
      }
      if (stopping_) return;
      news = std::exchange(news_, uint8_t{0});
      full = false;
      for (Connection& connection : connections_) {
        if (!connection.events || connection.ended) continue;
        connection.pending |= news;
        if (connection.pending == 0) continue;
        Result<bool> sent = connection.channel->try_send(ByteView(&connection.pending, 1));
        if (sent.ok() && !sent.value()) full = true;
        if (!sent.ok() || sent.value()) connection.pending = 0;
      }
    }
    if (news & static_cast<uint8_t>(GuestEvent::kPosition)) std::this_thread::sleep_for(kPositionsPause);
  }
}

}  // namespace litefs
