#include "node/status.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "node/json_writer.h"

namespace litefs {
namespace {

void write_optional(JsonWriter& json, const std::optional<int64_t>& value) {
  if (value)
    json.value(*value);
  else
    json.null();
}

void write_database(JsonWriter& json, const DatabaseStatus& db) {
  json.begin_object();
  json.key("name").value(db.name).key("id").value(hex16(db.id.value));
  json.key("page_size").value(db.page_size).key("size_bytes").value(db.size_bytes);
  json.key("epoch").value(db.position.epoch.value);
  json.key("txid").value(hex16(db.position.txid.value));
  json.key("checksum").value(hex16(db.position.checksum.value));
  json.key("position").value(position_text(db.position));
  json.key("state").value(database_state_name(db.state)).key("detail").value(db.detail);
  write_optional(json.key("lag_ms"), db.lag_ms);
  json.key("log_bytes").value(db.log_bytes);
  json.key("progress");
  if (db.progress) {
    json.begin_object();
    json.key("bytes").value(db.progress->bytes).key("total_bytes").value(db.progress->total_bytes);
    json.key("bytes_per_s").value(db.progress->bytes_per_s);
    write_optional(json.key("eta_s"), db.progress->eta_s);
    json.end_object();
  } else {
    json.null();
  }
  json.end_object();
}

void write_peer(JsonWriter& json, const PeerStatus& peer) {
  json.begin_object();
  json.key("node_id").value(hex16(peer.node_id.value)).key("hostname").value(peer.hostname);
  json.key("address").value(peer.address);
  json.key("connected_since_ms").value(peer.connected_since_ms);
  json.key("databases").begin_array();
  for (const PeerDatabaseStatus& db : peer.databases) {
    json.begin_object().key("name").value(db.name).key("txid").value(hex16(db.txid.value));
    json.key("behind_txids").value(db.behind_txids).end_object();
  }
  json.end_array().end_object();
}

// Columns as wide as their widest cell, two spaces apart; the first row is the heading.
class Table {
 public:
  explicit Table(std::vector<std::string> heading) { row(std::move(heading)); }

  void row(std::vector<std::string> cells) {
    if (widths_.size() < cells.size()) widths_.resize(cells.size());
    for (size_t i = 0; i < cells.size(); ++i) widths_[i] = std::max(widths_[i], columns(cells[i]));
    rows_.push_back(std::move(cells));
  }

  std::string text() const {
    std::string out;
    for (const std::vector<std::string>& cells : rows_) {
      std::string line;
      for (size_t i = 0; i < cells.size(); ++i) {
        line += cells[i];
        line.append(widths_[i] - columns(cells[i]) + 2, ' ');
      }
      while (!line.empty() && line.back() == ' ') line.pop_back();
      out += line + "\n";
    }
    return out;
  }

 private:
  // Characters, taking each to be one column wide.
  static size_t columns(const std::string& cell) {
    return static_cast<size_t>(std::count_if(cell.begin(), cell.end(), [](char c) { return (c & 0xc0) != 0x80; }));
  }

  std::vector<size_t> widths_;
  std::vector<std::vector<std::string>> rows_;
};

// Names come from users and peers: no control character of theirs reaches a terminal.
std::string printable(const std::string& text) {
  std::string out = text;
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < ' ' || c == 127) c = '?';
  }
  return out;
}

std::string progress_text(const LoadProgress& progress) {
  std::string out = size_text(progress.bytes) + " of " + size_text(progress.total_bytes);
  if (progress.total_bytes > 0) {
    double done = static_cast<double>(progress.bytes) / static_cast<double>(progress.total_bytes);
    out += " (" + std::to_string(static_cast<int>(std::min(1.0, done) * 100)) + " %)";
  }
  out += ", " + size_text(progress.bytes_per_s) + "/s";
  if (progress.eta_s) out += ", " + duration_text(*progress.eta_s * 1000) + " left";
  return out;
}

std::string heading_text(const NodeStatus& status) {
  std::string out = printable(status.hostname) + " is ";
  switch (status.role) {
    case NodeRole::kStarting: out += "starting"; break;
    case NodeRole::kPrimary: out += "the primary"; break;
    case NodeRole::kReplica: out += "a replica"; break;
  }
  if (status.primary) {
    const PrimaryStatus& primary = *status.primary;
    out += primary.connected ? " of " : ", not connected to ";
    out += primary.hostname.empty() ? printable(primary.url)
                                    : printable(primary.hostname) + " (" + printable(primary.url) + ")";
  }
  if (status.role == NodeRole::kReplica && status.lag_ms) {
    out += ", lag " + duration_text(*status.lag_ms);
  }
  out += "\n  " + (status.mount.empty() ? "no mount" : "mount " + printable(status.mount)) + "   address " +
         printable(status.addr) + "   epoch " + std::to_string(status.epoch.value) + "   version " + status.version;
  out += "\n  node " + hex16(status.node_id.value) + "   cluster " + hex16(status.cluster_id) + "\n";
  return out;
}

std::string databases_text(const NodeStatus& status) {
  if (status.databases.empty()) return "\nno databases\n";
  Table table({"DATABASE", "SIZE", "POSITION", "STATE", "LAG", "LOG"});
  std::string notes;
  for (const DatabaseStatus& db : status.databases) {
    std::string name = printable(db.name);
    // A primary is behind nobody.
    bool lags = status.role == NodeRole::kReplica && db.lag_ms;
    table.row({name, size_text(db.size_bytes), position_text(db.position), database_state_name(db.state),
               lags ? duration_text(*db.lag_ms) : "-", size_text(db.log_bytes)});
    if (db.progress) notes += "  " + name + ": " + progress_text(*db.progress) + "\n";
    if (!db.detail.empty()) notes += "  " + name + ": " + printable(db.detail) + "\n";
  }
  return "\n" + table.text() + notes;
}

std::string peers_text(const NodeStatus& status, int64_t now_wall_ms) {
  if (status.peers.empty()) {
    return status.role == NodeRole::kPrimary ? "\nno replica is connected\n" : "";
  }
  Table table({"REPLICA", "ADDRESS", "CONNECTED", "BEHIND"});
  for (const PeerStatus& peer : status.peers) {
    std::string behind;
    for (const PeerDatabaseStatus& db : peer.databases) {
      if (db.behind_txids == 0) continue;
      behind += (behind.empty() ? "" : ", ") + printable(db.name) + " " + std::to_string(db.behind_txids) + " tx";
    }
    // A peer's and this machine's clocks may differ, or be set back.
    int64_t connected_ms = std::max<int64_t>(0, now_wall_ms - peer.connected_since_ms);
    table.row({printable(peer.hostname), printable(peer.address), duration_text(connected_ms),
               behind.empty() ? "-" : behind});
  }
  return "\n" + table.text();
}

}  // namespace

const char* node_role_name(NodeRole role) {
  switch (role) {
    case NodeRole::kStarting: return "starting";
    case NodeRole::kPrimary: return "primary";
    case NodeRole::kReplica: return "replica";
  }
  return "?";
}

std::string status_json(const NodeStatus& status) {
  JsonWriter json;
  json.begin_object();
  json.key("version").value(status.version).key("role").value(node_role_name(status.role));
  json.key("hostname").value(status.hostname).key("node_id").value(hex16(status.node_id.value));
  json.key("cluster_id").value(hex16(status.cluster_id)).key("epoch").value(status.epoch.value);
  json.key("mount").value(status.mount).key("addr").value(status.addr).key("primary");
  if (status.primary) {
    json.begin_object().key("hostname").value(status.primary->hostname);
    json.key("url").value(status.primary->url).key("connected").value(status.primary->connected);
    json.end_object();
  } else {
    json.null();
  }
  write_optional(json.key("lag_ms"), status.lag_ms);
  json.key("databases").begin_array();
  for (const DatabaseStatus& db : status.databases) write_database(json, db);
  json.end_array().key("peers").begin_array();
  for (const PeerStatus& peer : status.peers) write_peer(json, peer);
  json.end_array().end_object();
  return json.take();
}

std::string status_text(const NodeStatus& status, int64_t now_wall_ms) {
  return heading_text(status) + databases_text(status) + peers_text(status, now_wall_ms);
}

std::string status_reply(const NodeStatus& status, std::string_view request, int64_t now_wall_ms) {
  while (!request.empty() && (request.back() == '\n' || request.back() == '\r')) {
    request.remove_suffix(1);
  }
  const std::string first = status.role == NodeRole::kStarting ? kStatusStarting : "";
  if (request == "json") return first + status_json(status);
  if (request == "text") return first + status_text(status, now_wall_ms);
  return "error: the request is not \"json\" or \"text\"\n";
}

std::string size_text(uint64_t bytes) {
  static constexpr std::array<const char*, 6> kUnits = {"B", "KB", "MB", "GB", "TB", "PB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  // 999.5 would be shown as 1000.
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, value < 9.95 && unit > 0 ? "%.1f %s" : "%.0f %s", value, kUnits[unit]);
  return text;
}

std::string duration_text(int64_t ms) {
  int64_t minutes = ms / 60000;
  if (ms < 1000) return std::to_string(ms) + " ms";
  if (ms < 10000) {
    return std::to_string(ms / 1000) + "." + std::to_string(ms % 1000 / 100) + " s";
  }
  if (minutes < 1) return std::to_string(ms / 1000) + " s";
  if (minutes < 60) return std::to_string(minutes) + " min";
  if (minutes < 24 * 60) {
    return std::to_string(minutes / 60) + " h " + std::to_string(minutes % 60) + " min";
  }
  return std::to_string(minutes / (24 * 60)) + " d";
}

}  // namespace litefs
