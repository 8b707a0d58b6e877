#include "node/guest_wire.h"

namespace litefs {
namespace {

constexpr size_t kTextBytesMax = 1u << 16;
constexpr size_t kDataBytesMax = kGuestRequestBytesMax;
constexpr uint8_t kSyncedBit = 1;
constexpr uint8_t kErrorLast = static_cast<uint8_t>(ErrorCode::kCancelled);
constexpr const char* kWhat = "a message between processes of one data directory";

Error corrupt(const char* why) { return Error(ErrorCode::kCorrupt, std::string(kWhat) + ": " + why); }

void put_optional(ByteWriter& out, const std::optional<int64_t>& value) {
  out.u8(value.has_value());
  if (value) out.le64(static_cast<uint64_t>(*value));
}

Result<std::optional<int64_t>> get_optional(ByteReader& in) {
  if (TRY(in.u8()) == 0) return std::optional<int64_t>();
  return std::optional<int64_t>(static_cast<int64_t>(TRY(in.le64())));
}

void put_database(ByteWriter& out, const DatabaseStatus& database) {
  out.string(database.name);
  out.le64(database.id.value);
  out.le32(database.page_size);
  out.le64(database.size_bytes);
  put_position(out, database.position);
  out.u8(static_cast<uint8_t>(database.state));
  out.string(database.detail);
  put_optional(out, database.lag_ms);
  out.le64(database.log_bytes);
  out.u8(database.progress.has_value());
  if (!database.progress) return;
  out.le64(database.progress->bytes);
  out.le64(database.progress->total_bytes);
  out.le64(database.progress->bytes_per_s);
  put_optional(out, database.progress->eta_s);
}

Result<DatabaseStatus> get_database(ByteReader& in) {
  DatabaseStatus database;
  database.name = TRY(in.string(kTextBytesMax));
  database.id.value = TRY(in.le64());
  database.page_size = TRY(in.le32());
  database.size_bytes = TRY(in.le64());
  database.position = TRY(get_position(in));
  const uint8_t state = TRY(in.u8());
  if (state > static_cast<uint8_t>(DatabaseState::kStopped)) return corrupt("an unknown state");
  database.state = static_cast<DatabaseState>(state);
  database.detail = TRY(in.string(kTextBytesMax));
  database.lag_ms = TRY(get_optional(in));
  database.log_bytes = TRY(in.le64());
  if (TRY(in.u8()) == 0) return database;
  LoadProgress progress;
  progress.bytes = TRY(in.le64());
  progress.total_bytes = TRY(in.le64());
  progress.bytes_per_s = TRY(in.le64());
  progress.eta_s = TRY(get_optional(in));
  database.progress = progress;
  return database;
}

void put_peer(ByteWriter& out, const PeerStatus& peer) {
  out.le64(peer.node_id.value);
  out.string(peer.hostname);
  out.string(peer.address);
  out.le64(static_cast<uint64_t>(peer.connected_since_ms));
  out.varint(peer.databases.size());
  for (const PeerDatabaseStatus& database : peer.databases) {
    out.string(database.name);
    out.le64(database.txid.value);
    out.le64(database.behind_txids);
  }
}

Result<PeerStatus> get_peer(ByteReader& in) {
  PeerStatus peer;
  peer.node_id = NodeId{TRY(in.le64())};
  peer.hostname = TRY(in.string(kTextBytesMax));
  peer.address = TRY(in.string(kTextBytesMax));
  peer.connected_since_ms = static_cast<int64_t>(TRY(in.le64()));
  for (uint64_t left = TRY(in.varint()); left > 0; --left) {
    PeerDatabaseStatus database;
    database.name = TRY(in.string(kTextBytesMax));
    database.txid = TxId{TRY(in.le64())};
    database.behind_txids = TRY(in.le64());
    peer.databases.push_back(std::move(database));
  }
  return peer;
}

Result<NodeRole> get_role(ByteReader& in) {
  const uint8_t role = TRY(in.u8());
  if (role > static_cast<uint8_t>(NodeRole::kReplica)) return corrupt("an unknown role");
  return static_cast<NodeRole>(role);
}

}  // namespace

void put_position(ByteWriter& out, const Position& position) {
  out.le64(position.epoch.value);
  out.le64(position.txid.value);
  out.le64(position.checksum.value);
}

Result<Position> get_position(ByteReader& in) {
  Position position;
  position.epoch = Epoch{TRY(in.le64())};
  position.txid = TxId{TRY(in.le64())};
  position.checksum = Checksum{TRY(in.le64())};
  return position;
}

Bytes encode(const GuestRequest& request) {
  Bytes message;
  ByteWriter out(message);
  out.u8(static_cast<uint8_t>(request.operation));
  out.u8(request.synced ? kSyncedBit : 0);
  out.string(request.name);
  out.varint(request.number);
  put_position(out, request.position);
  out.string(request.data);
  return message;
}

Result<GuestRequest> decode_guest_request(ByteView message) {
  ByteReader in(message, kWhat);
  GuestRequest request;
  const uint8_t operation = TRY(in.u8());
  if (operation == 0 || operation > kGuestOperationLast) return corrupt("an unknown operation");
  request.operation = static_cast<GuestOperation>(operation);
  request.synced = TRY(in.u8()) & kSyncedBit;
  request.name = TRY(in.string(kTextBytesMax));
  request.number = TRY(in.varint());
  request.position = TRY(get_position(in));
  request.data = TRY(in.string(kDataBytesMax));
  return request;
}

Bytes encode_reply(const Result<Bytes>& answer) {
  Bytes message;
  ByteWriter out(message);
  if (answer.ok()) {
    out.u8(0);
    out.bytes(answer.value());
  } else {
    out.u8(static_cast<uint8_t>(1 + static_cast<uint8_t>(answer.error().code())));
    out.string(answer.error().message());
  }
  return message;
}

Result<Bytes> decode_reply(ByteView message) {
  ByteReader in(message, kWhat);
  const uint8_t code = TRY(in.u8());
  if (code == 0) {
    const ByteView rest = TRY(in.bytes(in.remaining()));
    return Bytes(rest.begin(), rest.end());
  }
  if (code > 1 + kErrorLast) return corrupt("an unknown error");
  return Error(static_cast<ErrorCode>(code - 1), TRY(in.string(kTextBytesMax)));
}

Bytes encode_hello(GuestConnection kind) {
  Bytes message;
  ByteWriter out(message);
  out.string(kGuestHello);
  out.u8(static_cast<uint8_t>(kind));
  return message;
}

Result<GuestConnection> decode_hello(ByteView message) {
  ByteReader in(message, kWhat);
  const std::string hello = TRY(in.string(kTextBytesMax));
  if (hello != kGuestHello) {
    return Error(ErrorCode::kUnsupported, "the process that runs the node has another version of litefs");
  }
  const uint8_t kind = TRY(in.u8());
  if (kind != 1 && kind != 2) return corrupt("an unknown kind of connection");
  return static_cast<GuestConnection>(kind);
}

Bytes encode(const GuestState& state) {
  Bytes message;
  ByteWriter out(message);
  out.u8(static_cast<uint8_t>(state.role));
  out.string(state.primary_host_name);
  out.varint(state.stopped.size());
  for (const auto& [name, why] : state.stopped) {
    out.string(name);
    out.string(why);
  }
  return message;
}

Result<GuestState> decode_guest_state(ByteView bytes) {
  ByteReader in(bytes, kWhat);
  GuestState state;
  state.role = TRY(get_role(in));
  state.primary_host_name = TRY(in.string(kTextBytesMax));
  for (uint64_t left = TRY(in.varint()); left > 0; --left) {
    std::string name = TRY(in.string(kTextBytesMax));
    state.stopped.emplace_back(std::move(name), TRY(in.string(kTextBytesMax)));
  }
  return state;
}

Bytes encode(const NodeStatus& status) {
  Bytes message;
  ByteWriter out(message);
  out.string(status.version);
  out.u8(static_cast<uint8_t>(status.role));
  out.string(status.hostname);
  out.le64(status.node_id.value);
  out.le64(status.cluster_id);
  out.le64(status.epoch.value);
  out.string(status.mount);
  out.string(status.addr);
  out.u8(status.primary.has_value());
  if (status.primary) {
    out.string(status.primary->hostname);
    out.string(status.primary->url);
    out.u8(status.primary->connected);
  }
  put_optional(out, status.lag_ms);
  out.varint(status.databases.size());
  for (const DatabaseStatus& database : status.databases) put_database(out, database);
  out.varint(status.peers.size());
  for (const PeerStatus& peer : status.peers) put_peer(out, peer);
  return message;
}

Result<NodeStatus> decode_node_status(ByteView bytes) {
  ByteReader in(bytes, kWhat);
  NodeStatus status;
  status.version = TRY(in.string(kTextBytesMax));
  status.role = TRY(get_role(in));
  status.hostname = TRY(in.string(kTextBytesMax));
  status.node_id = NodeId{TRY(in.le64())};
  status.cluster_id = TRY(in.le64());
  status.epoch = Epoch{TRY(in.le64())};
  status.mount = TRY(in.string(kTextBytesMax));
  status.addr = TRY(in.string(kTextBytesMax));
  if (TRY(in.u8()) != 0) {
    PrimaryStatus primary;
    primary.hostname = TRY(in.string(kTextBytesMax));
    primary.url = TRY(in.string(kTextBytesMax));
    primary.connected = TRY(in.u8()) != 0;
    status.primary = std::move(primary);
  }
  status.lag_ms = TRY(get_optional(in));
  for (uint64_t left = TRY(in.varint()); left > 0; --left) status.databases.push_back(TRY(get_database(in)));
  for (uint64_t left = TRY(in.varint()); left > 0; --left) status.peers.push_back(TRY(get_peer(in)));
  return status;
}

}  // namespace litefs
