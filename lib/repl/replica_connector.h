// Keeps a replica connected: dials the primary, runs a session, dials again after it ended, with
// growing and jittered pauses. Who the primary is, its user decides (follow). Thread rule: the
// loop's thread. May be destroyed at any time but inside a callback of its session or host.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "env/loop.h"
#include "repl/replica_session.h"

namespace litefs {

inline constexpr int64_t kBackoffMinMs = 100;
inline constexpr int64_t kBackoffMaxMs = 5000;

struct ReplicaConnectorOptions {
  SessionTimes times;
  int64_t backoff_min_ms = kBackoffMinMs;
  int64_t backoff_max_ms = kBackoffMaxMs;
};

// "host:port" of an advertised url such as "http://host:port/"; an address is returned as it is.
Result<std::string> address_of_url(const std::string& url);

class ReplicaConnector final : private ReplicaSession::Owner {
 public:
  struct Status {
    std::string primary;     // what follow() was given
    bool connected = false;  // and welcomed
    uint64_t attempts = 0;   // dials, in all
    uint64_t failures = 0;   // in a row
    std::string last_error;  // why the last attempt or session ended
  };

  ReplicaConnector(EventLoop& loop, ReplicaHost& host, Clock& clock, Random& random, const Log& log,
                   const ReplicaConnectorOptions& options);
  ~ReplicaConnector() override = default;
  ReplicaConnector(const ReplicaConnector&) = delete;
  ReplicaConnector& operator=(const ReplicaConnector&) = delete;

  // Follows the primary at this address or url, from now on; "" follows nobody. A session with
  // another one is ended. The same one again: dials at once if it was pausing.
  void follow(const std::string& primary);
  // Null unless one is there (perhaps not welcomed yet).
  ReplicaSession* session() { return session_.get(); }
  Status status() const;

 private:
  void welcomed() override;
  void ended(const litefs::Status& why) override;
  void on_timer();
  void dial();
  void pause_then_dial(const std::string& why);

  EventLoop& loop_;
  ReplicaHost& host_;
  Clock& clock_;
  Random& random_;
  Log log_;
  ReplicaConnectorOptions options_;
  Status status_;
  int64_t welcomed_ms_ = 0;
  std::unique_ptr<Dial> dial_;
  std::unique_ptr<ReplicaSession> session_;
  std::vector<std::unique_ptr<ReplicaSession>> ended_;  // until nothing of them is on the call stack
  std::unique_ptr<Timer> timer_;                        // the next dial
  std::unique_ptr<Timer> ticker_;
};

}  // namespace litefs
