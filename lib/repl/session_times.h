// The times that both sides of a connection keep. Thread rule: plain values.
#pragma once

#include <cstdint>

namespace litefs {

inline constexpr int64_t kHelloDeadlineMs = 5000;
inline constexpr int64_t kDeadPeerMs = 10000;
inline constexpr int64_t kHeartbeatMs = 1000;
inline constexpr int64_t kTickMs = 100;
inline constexpr int64_t kDatabaseRetryMs = 5000;

struct SessionTimes {
  // From the connection to the end of the introductions.
  int64_t hello_deadline_ms = kHelloDeadlineMs;
  // Without a byte from the peer.
  int64_t dead_peer_ms = kDeadPeerMs;
  int64_t heartbeat_ms = kHeartbeatMs;
  // After a failure of one database, until the primary tries it again (checked with each
  // heartbeat).
  int64_t database_retry_ms = kDatabaseRetryMs;
  // How often owners call tick().
  int64_t tick_ms = kTickMs;
};

}  // namespace litefs
