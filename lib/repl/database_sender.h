// One database's stream from the primary to one replica: from memory while the replica keeps up,
// else from the log on disk, or as a snapshot first. Whatever the source, a record is sent only if
// it follows exactly on the one sent before (TXID and checksum), so that there is neither a gap nor
// a duplicate.
//
//   opening ──► reading ──► live ──► opening …      (fell behind)
//      └─► starting snapshot ──► snapshot ──► opening
//                                 │    ▲
//                                comparing (waits for the replica's sums)
//   any ──► waiting (an error; tried again later) · over (dropped, or not there)
//
// Everything that needs the disk is one asynchronous step, taken when the session gives the sender
// a turn. Thread rule: the loop's thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/log.h"
#include "env/stream.h"
#include "repl/doors.h"

namespace litefs {

class DatabaseSender;

// What senders need of their session.
class SenderContext {
 public:
  virtual ~SenderContext() = default;
  virtual PrimaryHost& host() = 0;
  virtual Stream& stream() = 0;
  virtual const Log& log() const = 0;
  virtual int64_t now_ms() const = 0;
  virtual int64_t retry_ms() const = 0;
  // Whether so many bytes may be queued from memory.
  virtual bool has_room(size_t bytes) const = 0;
  // A fresh index, which stands for this sender until it is given back.
  virtual uint32_t take_index(DatabaseSender& sender) = 0;
  virtual void give_back_index(uint32_t index) = 0;
  // Asks for a turn: take_turn() is called when there is room.
  virtual void want_turn(DatabaseSender& sender) = 0;
  // The step that take_turn() began is over.
  virtual void turn_done() = 0;
};

class DatabaseSender {
 public:
  static constexpr size_t kReadBytes = 256u << 10;
  // A copy goes on at the next tick where a transaction's pages could not be read; after so long
  // without any it fails, and begins anew.
  static constexpr int64_t kPagesBusyMaxMs = 60'000;

  enum class State {
    kAwaited,
    kOpening,
    kReading,
    kLive,
    kStartingSnapshot,
    kSnapshot,
    kPagesBusy,
    kComparing,
    kWaiting,
    kOver
  };

  // `held` is what the replica has under this name; null: nothing. A database that cannot be read now is
  // waited for, and the replica hears nothing of it until then.
  DatabaseSender(SenderContext& context, const PrimaryDatabase& database, const wire::DatabaseHeld* held);
  DatabaseSender(const DatabaseSender&) = delete;
  DatabaseSender& operator=(const DatabaseSender&) = delete;

  void begin();
  // Begins the next asynchronous step; the session hears of its end by turn_done().
  void take_turn();
  void committed(const std::shared_ptr<const CommitBatch>& batch);
  // kCorrupt when the replica claims what it was not sent.
  Status acked(TxId received, TxId durable);
  // kCorrupt when this is no answer to what was asked.
  Status answered(wire::Sums sums);
  void tick();
  // Tells the replica that this stream is over.
  void end(wire::EndReason reason, const std::string& text);

  // Waits for the database to be readable: even its id may not be known.
  bool awaits_database() const { return state_ == State::kAwaited; }

  const std::string& name() const { return name_; }
  DatabaseId id() const { return id_; }
  State state() const { return state_; }
  const char* state_name() const;
  uint32_t index() const { return index_; }  // 0: none now
  const Position& sent() const { return sent_; }
  const Position& latest() const { return latest_; }
  TxId received() const { return received_; }
  TxId durable() const { return durable_; }
  bool in_turn() const { return in_turn_; }

  // Whether the position changed since this was last asked.
  bool take_changed() { return std::exchange(changed_, false); }

  bool waits_for_turn = false;  // the session's: it stands in the queue

 private:
  template <class T>
  std::function<void(Result<T>)> step(void (DatabaseSender::*next)(Result<T>));
  void opened(Result<std::unique_ptr<LogFeed>> feed);
  void read(Result<FeedChunk> chunk);
  void snapshot_started(Result<SnapshotStart> start);
  void snapshot_read(Result<SnapshotChunk> chunk);
  void wait_for_pages(const Error& why);

  void look_for_database();
  void say_unknown();
  void go(State state);
  void announce(wire::DatabaseHow how);
  void snapshot_instead(const Error& why);
  void fail(const Error& error);
  bool follows(const RecordPlace& place) const;
  Status send_piece(const FeedChunk& chunk, const FeedPiece& piece);
  void send_record(const std::shared_ptr<const CommitBatch>& batch, const CommitBatch::Record& record);
  void write_piece(const wire::LogPiece& piece, std::shared_ptr<const void> owner);
  void record_sent(const RecordPlace& place);

  SenderContext& context_;
  std::string name_;
  DatabaseId id_;
  DatabaseId held_id_;
  bool readable_;
  State state_ = State::kOpening;
  uint32_t index_ = 0;
  Position sent_;                   // after the last whole record; before the first, where the replica stands
  Position latest_;                 // of the database, as far as told
  Position read_target_;            // latest_ when the read under way was asked for
  uint64_t record_bytes_sent_ = 0;  // of a record that is not whole yet
  wire::SnapshotReason snapshot_reason_ = wire::SnapshotReason::kNew;
  bool compares_ = false;        // the replica has something that a snapshot can build on
  SumsQuestion question_;        // in kComparing
  bool needs_snapshot_ = false;  // until its copy is sent and the log was opened behind it
  TxId received_;
  TxId durable_;
  int64_t retry_at_ms_ = 0;
  std::optional<int64_t> pages_busy_since_ms_;
  bool changed_ = true;
  bool in_turn_ = false;
  Bytes scratch_;
  std::unique_ptr<LogHold> hold_;
  std::unique_ptr<LogFeed> feed_;
  std::unique_ptr<SnapshotFeed> snapshot_;
  std::shared_ptr<char> alive_ = std::make_shared<char>();  // callbacks watch it
};

}  // namespace litefs
