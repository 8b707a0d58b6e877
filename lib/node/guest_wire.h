// What processes on one data directory say to each other: one of them, the host, runs the node; the others are guests.
//
// The host listens on DATA/guests.sock (env/local_channel.h: messages with their length before them). A connection
// begins with a hello, which is answered when the node serves. What kind it is is said there:
//
//   calls    the guest sends a GuestRequest and waits for its GuestReply, one at a time; it has as many connections as
//            it has threads that ask at once
//   events   the guest sends nothing more; the host sends one byte of GuestEvent bits, which say that something is
//            new and not what: the guest asks. When this connection ends, the other process has
//
// The messages, in ByteWriter's terms. Request: u8 operation, u8 bits (1: files were synced since the last request),
// string name, varint number, le64 epoch, le64 TXID, le64 checksum, string data. Reply: u8 0, then what the operation
// answers; or u8 1 + ErrorCode, string message. Hello: string "litefs-guest 2", u8 kind; its reply: string address.
// Both ends are of one version: the hello's text changes with every change of any of this. Neither end trusts the
// other's lengths. Thread rule: plain values.
#pragma once

#include <string>

#include "base/bytes.h"
#include "base/types.h"
#include "node/status.h"

namespace litefs {

inline constexpr const char* kGuestSocketName = "guests.sock";
inline constexpr const char* kGuestHello = "litefs-guest 2";
inline constexpr size_t kGuestRequestBytesMax = 1u << 20;
inline constexpr size_t kGuestReplyBytesMax = 64u << 20;

enum class GuestConnection : uint8_t { kCalls = 1, kEvents = 2 };

enum class GuestEvent : uint8_t {
  kState = 1,     // of kState's answer
  kPosition = 2,  // a database's position moved; to guests that asked for it (kFollowPositions)
};

enum class GuestOperation : uint8_t {
  // What the guest's API asks for.
  kState = 1,        // u8 role, string primary host, varint count, then name and detail of each stopped database
  kStatus,           // a NodeStatus
  kPosition,         // of `name`, number 1: after a drain. le64 epoch, le64 TXID, le64 checksum
  kPositions,        // of all: varint count, then name and position of each
  kWaitPosition,     // of `name`; number: milliseconds
  kFollowPositions,  // number 1: send GuestEvent::kPosition; 0: send it no more
  // What its connections do to a database's files: DatabaseDoor's methods. `name`: the file.
  kOpen,  // number 1: make it
  kWalOpened,
  kIndexMapped,
  kIndexUnmapped,
  kBeforeIndexUnlink,
  kJournalWrite,     // number: offset; data. Answers, as those that the host does, u8 1 where it has done it
  kJournalTruncate,  // the host does it
  kDatabaseWrite,    // a checkpoint is about to write
  kDatabaseResize,   // number: bytes
  kDatabaseSync,
  kWalResize,
  kWalSync,  // the host does it
  kUnlink,   // number 1: and sync the directory. The host does it
};
inline constexpr uint8_t kGuestOperationLast = static_cast<uint8_t>(GuestOperation::kUnlink);

struct GuestRequest {
  GuestOperation operation = GuestOperation::kState;
  bool synced = false;
  std::string name{};
  uint64_t number = 0;
  Position position{};
  std::string data{};
};

Bytes encode(const GuestRequest& request);
Result<GuestRequest> decode_guest_request(ByteView message);

// A reply, and what it answers; an error is one as it was sent.
Bytes encode_reply(const Result<Bytes>& answer);
Result<Bytes> decode_reply(ByteView message);

Bytes encode_hello(GuestConnection kind);
// kUnsupported: of another version.
Result<GuestConnection> decode_hello(ByteView message);

void put_position(ByteWriter& out, const Position& position);
Result<Position> get_position(ByteReader& in);

struct GuestState {
  NodeRole role = NodeRole::kStarting;
  std::string primary_host_name;
  std::vector<std::pair<std::string, std::string>> stopped;  // name, why
};
Bytes encode(const GuestState& state);
Result<GuestState> decode_guest_state(ByteView bytes);

Bytes encode(const NodeStatus& status);
Result<NodeStatus> decode_node_status(ByteView bytes);

}  // namespace litefs
