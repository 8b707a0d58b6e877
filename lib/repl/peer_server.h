// Listens for peers, finds out what a connection speaks by its first bytes, and runs a
// PrimarySession for each replica. What speaks HTTP is answered 501; anything else is closed with a
// log line. Thread rule: the loop's thread, but for has_peers(). May be destroyed at any time but inside a callback of
// a session or host.
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "env/loop.h"
#include "repl/primary_session.h"

namespace litefs {

inline constexpr size_t kSessionsMax = 256;
inline constexpr size_t kUnknownPeersMax = 64;  // connections whose first bytes have not come yet

class PeerServer final : private PrimarySession::Owner {
 public:
  // kBusy when the port is taken (env/loop.h).
  static Result<std::unique_ptr<PeerServer>> listen(EventLoop& loop, PrimaryHost& host, Clock& clock, const Log& log,
                                                    const PrimarySessionOptions& options, const std::string& address);
  ~PeerServer() override = default;
  PeerServer(const PeerServer&) = delete;
  PeerServer& operator=(const PeerServer&) = delete;

  uint16_t port() const { return listener_->port(); }
  const std::string& address() const { return listener_->address(); }

  // Whether anybody is to be told of commits: false only where a peer that comes later asks the host for its databases
  // after this call. Any thread.
  bool has_peers() const { return has_peers_; }
  // See PrimarySession::committed.
  void committed(const std::string& name, DatabaseId id, const std::shared_ptr<const CommitBatch>& batch);
  // To every replica: this node stops, or is not the primary any more. New ones are taken or
  // refused as the host says.
  void goodbye(wire::GoodbyeReason reason, const std::string& text, const std::string& new_primary_url);
  size_t replicas() const;
  std::vector<ReplicaStatus> status() const;

 private:
  struct UnknownPeer {
    std::unique_ptr<Stream> stream;
    Bytes first;
    int64_t since_ms = 0;
  };
  using UnknownPeers = std::list<UnknownPeer>;

  PeerServer(EventLoop& loop, PrimaryHost& host, Clock& clock, const Log& log, const PrimarySessionOptions& options);
  void joined(PrimarySession& session) override;
  void ended(PrimarySession& session) override;
  void reap();
  void accepted(std::unique_ptr<Stream> stream);
  void first_bytes(UnknownPeers::iterator peer, ByteView data);
  void begin_session(UnknownPeers::iterator peer);
  void tick();

  EventLoop& loop_;
  PrimaryHost& host_;
  Clock& clock_;
  Log log_;
  PrimarySessionOptions options_;
  UnknownPeers unknown_;
  std::list<std::unique_ptr<PrimarySession>> sessions_;  // ended ones too, until reaped
  std::atomic<bool> has_peers_{false};                   // true before a session is made, false when the last is reaped
  std::unique_ptr<Timer> ticker_;
  std::unique_ptr<Timer> reaper_;
  std::unique_ptr<Listener> listener_;
};

}  // namespace litefs
