// The replica's side of one connection: introduces itself, hands what the primary sends to the
// host, and acknowledges what the host says it has. A state machine without waiting and without
// files.
//
// It checks the protocol (which index is in which state, that pieces add up to their record); what
// the records say, and whether they continue the host's database, is the host's to check. Thread
// rule: the loop's thread. The owner destroys a session after ended(), but not inside it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/log.h"
#include "env/clock.h"
#include "env/stream.h"
#include "repl/doors.h"
#include "repl/session_times.h"

namespace litefs {

// How far a replica is behind, measured by the primary's clock alone.
struct ReplicaLag {
  Position primary;  // at the last heartbeat
  TxId received;     // as the host said last
  uint64_t transactions = 0;
  // Since the first heartbeat that named something we do not have; 0 when there is none. True to
  // one heartbeat.
  int64_t lag_ms = 0;
};

class ReplicaSession {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void welcomed() = 0;
    virtual void ended(const Status& why) = 0;
  };

  ReplicaSession(ReplicaHost& host, Owner& owner, Clock& clock, const Log& log, const SessionTimes& times,
                 std::unique_ptr<Stream> stream);
  ReplicaSession(const ReplicaSession&) = delete;
  ReplicaSession& operator=(const ReplicaSession&) = delete;

  void start(int64_t now_ms);
  void tick(int64_t now_ms);

  // The host's queue is full, or has room again. The host may still be handed the piece it is being
  // handed.
  void pause();
  void resume();
  // What the host has of a database: acknowledged at the end of the turn. Goes up only. Only what
  // came under the present start may be told; a host that learns it later, from a worker, names the
  // start by its index, and what belongs to an earlier one is ignored.
  void applied(const std::string& name, TxId received, TxId durable);
  void applied(uint32_t index, TxId received, TxId durable);
  // What sums_wanted asked for, under the start that this index stands for; ignored when that is over.
  void answer_sums(uint32_t index, std::vector<Checksum> sums);
  // The host met an error after the call that brought the data: ends the session, saying why.
  void failed(const Error& error);
  // Says why and ends the session.
  void goodbye(wire::GoodbyeReason reason, const std::string& text);

  bool is_welcomed() const { return phase_ == Phase::kStreaming; }
  bool is_ended() const { return phase_ == Phase::kEnded; }
  const wire::Welcome& primary() const { return primary_; }
  const std::string& address() const { return stream_->peer(); }
  // Milliseconds since anything was heard from the primary, as of the last tick.
  int64_t silence_ms() const { return watch_.silence_ms(); }
  // Nothing for a database that the primary has not started.
  std::optional<ReplicaLag> lag(const std::string& name) const;

 private:
  enum class Phase { kWaiting, kStreaming, kEnded };
  enum class Stage { kLog, kBeforeSnapshot, kSnapshot };

  struct Entry {
    uint32_t index = 0;
    std::string name;
    Stage stage = Stage::kLog;
    bool compares = false;                   // a snapshot in which only the difference comes
    std::optional<SumsQuestion> question{};  // not answered yet
    uint64_t record_missing = 0;             // bytes of a record begun
    TxId received;
    TxId durable;
    bool ack_due = false;
    // Lag, by the primary's clock: the newest heartbeat that named this database, and the oldest
    // one whose position has not been reached.
    Position primary;
    int64_t primary_wall_ms = 0;
    TxId missing;
    std::optional<int64_t> missing_since_wall_ms;
  };

  void received(ByteView data);
  void process();
  Status dispatch(const wire::Frame& frame);
  Status on_welcome(const wire::Welcome& welcome);
  Status on_refuse(const wire::Refuse& refuse);
  Status on_database(const wire::Database& database);
  Status on_log(const wire::LogPiece& piece);
  Status on_snapshot_begin(const wire::SnapshotBegin& begin);
  Status on_sums_wanted(wire::SumsWanted wanted);
  Status on_snapshot_data(const wire::SnapshotData& data);
  Status on_snapshot_end(const wire::SnapshotEnd& end);
  Status on_database_end(const wire::DatabaseEnd& end);
  Status on_heartbeat(const wire::Heartbeat& beat);
  Status on_goodbye(const wire::Goodbye& goodbye);
  Result<Entry*> entry(uint32_t index, Stage stage, const char* frame);
  void forget(Entry& entry, wire::EndReason reason, const std::string& text);
  void send_acks();
  template <class F>
  void send(const F& frame);
  void end(const Status& why);

  ReplicaHost& host_;
  Owner& owner_;
  Clock& clock_;
  Log log_;
  SessionTimes times_;
  std::unique_ptr<Stream> stream_;
  Phase phase_ = Phase::kWaiting;
  bool paused_ = false;
  bool processing_ = false;
  wire::FrameReader reader_{wire::FrameReader::Preface::kExpected};
  wire::Welcome primary_;

  int64_t now_ms_ = 0;
  int64_t heartbeat_sent_ms_ = 0;
  PeerWatch watch_;
  int64_t beat_ms_ = 0;       // the last heartbeat, by our clock
  int64_t beat_wall_ms_ = 0;  // and by the primary's

  std::unordered_map<uint32_t, std::unique_ptr<Entry>> by_index_;
  std::unordered_map<std::string, Entry*> by_name_;
  uint32_t last_index_ = 0;
  std::vector<uint32_t> acks_due_;
  Bytes scratch_;
};

}  // namespace litefs
