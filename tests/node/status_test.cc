#include "node/status.h"

#include <sqlite3.h>

#include "node/json_writer.h"
#include "test.h"

namespace litefs {
namespace {

NodeStatus primary() {
  NodeStatus status;
  status.version = "0.1.0";
  status.role = NodeRole::kPrimary;
  status.hostname = "a";
  status.node_id = {0x11};
  status.cluster_id = 0x22;
  status.epoch = {3};
  status.mount = "/litefs";
  status.addr = ":20202";
  DatabaseStatus db;
  db.name = "app.db";
  db.id = {0xdeadbeef};
  db.page_size = 4096;
  db.size_bytes = 3 << 20;
  db.position = {{3}, {0x1f}, {0xfedcba9876543210}};
  db.state = DatabaseState::kReady;
  db.log_bytes = 2048;
  status.databases.push_back(db);
  PeerStatus peer;
  peer.node_id = {0x33};
  peer.hostname = "b";
  peer.address = "10.0.0.2:4711";
  peer.connected_since_ms = 1'000'000;
  peer.databases = {{"app.db", {0x1d}, 2}};
  status.peers.push_back(peer);
  return status;
}

NodeStatus loading_replica() {
  NodeStatus status = primary();
  status.role = NodeRole::kReplica;
  status.peers.clear();
  status.primary = PrimaryStatus{"p", "http://p:20202", true};
  status.lag_ms = 12;
  DatabaseStatus& db = status.databases[0];
  db.state = DatabaseState::kLoading;
  db.detail = "first copy";
  db.lag_ms = 12;
  db.progress = LoadProgress{50 << 20, 200 << 20, 100 << 20, 2};
  return status;
}

// SQLite's JSON functions are the judge: what they cannot read is no JSON.
std::string json_query(const std::string& json, const std::string& expression) {
  sqlite3* db;
  REQUIRE(sqlite3_open(":memory:", &db) == SQLITE_OK);
  sqlite3_stmt* statement;
  REQUIRE(sqlite3_prepare_v2(db, ("SELECT " + expression).c_str(), -1, &statement, nullptr) == SQLITE_OK);
  sqlite3_bind_text(statement, 1, json.data(), static_cast<int>(json.size()), SQLITE_TRANSIENT);
  REQUIRE_MESSAGE(sqlite3_step(statement) == SQLITE_ROW, sqlite3_errmsg(db));
  const unsigned char* text = sqlite3_column_text(statement, 0);
  std::string value = text ? reinterpret_cast<const char*>(text) : "NULL";
  sqlite3_finalize(statement);
  sqlite3_close(db);
  return value;
}

std::string at(const std::string& json, const std::string& path) {
  return json_query(json, "json_extract(?1, '" + path + "')");
}

TEST_CASE("the JSON is the documented one, key by key") {
  std::string json = status_json(primary());
  CHECK(json_query(json, "json_valid(?1)") == "1");
  CHECK(json_query(json, "(SELECT group_concat(key) FROM json_each(?1))") ==
        "version,role,hostname,node_id,cluster_id,epoch,mount,addr,primary,lag_ms,databases,peers");
  CHECK(json_query(json, "(SELECT group_concat(key) FROM json_each(?1, '$.databases[0]'))") ==
        "name,id,page_size,size_bytes,epoch,txid,checksum,position,state,detail,lag_ms,log_bytes,progress");
  CHECK(json_query(json, "(SELECT group_concat(key) FROM json_each(?1, '$.peers[0]'))") ==
        "node_id,hostname,address,connected_since_ms,databases");
  CHECK(at(json, "$.role") == "primary");
  CHECK(at(json, "$.node_id") == "0000000000000011");
  CHECK(at(json, "$.epoch") == "3");
  CHECK(json_query(json, "json_type(?1, '$.primary')") == "null");
  CHECK(json_query(json, "json_type(?1, '$.lag_ms')") == "null");
  CHECK(at(json, "$.databases[0].txid") == "000000000000001f");
  CHECK(at(json, "$.databases[0].position") == "000000000000001f/fedcba9876543210");
  CHECK(at(json, "$.databases[0].state") == "ready");
  CHECK(at(json, "$.peers[0].databases[0].behind_txids") == "2");
}

TEST_CASE("a replica's JSON has its primary, its lag and its progress") {
  std::string json = status_json(loading_replica());
  CHECK(at(json, "$.role") == "replica");
  CHECK(at(json, "$.primary.url") == "http://p:20202");
  CHECK(json_query(json, "json_type(?1, '$.primary.connected')") == "true");
  CHECK(at(json, "$.lag_ms") == "12");
  CHECK(at(json, "$.databases[0].progress.total_bytes") == std::to_string(200 << 20));
  CHECK(at(json, "$.databases[0].progress.eta_s") == "2");
  CHECK(json_query(json, "json_array_length(?1, '$.peers')") == "0");
}

TEST_CASE("any bytes in a name still make JSON") {
  NodeStatus status = primary();
  for (int byte = 0; byte < 256; ++byte) {
    status.databases[0].name = std::string("x") + static_cast<char>(byte) + "y";
    std::string json = status_json(status);
    CAPTURE(byte);
    REQUIRE(json_query(json, "json_valid(?1)") == "1");
    if (byte > 0 && byte < 128) REQUIRE(at(json, "$.databases[0].name") == status.databases[0].name);
  }
  // Overlong, surrogate, beyond the last character, cut short; and two that are right.
  for (std::string bad : {"\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    JsonWriter json;
    json.value(bad);
    CHECK(json.take().find("\\ufffd") == 1);
  }
  JsonWriter json;
  json.value("\u20ac\U0001f600");
  CHECK(json.take() == "\"\u20ac\U0001f600\"\n");
}

TEST_CASE("the text says who is behind and what is loading") {
  CHECK(status_text(primary(), 1'090'000) ==
        "a is the primary\n"
        "  mount /litefs   address :20202   epoch 3   version 0.1.0\n"
        "  node 0000000000000011   cluster 0000000000000022\n"
        "\n"
        "DATABASE  SIZE    POSITION                           STATE  LAG  LOG\n"
        "app.db    3.0 MB  000000000000001f/fedcba9876543210  ready  -    2.0 KB\n"
        "\n"
        "REPLICA  ADDRESS        CONNECTED  BEHIND\n"
        "b        10.0.0.2:4711  1 min      app.db 2 tx\n");
  NodeStatus in_process = primary();
  in_process.mount.clear();
  CHECK(status_text(in_process, 0).find("\n  no mount   address") != std::string::npos);
  CHECK(status_text(loading_replica(), 0) ==
        "a is a replica of p (http://p:20202), lag 12 ms\n"
        "  mount /litefs   address :20202   epoch 3   version 0.1.0\n"
        "  node 0000000000000011   cluster 0000000000000022\n"
        "\n"
        "DATABASE  SIZE    POSITION                           STATE    LAG    LOG\n"
        "app.db    3.0 MB  000000000000001f/fedcba9876543210  loading  12 ms  2.0 KB\n"
        "  app.db: 50 MB of 200 MB (25 %), 100 MB/s, 2.0 s left\n"
        "  app.db: first copy\n");
}

TEST_CASE("the text of a node without databases, replicas or a connection") {
  NodeStatus status = primary();
  status.databases.clear();
  status.peers.clear();
  std::string text = status_text(status, 0);
  CHECK(text.find("\nno databases\n\nno replica is connected\n") != std::string::npos);
  status = loading_replica();
  status.primary->connected = false;
  status.primary->hostname = "";
  status.lag_ms.reset();
  CHECK(status_text(status, 0).rfind("a is a replica, not connected to http://p:20202\n", 0) == 0);
}

TEST_CASE("names cannot steer the terminal") {
  NodeStatus status = primary();
  status.databases[0].name = "x\x1b[2J\n";
  status.peers[0].hostname = "\r\x7f";
  std::string text = status_text(status, 0);
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK(text.find('\r') == std::string::npos);
  CHECK(text.find("x?[2J?") != std::string::npos);
}

TEST_CASE("a request is answered in the form it asks for") {
  CHECK(status_reply(primary(), "json\n", 0) == status_json(primary()));
  CHECK(status_reply(primary(), "text", 0) == status_text(primary(), 0));
  NodeStatus starting = primary();
  starting.role = NodeRole::kStarting;
  CHECK(status_reply(starting, "json", 0) == "starting\n" + status_json(starting));
  CHECK(status_reply(primary(), "GET / HTTP/1.1\r\n", 0).rfind("error: ", 0) == 0);
}

TEST_CASE("sizes and durations have few digits") {
  CHECK(size_text(0) == "0 B");
  CHECK(size_text(999) == "999 B");
  CHECK(size_text(1023) == "1.0 KB");
  CHECK(size_text(1536) == "1.5 KB");
  CHECK(size_text(10'189) == "10 KB");
  CHECK(size_text(1'048'575) == "1.0 MB");
  CHECK(size_text(uint64_t{3} << 40) == "3.0 TB");
  CHECK(size_text(~uint64_t{0}) == "16384 PB");
  CHECK(duration_text(0) == "0 ms");
  CHECK(duration_text(999) == "999 ms");
  CHECK(duration_text(3456) == "3.4 s");
  CHECK(duration_text(59'999) == "59 s");
  CHECK(duration_text(300'000) == "5 min");
  CHECK(duration_text(7'800'000) == "2 h 10 min");
  CHECK(duration_text(3LL * 86'400'000) == "3 d");
}

}  // namespace
}  // namespace litefs
