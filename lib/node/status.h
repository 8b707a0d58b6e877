// What a running node tells about itself, and how it is shown.
//
// The node fills a NodeStatus; status_json and status_text render it. `litefs status` asks over a local stream
// socket, kStatusSocketName in the data directory: it sends one line, "json" or "text", and the node answers with
// the rendering and closes (status_reply; local_requests.h has the other requests). Rendering on the node's side
// spares the client a JSON parser, and the two always are of one version. While the node
// starts, until its mount stands and it serves, the line kStatusStarting comes first, for the client's exit code.
//
// The JSON, of which keys are only ever added ("id" and the like are 16 lower-case hex digits):
//
//   {"version", "role": "primary" | "replica" | "starting", "hostname", "node_id", "cluster_id", "epoch", "mount",
//    "addr", "primary": {"hostname", "url", "connected"} | null, "lag_ms",
//    "databases": [{"name", "id", "page_size", "size_bytes", "epoch", "txid", "checksum",
//                   "position": "TXID/CHECKSUM", "state": "ready" | "loading" | "fenced" | "stopped" | "opening",
//                   "detail", "lag_ms", "log_bytes",
//                   "progress": {"bytes", "total_bytes", "bytes_per_s", "eta_s"} | null}],
//    "peers": [{"node_id", "hostname", "address", "connected_since_ms",
//               "databases": [{"name", "txid", "behind_txids"}]}]}
//
// "epoch" and "behind_txids" are numbers; "connected_since_ms" is wall-clock milliseconds since 1970; "eta_s" is null
// while it is unknown, "lag_ms" while the node does not know its primary's clock. "primary" is null on the primary
// and where none is known. Thread rule: plain values, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "db/database_state.h"

namespace litefs {

inline constexpr const char* kStatusSocketName = "status.sock";
inline constexpr const char* kStatusStarting = "starting\n";

enum class NodeRole { kStarting, kPrimary, kReplica };

struct LoadProgress {
  uint64_t bytes = 0;
  uint64_t total_bytes = 0;
  uint64_t bytes_per_s = 0;
  std::optional<int64_t> eta_s;
};

struct DatabaseStatus {
  std::string name;
  DatabaseId id;
  uint32_t page_size = 0;
  uint64_t size_bytes = 0;
  Position position;
  DatabaseState state = DatabaseState::kOpening;
  std::string detail;  // a sentence for people; empty when there is nothing to say
  std::optional<int64_t> lag_ms;
  uint64_t log_bytes = 0;
  std::optional<LoadProgress> progress;
};

struct PrimaryStatus {
  std::string hostname;  // empty until the primary has said it
  std::string url;
  bool connected = false;
};

struct PeerDatabaseStatus {
  std::string name;
  TxId txid;
  uint64_t behind_txids = 0;
};

struct PeerStatus {
  NodeId node_id;
  std::string hostname;
  std::string address;
  int64_t connected_since_ms = 0;
  std::vector<PeerDatabaseStatus> databases;
};

struct NodeStatus {
  std::string version;
  NodeRole role = NodeRole::kStarting;
  std::string hostname;
  NodeId node_id;
  uint64_t cluster_id = 0;
  Epoch epoch;
  std::string mount;
  std::string addr;
  std::optional<PrimaryStatus> primary;
  std::optional<int64_t> lag_ms;
  std::vector<DatabaseStatus> databases;
  std::vector<PeerStatus> peers;
};

const char* node_role_name(NodeRole role);

std::string status_json(const NodeStatus& status);
// For a terminal; `now_wall_ms` is what "connected since" is counted from.
std::string status_text(const NodeStatus& status, int64_t now_wall_ms);

// The answer to one request line: the rendering (after kStatusStarting, if so), or one line that begins with "error: ".
std::string status_reply(const NodeStatus& status, std::string_view request, int64_t now_wall_ms);

// "1.5 GB", "512 KB", "0 B": three digits at most before the unit.
std::string size_text(uint64_t bytes);
// "12 ms", "3.4 s", "5 min", "2 h 10 min", "3 d".
std::string duration_text(int64_t ms);

}  // namespace litefs
