// The doors between the replication sessions and the node that they serve.
//
// Sessions never wait and never touch a file. What needs the disk is asked for with a `done`
// callback, which the implementer calls on the loop's thread, once, in a later turn (never from
// inside the call). A `done` that comes after its session, feed or snapshot is gone does no harm:
// sessions guard theirs. Destroying a feed or a snapshot cancels what it has under way. Thread
// rule: the loop's thread only, for every call in either direction.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "changelog/page_ranges.h"
#include "repl/wire.h"

namespace litefs {

// This node, as it introduces itself to a peer.
struct NodeIdentity {
  uint64_t cluster_id = 0;  // 0: a replica that has joined no cluster yet
  NodeId node;
  Epoch epoch;  // of a primary its own, of a replica the highest that it has seen
  std::string host_name;
  std::string url;  // advertised
};

// Where a record stands in its database's history.
struct RecordPlace {
  TxId txid_first;
  Checksum before;
  Position after;
  uint64_t record_bytes = 0;
  bool drops = false;  // a drop record: nothing of this database follows
};

// ---- primary
// ----------------------------------------------------------------------------------------

struct PrimaryDatabase {
  std::string name;
  DatabaseId id;
  Position position;  // zero: no transaction yet
  // False: it is here, but cannot be read now (it is being opened, fenced, stopped). Replicas keep what
  // they have of it, and nothing else is said: id and position may not be known.
  bool readable = true;
};

// Records that have just been appended to a database's log, in order, without a gap.
struct CommitBatch {
  struct Record {
    RecordPlace place;
    Bytes bytes;
  };
  Position after;
  // May be empty, when the records are too large to be held in memory: sessions then read them from
  // the log.
  std::vector<Record> records;
  size_t bytes = 0;  // of all records
};

// A part of one record in a feed. A record comes in one piece or in several, in order.
struct FeedPiece {
  RecordPlace place;
  uint64_t offset_bytes = 0;  // within the record
  ByteView bytes;             // not empty

  bool begins() const { return offset_bytes == 0; }
  bool ends() const { return offset_bytes + bytes.size() == place.record_bytes; }
};

struct FeedChunk {
  std::shared_ptr<const void> owner;  // keeps the pieces' bytes alive
  std::vector<FeedPiece> pieces;      // empty: the end of the log, for now
};

// A database's records after a position, from the disk.
class LogFeed {
 public:
  using ReadDone = std::function<void(Result<FeedChunk>)>;

  virtual ~LogFeed() = default;
  // About `bytes_max` bytes, at least one piece unless at the end; sees what had been appended
  // before the call. One read at a time. kNotFound: the log was trimmed away under the feed;
  // kDiverged: it was cut, the feed is to be opened again. Any other error is tried again later.
  virtual void read(size_t bytes_max, ReadDone done) = 0;
};

struct SnapshotChunk {
  Bytes bytes;  // may be empty in the last chunk
  // In place of bytes: the feed needs to know what the replica has, by SnapshotFeed::answer.
  std::optional<SumsQuestion> question = std::nullopt;
  bool last = false;
  Position consistent_at;  // of the last chunk: records through it make the copy consistent
};

// A fuzzy copy of a database, begun at a position.
class SnapshotFeed {
 public:
  using ReadDone = std::function<void(Result<SnapshotChunk>)>;

  virtual ~SnapshotFeed() = default;
  // kBusy: the next pages cannot be had in the middle of a transaction; a later read goes on with
  // them.
  virtual void read(size_t bytes_max, ReadDone done) = 0;
  // The replica's sums, as many as the question's answer_sums(); before the next read.
  virtual void answer(std::vector<Checksum> sums) = 0;
};

struct SnapshotStart {
  DatabaseId id;
  Position start;  // records after it follow the copy
  uint64_t estimated_bytes = 0;
  uint32_t page_size = 0;
  Pgno size_pages = 0;
  std::unique_ptr<SnapshotFeed> feed;
};

// As long as it lives, retention keeps the records after a position (up to its own hard bound).
class LogHold {
 public:
  virtual ~LogHold() = default;
  // The replica has everything through `durable`.
  virtual void advance(TxId durable) = 0;
};

class PrimaryHost {
 public:
  using FeedDone = std::function<void(Result<std::unique_ptr<LogFeed>>)>;
  using SnapshotDone = std::function<void(Result<SnapshotStart>)>;

  virtual ~PrimaryHost() = default;

  virtual NodeIdentity identity() = 0;
  // Whether this node is primary now; if not, where the primary is ("" when unknown).
  virtual bool is_primary(std::string* primary_url) = 0;
  // Whether it is not primary yet and is about to be.
  virtual bool is_starting() = 0;
  // All databases, as of now: from memory. Every change after this call must be told to the
  // sessions (PrimarySession::committed); telling what is in here already is harmless.
  virtual std::vector<PrimaryDatabase> databases() = 0;
  // One of them; nothing: there is no such database. From memory.
  virtual std::optional<PrimaryDatabase> database(const std::string& name) = 0;

  // From memory; asked for before open_feed or start_snapshot, so that nothing is trimmed in
  // between. May be null where the database is gone.
  virtual std::unique_ptr<LogHold> hold_log(const std::string& name, DatabaseId id, TxId after) = 0;
  // The records after `position` of the database that has this name and `id`; a replica claims to
  // stand there (zero: it has nothing). kNotFound: the log does not reach back to it; kDiverged: it
  // is not known to be in this database's history, or another database has the name now. Either
  // leads to a snapshot. Any other error is tried again later.
  virtual void open_feed(const std::string& name, DatabaseId id, const Position& position, FeedDone done) = 0;
  // `compares`: only pages that differ from the replica's are to be sent, so the feed asks for its
  // sums. kNotFound: there is no such database (any more).
  virtual void start_snapshot(const std::string& name, bool compares, SnapshotDone done) = 0;

  // A replica has joined or left.
  virtual void replica_joined(const NodeIdentity& replica) = 0;
  virtual void replica_left(const NodeIdentity& replica, const Status& why) = 0;
  // What a replica has of a database; goes up only, within one connection.
  virtual void replica_acked(NodeId replica, const std::string& name, TxId received, TxId durable) = 0;
  // A replica knows of a newer primary: this one should look whether it still is one.
  virtual void higher_epoch_seen(Epoch epoch, NodeId seen_by) = 0;
};

// ---- replica
// ----------------------------------------------------------------------------------------

struct DatabaseStart {
  std::string name;
  DatabaseId id;
  wire::DatabaseHow how = wire::DatabaseHow::kContinue;
  Position from;  // kContinue: where records begin
  wire::SnapshotReason reason = wire::SnapshotReason::kNew;
  // Stands for this start, for ReplicaSession::applied: another start of the same name has another
  // one.
  uint32_t index = 0;
};

// A copy that begins.
struct IncomingSnapshot {
  Position start;
  uint64_t estimated_bytes = 0;
  uint32_t page_size = 0;
  Pgno size_pages = 0;
  bool compares = false;  // pages that do not come are as the host has them now
};

struct IncomingPiece {
  bool begins = false;
  bool ends = false;
  uint64_t record_bytes = 0;
  bool committed = false;                     // the record may be applied
  std::optional<TxId> commit = std::nullopt;  // records through this one may be applied
  ByteView bytes;                             // valid during the call
};

class ReplicaSession;

// An error returned from any of these ends the connection, with GOODBYE(failed) to the primary. A
// host whose queue is over its bound calls ReplicaSession::pause(), also from inside these calls,
// and resume() later.
class ReplicaHost {
 public:
  virtual ~ReplicaHost() = default;

  virtual NodeIdentity identity() = 0;
  // All databases with the positions that records must continue from: everything received, also
  // what is not applied yet. From memory.
  virtual std::vector<wire::DatabaseHeld> databases() = 0;

  // A session was welcomed; `session` lives until session_ended. An error when this is not a
  // primary to follow (another cluster, an older epoch).
  virtual Status session_welcomed(ReplicaSession& session, const wire::Welcome& welcome) = 0;
  virtual Status database_started(const DatabaseStart& start) = 0;
  virtual Status log_piece(const std::string& name, const IncomingPiece& piece) = 0;
  virtual Status snapshot_begin(const std::string& name, const IncomingSnapshot& snapshot) = 0;
  // Within a copy that compares: the answer goes to ReplicaSession::answer_sums; where there will be
  // none, the host ends the session, as the primary waits for it.
  virtual Status sums_wanted(const std::string& name, const SumsQuestion& question) = 0;
  virtual Status snapshot_piece(const std::string& name, ByteView bytes) = 0;
  virtual Status snapshot_end(const std::string& name, const Position& consistent_at) = 0;
  // Nothing more comes for this database under its present start: a record or snapshot that is not
  // whole is to be forgotten. Also called for each database at the end of a session (kOther).
  virtual void database_ended(const std::string& name, wire::EndReason reason, const std::string& text) = 0;
  // Where the primary stood at its last heartbeat, and through where records may be applied.
  virtual void primary_position(const std::string& name, const Position& position, TxId commit) = 0;
  // Everything that arrived together has been handed over: a place to pass collected work on.
  virtual void turn_ended() = 0;

  // The primary refused us, or said goodbye: perhaps there is another (urls may be empty).
  virtual void refused(const wire::Refuse& refuse) = 0;
  virtual void goodbye(const wire::Goodbye& goodbye) = 0;
  // The connection is over (success: in order); the session is about to go.
  virtual void session_ended(const Status& why) = 0;
};

}  // namespace litefs
