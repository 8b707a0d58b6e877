#include "repl/peer_server.h"

#include <algorithm>
#include <string_view>

namespace litefs {
namespace {

constexpr std::string_view kHttpAnswer =
    "HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

// Whether `data` begins like a request line: a method of capital letters, then a space (which may
// be still to come).
bool looks_like_http(ByteView data) {
  size_t letters = 0;
  while (letters < data.size() && data[letters] >= 'A' && data[letters] <= 'Z') ++letters;
  return letters == data.size() || (letters >= 3 && data[letters] == ' ');
}

}  // namespace

PeerServer::PeerServer(EventLoop& loop, PrimaryHost& host, Clock& clock, const Log& log,
                       const PrimarySessionOptions& options)
    : loop_(loop),
      host_(host),
      clock_(clock),
      log_(log),
      options_(options),
      ticker_(loop.timer([this] { tick(); })),
      reaper_(loop.timer([this] { reap(); })) {}

Result<std::unique_ptr<PeerServer>> PeerServer::listen(EventLoop& loop, PrimaryHost& host, Clock& clock, const Log& log,
                                                       const PrimarySessionOptions& options,
                                                       const std::string& address) {
  std::unique_ptr<PeerServer> server(new PeerServer(loop, host, clock, log, options));
  PeerServer* s = server.get();
  s->listener_ = TRY(loop.listen(address, [s](std::unique_ptr<Stream> stream) { s->accepted(std::move(stream)); }));
  s->ticker_->start(options.times.tick_ms, options.times.tick_ms);
  return server;
}

void PeerServer::accepted(std::unique_ptr<Stream> stream) {
  if (unknown_.size() >= kUnknownPeersMax) {
    log_.warning("connection closed: too many that have not said what they are").kv("address", stream->peer());
    return;
  }
  auto peer = unknown_.emplace(unknown_.end());
  peer->stream = std::move(stream);
  peer->since_ms = loop_.now_ms();
  peer->stream->start(StreamEvents{.on_data = [this, peer](ByteView data) { first_bytes(peer, data); },
                                   .on_closed = [this, peer](const Status&) { unknown_.erase(peer); },
                                   .on_drained = nullptr,
                                   .on_turn_end = nullptr});
}

void PeerServer::first_bytes(UnknownPeers::iterator peer, ByteView data) {
  peer->first.insert(peer->first.end(), data.begin(), data.end());
  constexpr size_t kBytes = sizeof wire::kPreface;
  size_t n = std::min(peer->first.size(), kBytes);
  if (std::equal(wire::kPreface, wire::kPreface + n, peer->first.begin())) {
    if (n == kBytes) begin_session(peer);
    return;
  }
  ByteView first(peer->first);
  if (looks_like_http(first)) {
    if (first.size() < kBytes) return;
    peer->stream->write(as_bytes(kHttpAnswer));
    peer->stream->finish();
  } else {
    log_.warning("connection closed: not our protocol").kv("address", peer->stream->peer());
  }
  unknown_.erase(peer);
}

void PeerServer::begin_session(UnknownPeers::iterator peer) {
  std::unique_ptr<Stream> stream = std::move(peer->stream);
  Bytes first = std::move(peer->first);
  unknown_.erase(peer);
  if (sessions_.size() >= kSessionsMax) {
    log_.warning("connection closed: too many replicas").kv("address", stream->peer());
    return;
  }
  // Before it asks the host for anything: who has committed and found it false did so before.
  has_peers_ = true;
  PrimarySession::Owner& owner = *this;  // a private base: make_unique could not convert
  PrimarySession& session = *sessions_.emplace_back(
      std::make_unique<PrimarySession>(host_, owner, clock_, log_, options_, std::move(stream)));
  session.start(ByteView(first).subspan(sizeof wire::kPreface), loop_.now_ms());
}

// A node that connects again has lost its first connection, even if we have not noticed.
void PeerServer::joined(PrimarySession& session) {
  for (const auto& other : sessions_) {
    if (other.get() != &session && other->is_streaming() && other->replica() == session.replica()) {
      other->goodbye(wire::GoodbyeReason::kReplaced, "this node has connected again", "");
    }
  }
}

void PeerServer::ended(PrimarySession&) { reaper_->start(0); }

void PeerServer::reap() {
  std::erase_if(sessions_, [](const auto& session) { return session->is_ended(); });
  if (sessions_.empty()) has_peers_ = false;
}

void PeerServer::tick() {
  int64_t now_ms = loop_.now_ms();
  for (const auto& session : sessions_) session->tick(now_ms);
  std::erase_if(unknown_,
                [&](const UnknownPeer& peer) { return now_ms - peer.since_ms >= options_.times.hello_deadline_ms; });
}

void PeerServer::committed(const std::string& name, DatabaseId id, const std::shared_ptr<const CommitBatch>& batch) {
  for (const auto& session : sessions_) session->committed(name, id, batch);
}

void PeerServer::goodbye(wire::GoodbyeReason reason, const std::string& text, const std::string& new_primary_url) {
  for (const auto& session : sessions_) session->goodbye(reason, text, new_primary_url);
}

size_t PeerServer::replicas() const {
  return static_cast<size_t>(
      std::count_if(sessions_.begin(), sessions_.end(), [](const auto& s) { return s->is_streaming(); }));
}

std::vector<ReplicaStatus> PeerServer::status() const {
  std::vector<ReplicaStatus> out;
  for (const auto& session : sessions_) {
    if (session->is_streaming()) out.push_back(session->status());
  }
  return out;
}

}  // namespace litefs
