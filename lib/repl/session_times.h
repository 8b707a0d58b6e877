// The times that both sides of a connection keep, and the watch on the peer. Thread rule: plain
// values.
#pragma once

#include <algorithm>
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

// How long a peer has been silent, and how long the session has lasted, in ticks. A tick that comes
// late (a suspended machine, a process that was stopped) counts as two at most: bytes may be
// waiting that nobody had the time to read, and our own pause must not be taken for the peer's.
class PeerWatch {
 public:
  void start(int64_t now_ms) { last_ms_ = now_ms; }
  void tick(int64_t now_ms, uint64_t bytes_heard, const SessionTimes& times) {
    int64_t step_ms = std::min(now_ms - last_ms_, 2 * times.tick_ms);
    last_ms_ = now_ms;
    age_ms_ += step_ms;
    silence_ms_ = bytes_heard == bytes_heard_ ? silence_ms_ + step_ms : 0;
    bytes_heard_ = bytes_heard;
  }
  // The silence was not the peer's.
  void excuse() { silence_ms_ = 0; }

  int64_t age_ms() const { return age_ms_; }
  int64_t silence_ms() const { return silence_ms_; }

 private:
  int64_t last_ms_ = 0;
  int64_t age_ms_ = 0;
  int64_t silence_ms_ = 0;
  uint64_t bytes_heard_ = 0;
};

}  // namespace litefs
