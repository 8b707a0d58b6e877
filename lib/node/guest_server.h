// The host's side of guest_wire.h: answers the guests of this data directory.
//
// One thread for each connection, as what a guest asks may sync or wait. It keeps nothing of a guest: whether a database
// or its index is in use, SQLite's own locks tell. Thread rule: start, serve, stop and the destructor by the owner's;
// the rest by any thread, and never waiting.
#pragma once

#include <list>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "base/log.h"
#include "base/mutex.h"
#include "env/local_channel.h"
#include "node/guest_wire.h"
#include "node/in_process.h"

namespace litefs {

class GuestServer {
 public:
  // Listens; guests wait until serve().
  static Result<std::unique_ptr<GuestServer>> start(const std::string& data_dir, const Log& log);
  void serve(InProcessNode& node);
  // Ends all connections, when what they are asking for is done. Idempotent; the destructor does it, too.
  void stop();
  ~GuestServer() { stop(); }

  void state_changed();
  void position_moved();

 private:
  struct Connection {
    std::unique_ptr<LocalChannel> channel;
    std::thread thread;
    bool ended = false;
    bool events = false;     // it is told of events
    uint8_t pending = 0;     // GuestEvent bits that it has not been told of
  };

  GuestServer(std::unique_ptr<LocalListener> listener, const Log& log)
      : listener_(std::move(listener)), log_(log) {}
  void accept_connections();
  void run(Connection& connection);
  Status greet(Connection& connection);
  InProcessNode* wait_node();
  void answer_calls(Connection& connection, InProcessNode& node);
  void note(GuestEvent event);
  Result<Bytes> answer(InProcessNode& node, const GuestRequest& request);
  void tell_events();
  void reap();

  const std::unique_ptr<LocalListener> listener_;
  Log log_;
  Mutex mutex_;
  CondVar changed_ GUARDED_BY(mutex_);
  InProcessNode* node_ GUARDED_BY(mutex_) = nullptr;
  bool stopping_ GUARDED_BY(mutex_) = false;
  bool follow_positions_ GUARDED_BY(mutex_) = false;  // any guest does
  uint8_t news_ GUARDED_BY(mutex_) = 0;
  std::list<Connection> connections_ GUARDED_BY(mutex_);
  std::thread acceptor_;
  std::thread teller_;
};

}  // namespace litefs
