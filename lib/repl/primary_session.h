// The primary's side of one connection: introductions, then every database to the replica and its
// acknowledgements back. A state machine without waiting and without files.
//
//   hello ──► databases held ──► streaming ──► ended
//
// A commit is sent from memory, in the turn in which it is told, to a replica that keeps up; the
// databases of one that does not are read from their logs, a few at a time and in turn, as its
// connection drains. So a replica costs the primary at most queue_bytes_max and a few reads,
// however slow it is. Thread rule: the loop's thread. The owner destroys a session after ended(),
// but not inside it.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "env/clock.h"
#include "repl/database_sender.h"
#include "repl/session_times.h"

namespace litefs {

inline constexpr size_t kSendQueueBytesMax = 4u << 20;
inline constexpr size_t kTurnsMax = 4;  // steps on the disk at a time, for one replica

struct PrimarySessionOptions {
  SessionTimes times;
  size_t queue_bytes_max = kSendQueueBytesMax;
};

// What the primary knows of a replica, for people.
struct ReplicaStatus {
  struct Database {
    std::string name;
    const char* state = "";
    Position sent;
    Position latest;
    TxId received;
    TxId durable;
  };
  NodeIdentity replica;
  std::string address;
  int64_t connected_wall_ms = 0;
  uint64_t bytes_sent = 0;
  size_t queued_bytes = 0;
  std::vector<Database> databases;  // by name
};

class PrimarySession final : private SenderContext {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    // The replica was welcomed.
    virtual void joined(PrimarySession& session) = 0;
    virtual void ended(PrimarySession& session) = 0;
  };

  // `stream`: the peer's preface has been read from it already.
  PrimarySession(PrimaryHost& host, Owner& owner, Clock& clock, const Log& log, const PrimarySessionOptions& options,
                 std::unique_ptr<Stream> stream);
  ~PrimarySession() override = default;
  PrimarySession(const PrimarySession&) = delete;
  PrimarySession& operator=(const PrimarySession&) = delete;

  // `received` is what came behind the preface.
  void start(ByteView received, int64_t now_ms);
  void tick(int64_t now_ms);

  // Records were appended to the log of database `name` (told in order, and only once they can be
  // read from it). A name or id that is new begins a new database.
  void committed(const std::string& name, DatabaseId id, const std::shared_ptr<const CommitBatch>& batch);
  // Says why and ends the session.
  void goodbye(wire::GoodbyeReason reason, const std::string& text, const std::string& new_primary_url);

  bool is_streaming() const { return phase_ == Phase::kStreaming; }
  bool is_ended() const { return phase_ == Phase::kEnded; }
  NodeId replica() const { return replica_.node; }
  ReplicaStatus status() const;

 private:
  enum class Phase { kHello, kDatabasesHeld, kStreaming, kEnded };

  PrimaryHost& host() override { return host_; }
  Stream& stream() override { return *stream_; }
  const Log& log() const override { return log_; }
  int64_t now_ms() const override { return now_ms_; }
  int64_t retry_ms() const override { return options_.times.database_retry_ms; }
  bool has_room(size_t bytes) const override;
  uint32_t take_index(DatabaseSender& sender) override;
  void give_back_index(uint32_t index) override;
  void want_turn(DatabaseSender& sender) override;
  void turn_done() override;

  void received(ByteView data);
  Status dispatch(const wire::Frame& frame);
  Status on_hello(const wire::Hello& hello);
  Status on_databases_held(wire::DatabasesHeld page);
  Status on_ack(const wire::Ack& ack);
  Status on_sums(wire::Sums sums);
  Status on_goodbye(const wire::Goodbye& goodbye);
  void refuse(wire::RefuseCode code, const std::string& text, const std::string& primary_url);
  void begin_streaming();
  void add_sender(const PrimaryDatabase& database, const wire::DatabaseHeld* held);
  void remove_sender(const std::string& name);
  void run_turns();
  void heartbeat();
  template <class F>
  void send(const F& frame);
  void end(const Status& why);

  PrimaryHost& host_;
  Owner& owner_;
  Clock& clock_;
  Log log_;
  PrimarySessionOptions options_;
  std::unique_ptr<Stream> stream_;
  Phase phase_ = Phase::kHello;
  wire::FrameReader reader_{wire::FrameReader::Preface::kSeen};
  NodeIdentity replica_;
  int64_t connected_wall_ms_ = 0;

  int64_t now_ms_ = 0;
  int64_t heartbeat_ms_ = 0;
  PeerWatch watch_;

  std::map<std::string, wire::DatabaseHeld> held_;  // while it is being told
  std::unordered_map<std::string, std::unique_ptr<DatabaseSender>> senders_;
  std::unordered_map<uint32_t, DatabaseSender*> by_index_;
  uint32_t next_index_ = 1;
  std::deque<DatabaseSender*> waiting_for_turn_;
  size_t turns_ = 0;
  bool running_turns_ = false;
  Bytes scratch_;
};

}  // namespace litefs
