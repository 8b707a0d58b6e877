// The replication protocol, version 1: what a replica and its primary say to each other, byte by
// byte.
//
// Notation: u8, u32, u64 little-endian; v a varint (base/bytes.h); str = v length, that many bytes;
// pos = v epoch, v txid, u64 checksum. A frame's fields stand in the order given, without padding.
//
// PREFACE. Both sides begin with the 8 bytes f1 6c 69 74 65 66 73 0a ("\xf1" "litefs" "\n"), which
// no HTTP request and no TLS handshake starts with, so one port can serve them all. Then frames:
//
//     u32 length of the payload; u8 type; payload
//
// A type has a maximum of its own (frame_payload_max); kFramePayloadMax holds for all. A type that
// the reader does not know is skipped when its highest bit is set, else it ends the connection:
// later versions put what may be ignored into 0x80 … 0xff. At the end of a frame marked (+) unknown
// bytes are ignored, so that later versions can add fields; in every other frame they are an error.
//
// FRAMES, by type; "r" is the replica, "p" the primary:
//
//   01 HELLO (+) r→p
//        v version_min, v version_max, u8 kind (1 = replication), u64 cluster id (0: none yet),
//        u64 node id, v highest epoch seen, str host name, str advertised url
//   02 DATABASES_HELD r→p
//        u8 flags (1 = the last page), v count, count × (str name, u64 database id, pos)
//   03 WELCOME (+) p→r
//        v version, u64 cluster id, u64 node id, v epoch, str host name, str url,
//        v wall clock ms
//   04 REFUSE (+) p→r
//        u8 code (RefuseCode), str text, str url of the primary ("" when unknown)
//   05 DATABASE p→r
//        v index, str name, u64 database id, u8 how, then
//        how 0 (continue): pos, after which records follow
//        how 1 (snapshot): u8 reason (SnapshotReason)
//        how 2 (unknown): nothing; the primary has no such database
//        how 3 (difference): u8 reason (SnapshotReason)
//   06 LOG p→r
//        v index, u8 flags (1 = begins a record, 2 = ends it, 4 = this record is committed,
//        8 = a commit TXID follows), with 1 and without 2: v record length, with 8: v commit TXID,
//        then a piece of the record
//   07 SNAPSHOT_BEGIN p→r
//        v index, pos the copy was begun at, v estimated bytes, and of the database there: v page
//        size (0: it has no pages), v size in pages
//   08 SNAPSHOT_DATA p→r
//        v index, bytes (opaque here)
//   09 SNAPSHOT_END p→r
//        v index, pos through which records must be applied until the copy is consistent
//   0a DATABASE_END p→r
//        v index, u8 reason (EndReason), str text
//   0b HEARTBEAT (+) both ways
//        v wall clock ms, v count, count × (v index, pos, v commit TXID ≤ the position's);
//        a replica sends count 0
//   0c ACK r→p
//        v count, count × (v index, v received TXID, v durable TXID ≤ received)
//   0d GOODBYE (+) both ways
//        u8 reason (GoodbyeReason), str text, str url of the new primary
//   0e SUMS_WANTED p→r
//        v index, u8 level (0 = a range sum a range, 1 = 256 page hashes a range), v count (1 to
//        4096 at level 0, to 64 at level 1), count × v range: the first as it is, each other less
//        the one before, at least 1; all below 2^24 (changelog/page_ranges.h)
//   0f SUMS r→p
//        v index, u8 level, v count (to 4096, to 64 × 256), count × u64, in the order asked for
//
// COURSE. The replica sends preface, HELLO and all its databases at once. The primary answers its
// preface and WELCOME, or REFUSE and closes. Then it opens one small stream a database with
// DATABASE, whose index is new each time (it counts up from 1 and is never used again within a
// connection):
//
//   continue   LOG frames, without a gap, from the position on. The replica must stand there (or
//              have nothing, when it is the zero position).
//   snapshot   SNAPSHOT_BEGIN, SNAPSHOT_DATA …, SNAPSHOT_END, then LOG from SNAPSHOT_BEGIN's
//              position on.
//   difference as snapshot, but only pages in which the two differ travel. Between SNAPSHOT_BEGIN
//              and SNAPSHOT_END the primary asks with SUMS_WANTED, one question at a time, and the
//              replica answers with SUMS: first for the range sums of all ranges of the primary's
//              size, then for the page hashes of ranges whose sums differ. The answers describe
//              what the replica had when the copy began, which it keeps unchanged until the copy is
//              complete. A replica that cannot build on what it has (another page size) answers
//              with zeros and is sent everything. What is not sent by SNAPSHOT_END is as the
//              replica has it.
//   unknown    nothing follows, the index is over.
//
// DATABASE_END ends an index; an unfinished record or snapshot is to be forgotten. The same
// database may be opened again under a new index. A DATABASE whose name the replica knows with
// another database id replaces it. A dropped database's last record is followed by DATABASE_END.
//
// A record up to kLogPieceMax bytes is one LOG frame (7 bytes more than the record, for indexes
// below 128); a longer one comes in pieces, in order; frames of other databases may stand between.
// A replica may apply a record once it is committed: flag 4, or a commit TXID (of flag 8 or a
// HEARTBEAT) that reaches it. Asynchronous commits always carry flag 4.
//
// Each side sends a HEARTBEAT each second; the primary's lists the databases whose position or
// commit TXID changed since its last one. A side that hears nothing for 10 seconds ends the
// connection. An ACK may come late for an index that is over and is then ignored.
//
// Decoders never trust: lengths, counts, flags and enumerations are checked, and an error names the
// frame. Thread rule: plain values, any thread; a FrameReader belongs to one thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "changelog/page_ranges.h"

namespace litefs::wire {

inline constexpr uint8_t kPreface[8] = {0xf1, 'l', 'i', 't', 'e', 'f', 's', '\n'};
inline constexpr uint64_t kVersionMin = 1;
inline constexpr uint64_t kVersionMax = 1;
inline constexpr uint8_t kKindReplication = 1;

inline constexpr size_t kFrameHeaderBytes = 5;
inline constexpr size_t kSnapshotPieceMax = 1u << 20;
inline constexpr size_t kLogPieceMax = 256u << 10;
inline constexpr size_t kFramePayloadMax = kSnapshotPieceMax + 16;
inline constexpr size_t kNameBytesMax = 1024;
inline constexpr size_t kTextBytesMax = 1024;
// Of DATABASES_HELD: a page ends at whichever is met first.
inline constexpr size_t kPageEntriesMax = 1024;
inline constexpr size_t kPageBytesMax = 128u << 10;
inline constexpr size_t kHeartbeatEntriesMax = 4096;
inline constexpr size_t kAckEntriesMax = 4096;
inline constexpr size_t kDatabasesMax = 100000;  // that one replica may hold

enum class FrameType : uint8_t {
  kHello = 0x01,
  kDatabasesHeld = 0x02,
  kWelcome = 0x03,
  kRefuse = 0x04,
  kDatabase = 0x05,
  kLog = 0x06,
  kSnapshotBegin = 0x07,
  kSnapshotData = 0x08,
  kSnapshotEnd = 0x09,
  kDatabaseEnd = 0x0a,
  kHeartbeat = 0x0b,
  kAck = 0x0c,
  kGoodbye = 0x0d,
  kSumsWanted = 0x0e,
  kSums = 0x0f,
};

// The longest payload of a type; kFramePayloadMax for one that is to be skipped; kCorrupt for one
// that this version must know and does not.
Result<size_t> frame_payload_max(uint8_t type);

// A code that this version does not know reads as kOther.
enum class RefuseCode : uint8_t {
  kOther = 0,
  kVersion = 1,
  kWrongCluster = 2,
  kOwnNode = 3,      // the caller has the primary's own node id
  kNotPrimary = 4,   // see the url
  kHigherEpoch = 5,  // the caller has seen a newer primary than this one
  kTooMany = 6,      // connections or databases
  kStarting = 7,     // it is about to be the primary: come again
};
const char* refuse_code_name(RefuseCode code);

enum class DatabaseHow : uint8_t { kContinue = 0, kSnapshot = 1, kUnknown = 2, kDifference = 3 };

// Why records cannot be sent from the replica's position.
enum class SnapshotReason : uint8_t {
  kNew = 0,              // the replica has nothing of it
  kTooOld = 1,           // the position is of this history, and not in the log any more
  kDiverged = 2,         // not known to be: the replica may have transactions that the primary has not
  kAnotherDatabase = 3,  // the primary's database of this name is another one
};
const char* snapshot_reason_name(SnapshotReason reason);

enum class EndReason : uint8_t {
  kOther = 0,
  kDropped = 1,   // the drop record was sent
  kReplaced = 2,  // another database has the name now; it follows
  kFailed = 3,    // the primary could not go on (text); it tries again later
  kResync = 4,    // the log lost what this replica needs; a snapshot follows
};

enum class GoodbyeReason : uint8_t {
  kOther = 0,
  kStopping = 1,  // the node stops
  kHandoff = 2,   // another node is primary now, or shall be
  kFailed = 3,    // the sender met an error (text)
  kReplaced = 4,  // the same node has connected again
};
const char* goodbye_reason_name(GoodbyeReason reason);

struct Hello {
  uint64_t version_min = kVersionMin;
  uint64_t version_max = kVersionMax;
  uint8_t kind = kKindReplication;
  uint64_t cluster_id = 0;
  NodeId node;
  Epoch epoch;
  std::string host_name;
  std::string url;

  void append_to(Bytes& out) const;
  static Result<Hello> parse(ByteView payload);
};

struct DatabaseHeld {
  std::string name;
  DatabaseId id;
  Position position;
};

struct DatabasesHeld {
  bool last = false;
  std::vector<DatabaseHeld> databases;

  void append_to(Bytes& out) const;
  static Result<DatabasesHeld> parse(ByteView payload);
};
// All pages of a list, at least one.
void append_databases_held(const std::vector<DatabaseHeld>& databases, Bytes& out);

struct Welcome {
  uint64_t version = kVersionMax;
  uint64_t cluster_id = 0;
  NodeId node;
  Epoch epoch;
  std::string host_name;
  std::string url;
  int64_t wall_ms = 0;

  void append_to(Bytes& out) const;
  static Result<Welcome> parse(ByteView payload);
};

struct Refuse {
  RefuseCode code = RefuseCode::kOther;
  std::string text;
  std::string primary_url;

  void append_to(Bytes& out) const;
  static Result<Refuse> parse(ByteView payload);
};

struct Database {
  uint32_t index = 0;
  std::string name;
  DatabaseId id;
  DatabaseHow how = DatabaseHow::kContinue;
  Position from{};                               // continue
  SnapshotReason reason = SnapshotReason::kNew;  // snapshot, difference

  void append_to(Bytes& out) const;
  static Result<Database> parse(ByteView payload);
};

struct LogPiece {
  uint32_t index = 0;
  bool begins = false;
  bool ends = false;
  bool committed = false;                     // through this record
  std::optional<TxId> commit = std::nullopt;  // through this one
  uint64_t record_bytes = 0;                  // with begins
  ByteView bytes;                             // of the payload that was parsed

  // Everything of the frame but the piece itself, which must follow it.
  void append_head_to(Bytes& out) const;
  static Result<LogPiece> parse(ByteView payload);
};

struct SnapshotBegin {
  uint32_t index = 0;
  Position start;
  uint64_t estimated_bytes = 0;
  uint32_t page_size = 0;
  Pgno size_pages = 0;

  void append_to(Bytes& out) const;
  static Result<SnapshotBegin> parse(ByteView payload);
};

struct SnapshotData {
  uint32_t index = 0;
  ByteView bytes;  // of the payload that was parsed

  // Everything of the frame but the bytes.
  void append_head_to(Bytes& out) const;
  static Result<SnapshotData> parse(ByteView payload);
};

struct SnapshotEnd {
  uint32_t index = 0;
  Position consistent_at;

  void append_to(Bytes& out) const;
  static Result<SnapshotEnd> parse(ByteView payload);
};

struct SumsWanted {
  uint32_t index = 0;
  SumsQuestion question;

  void append_to(Bytes& out) const;
  static Result<SumsWanted> parse(ByteView payload);
};

struct Sums {
  uint32_t index = 0;
  bool of_pages = false;
  std::vector<Checksum> sums;

  void append_to(Bytes& out) const;
  static Result<Sums> parse(ByteView payload);
};

struct DatabaseEnd {
  uint32_t index = 0;
  EndReason reason = EndReason::kOther;
  std::string text;

  void append_to(Bytes& out) const;
  static Result<DatabaseEnd> parse(ByteView payload);
};

struct HeartbeatEntry {
  uint32_t index = 0;
  Position position;
  TxId commit;
};

struct Heartbeat {
  int64_t wall_ms = 0;
  std::vector<HeartbeatEntry> databases;

  void append_to(Bytes& out) const;
  static Result<Heartbeat> parse(ByteView payload);
};

struct AckEntry {
  uint32_t index = 0;
  TxId received;
  TxId durable;
};

struct Ack {
  std::vector<AckEntry> databases;

  void append_to(Bytes& out) const;
  static Result<Ack> parse(ByteView payload);
};

struct Goodbye {
  GoodbyeReason reason = GoodbyeReason::kOther;
  std::string text;
  std::string new_primary_url;

  void append_to(Bytes& out) const;
  static Result<Goodbye> parse(ByteView payload);
};

struct Frame {
  FrameType type = FrameType::kHello;
  ByteView payload;  // valid until the reader is used again
};

// Cuts a stream into frames. Holds at most what was fed and not yet taken.
class FrameReader {
 public:
  enum class Preface { kExpected, kSeen };

  explicit FrameReader(Preface preface) : preface_(preface) {}
  void feed(ByteView data);
  // The next whole frame, or nothing until more is fed. Frames to be skipped are skipped. After an
  // error the stream is lost.
  Result<std::optional<Frame>> next();
  size_t buffered_bytes() const { return buffer_.size() - start_; }

 private:
  Status take_preface();

  Preface preface_;
  Bytes buffer_;
  size_t start_ = 0;
};

}  // namespace litefs::wire
