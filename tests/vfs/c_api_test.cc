// The C interface of a node: options, handles, waits and callbacks. What SQLite does with it: tests/vfs.
#include "node/c_api.h"

#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <thread>

#include "litefs/litefs.h"
#include "litefs/litefs.hpp"
#include "test.h"

namespace litefs::test {
namespace {

constexpr unsigned kSoonMs = 10'000;

litefs_options primary_options(const std::string& data_dir) {
  litefs_options options = LITEFS_OPTIONS_INIT;
  options.data_dir = data_dir.c_str();
  options.listen = "127.0.0.1:0";
  options.candidate = 1;
  return options;
}

litefs_options replica_options(const std::string& data_dir, const std::string& primary_url) {
  litefs_options options = LITEFS_OPTIONS_INIT;
  options.data_dir = data_dir.c_str();
  options.listen = "127.0.0.1:0";
  options.hostname = "second";
  options.primary_url = primary_url.c_str();
  return options;
}

// Closed by the destructor.
struct Handle {
  litefs_node* node = nullptr;
  ~Handle() { litefs_close(node); }
};

// A database as an application on a mount would have made it: the file is there, the node adopts it.
void adopt(litefs_node* node, const std::string& name, int rows, const std::string& directory) {
  const std::string path = directory + "/made";
  std::filesystem::remove(path);
  sqlite3* db = nullptr;
  REQUIRE(sqlite3_open(path.c_str(), &db) == SQLITE_OK);
  REQUIRE(sqlite3_exec(db, "CREATE TABLE t(v)", nullptr, nullptr, nullptr) == SQLITE_OK);
  for (int i = 0; i < rows; ++i) {
    REQUIRE(sqlite3_exec(db, "INSERT INTO t VALUES(randomblob(500))", nullptr, nullptr, nullptr) == SQLITE_OK);
  }
  sqlite3_close(db);
  std::shared_ptr<Database> database = node->member()->hosted()->node().create_database(name).value();
  Status adopted = database->adopt_copy_of(path);
  INFO((adopted.ok() ? "" : adopted.error().message()));
  REQUIRE(adopted.ok());
}

TEST_CASE("options that are wrong are refused, each with its name") {
  TempDir dir;
  const std::string data = dir.file("data");
  struct Wrong {
    const char* part;
    std::function<void(litefs_options&)> make;
  };
  const std::vector<Wrong> wrongs = {
      {"size", [](litefs_options& o) { o.size = 4; }},
      {"data_dir", [](litefs_options& o) { o.data_dir = nullptr; }},
      {"data_dir", [](litefs_options& o) { o.data_dir = ""; }},
      {"listen", [](litefs_options& o) { o.listen = "nowhere"; }},
      {"hostname", [](litefs_options& o) { o.hostname = "a b"; }},
      {"primary_url", [](litefs_options& o) { o.candidate = 0; }},
      {"primary_url", [](litefs_options& o) { o.primary_url = "ftp://x"; }},
      {"log_level", [](litefs_options& o) { o.log_level = 9; }},
      {"config_path", [](litefs_options& o) { o.config_path = "/nowhere/litefs.yml"; }},
  };
  for (const Wrong& wrong : wrongs) {
    CAPTURE(wrong.part);
    litefs_options options = primary_options(data);
    wrong.make(options);
    Handle handle;
    CHECK(litefs_open(&options, &handle.node) == LITEFS_INVALID);
    REQUIRE(handle.node);
    CHECK(std::string(litefs_message(handle.node)).find(wrong.part) != std::string::npos);
    int role;
    CHECK(litefs_role(handle.node, &role) == LITEFS_INVALID);
  }
  litefs_options options = LITEFS_OPTIONS_INIT;
  CHECK(litefs_open(&options, nullptr) == LITEFS_INVALID);
  Handle handle;
  CHECK(litefs_open(nullptr, &handle.node) == LITEFS_INVALID);
  CHECK(litefs_role(nullptr, nullptr) == LITEFS_INVALID);
  CHECK(litefs_close(nullptr) == LITEFS_OK);
}

TEST_CASE("a node opens by a configuration file that needs no mount") {
  TempDir dir;
  std::ofstream(dir.file("litefs.yml")) << "data:\n  dir: \"" << dir.file("data") << "\"\n"
                                        << "http:\n  addr: \"127.0.0.1:0\"\n"
                                        << "lease:\n  type: static\n  hostname: here\n  candidate: true\n"
                                        << "log:\n  level: debug\n";
  const std::string path = dir.file("litefs.yml");
  litefs_options options = LITEFS_OPTIONS_INIT;
  options.config_path = path.c_str();
  std::atomic<int> lines{0};
  options.log_context = &lines;
  options.log = [](void* context, int level, const char*) {
    if (level >= LITEFS_LOG_DEBUG) ++*static_cast<std::atomic<int>*>(context);
  };
  Handle handle;
  const int opened = litefs_open(&options, &handle.node);
  INFO(litefs_message(handle.node));
  REQUIRE(opened == LITEFS_OK);
  int role = -1;
  CHECK(litefs_role(handle.node, &role) == LITEFS_OK);
  CHECK(role == LITEFS_ROLE_PRIMARY);
  char* address = nullptr;
  REQUIRE(litefs_address(handle.node, &address) == LITEFS_OK);
  CHECK(std::string(address).rfind("127.0.0.1:", 0) == 0);
  CHECK(std::string(address) != "127.0.0.1:0");
  litefs_free(address);
  char* primary = nullptr;
  REQUIRE(litefs_primary(handle.node, &primary) == LITEFS_OK);
  CHECK(std::string(primary).empty());
  litefs_free(primary);
  CHECK(litefs_promote(handle.node) == LITEFS_UNSUPPORTED);
  CHECK(std::string(litefs_message(handle.node)).find("not supported by this lease") != std::string::npos);
  CHECK(litefs_handoff(handle.node, nullptr) == LITEFS_UNSUPPORTED);
  litefs_position position;
  CHECK(litefs_get_position(handle.node, "none", &position) == LITEFS_NOT_FOUND);
  CHECK(litefs_close(std::exchange(handle.node, nullptr)) == LITEFS_OK);
  CHECK(lines > 0);
}

TEST_CASE("a data directory that this process has open already is refused") {
  TempDir dir;
  const std::string data = dir.file("data");
  litefs_options options = primary_options(data);
  Handle first, second;
  REQUIRE(litefs_open(&options, &first.node) == LITEFS_OK);
  CHECK(litefs_open(&options, &second.node) == LITEFS_BUSY);
  const std::string message = litefs_message(second.node);
  CHECK(message.find("pid " + std::to_string(getpid())) != std::string::npos);
  CHECK(message.find(data) != std::string::npos);
}

TEST_CASE("databases, positions and waits of a primary and its replica") {
  TempDir dir;
  const std::string primary_data = dir.file("primary"), replica_data = dir.file("replica");
  OpenNode primary(primary_options(primary_data));
  const std::string url = "http://" + primary.address();
  OpenNode replica(replica_options(replica_data, url));
  CHECK(replica.role() == LITEFS_ROLE_REPLICA);
  CHECK_FALSE(replica.wait("a.db", {0, 1, 0}, std::chrono::milliseconds(1)));

  adopt(primary.handle(), "a.db", 20, dir.path());
  const litefs_position position = primary.position("a.db");
  CHECK(position.txid == 1);
  REQUIRE(replica.wait("a.db", position, std::chrono::milliseconds(kSoonMs)));
  const std::vector<DatabaseEntry> databases = replica.databases();
  REQUIRE(databases.size() == 1);
  CHECK(databases[0].name == "a.db");
  CHECK(databases[0].page_size == 4096);
  CHECK(databases[0].position.checksum == position.checksum);
  CHECK(databases[0].log_bytes > 0);
  litefs_position other = position;
  other.checksum ^= 1;
  CHECK(litefs_wait_position(replica.handle(), "a.db", &other, 100) == LITEFS_DIVERGED);
  CHECK(litefs_wait_position(replica.handle(), "a.db", nullptr, 0) == LITEFS_INVALID);
  litefs_position any{};
  CHECK(litefs_wait_position(replica.handle(), "a.db", &any, 0) == LITEFS_OK);
  CHECK(litefs_wait_position(replica.handle(), "none", &any, 0) == LITEFS_TIMED_OUT);
  CHECK(litefs_wait_position(replica.handle(), "a.db-wal", &any, kSoonMs) == LITEFS_INVALID);
  CHECK(litefs_wait_position(replica.handle(), "../a.db", &any, kSoonMs) == LITEFS_INVALID);
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(kSoonMs);
  while (!replica.lag() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  CHECK(replica.lag().has_value());
  CHECK(primary.lag() == std::chrono::milliseconds(0));
  CHECK_THROWS_AS(replica.promote(), NodeError);
  CHECK(replica.replicas().empty());
  // The replica's word that it has received it comes a moment after it is there.
  std::vector<ReplicaEntry> replicas = primary.replicas();
  while ((replicas.empty() || replicas[0].txid != 1) && std::chrono::steady_clock::now() < until) {
    std::this_thread::yield();
    replicas = primary.replicas();
  }
  REQUIRE(replicas.size() == 1);
  CHECK(replicas[0].host_name == "second");
  CHECK(replicas[0].address.rfind("127.0.0.1:", 0) == 0);
  CHECK(replicas[0].connected_since_ms > 0);
  CHECK(replicas[0].database == "a.db");
  CHECK(replicas[0].txid == 1);
  CHECK(replicas[0].behind_txids == 0);
  CHECK(litefs_list_replicas(primary.handle(), nullptr, nullptr) == LITEFS_INVALID);
  replica.close();
  primary.close();
}

TEST_CASE("a replica's callback is told of each position once, from the first transaction on") {
  TempDir dir;
  const std::string primary_data = dir.file("primary"), replica_data = dir.file("replica");
  OpenNode primary(primary_options(primary_data));
  const std::string url = "http://" + primary.address();
  OpenNode replica(replica_options(replica_data, url));
  std::mutex mutex;
  std::condition_variable called;
  std::vector<litefs_uint64> told;
  replica.on_transaction([&](const std::string&, const litefs_position& position) {
    std::lock_guard lock(mutex);
    told.push_back(position.txid);
    called.notify_all();
  });
  adopt(primary.handle(), "a.db", 200, dir.path());
  REQUIRE(replica.wait("a.db", primary.position("a.db"), std::chrono::milliseconds(kSoonMs)));
  {
    std::unique_lock lock(mutex);
    CHECK(called.wait_for(lock, std::chrono::milliseconds(kSoonMs), [&] { return !told.empty(); }));
  }
  replica.on_transaction(nullptr);
  CHECK(told == std::vector<litefs_uint64>{1});
}

TEST_CASE("callbacks tell of the role and of transactions, and of nothing once they are taken back") {
  TempDir dir;
  const std::string data = dir.file("data");
  OpenNode node(primary_options(data));
  std::mutex mutex;
  std::condition_variable told;
  int role = -1;
  std::string database;
  litefs_uint64 txid = 0;
  int close_result = -1;
  node.on_role([&](int now, const std::string&) {
    std::lock_guard lock(mutex);
    role = now;
    close_result = litefs_close(node.handle());
    told.notify_all();
  });
  node.on_transaction([&](const std::string& name, const litefs_position& position) {
    std::lock_guard lock(mutex);
    database = name;
    txid = position.txid;
    told.notify_all();
  });
  adopt(node.handle(), "x", 1, dir.path());
  {
    std::unique_lock lock(mutex);
    CHECK(told.wait_for(lock, std::chrono::milliseconds(kSoonMs), [&] { return role >= 0 && txid == 1; }));
  }
  CHECK(role == LITEFS_ROLE_PRIMARY);
  CHECK(close_result == LITEFS_BUSY);
  CHECK(database == "x");
  node.on_transaction(nullptr);
  adopt(node.handle(), "y", 1, dir.path());
  CHECK(node.position("y").txid == 1);
  std::lock_guard lock(mutex);
  CHECK(database == "x");
}

TEST_CASE("a forked process is told that it cannot use the node") {
  TempDir dir;
  const std::string data = dir.file("data");
  litefs_options options = primary_options(data);
  Handle handle;
  REQUIRE(litefs_open(&options, &handle.node) == LITEFS_OK);
  const pid_t child = fork();
  if (child == 0) {
    int role;
    litefs_position position;
    const bool right = litefs_role(handle.node, &role) == LITEFS_FORKED &&
                       litefs_get_position(handle.node, "x", &position) == LITEFS_FORKED &&
                       litefs_close(handle.node) == LITEFS_FORKED && *litefs_message(handle.node) != '\0';
    _exit(right ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  int role = -1;
  CHECK(litefs_role(handle.node, &role) == LITEFS_OK);
}

TEST_CASE("a forked process that lives on does not keep the data directory from the next node") {
  TempDir dir;
  const std::string data = dir.file("data");
  litefs_options options = primary_options(data);
  Handle first, second;
  REQUIRE(litefs_open(&options, &first.node) == LITEFS_OK);
  int lifeline[2];
  REQUIRE(pipe(lifeline) == 0);
  const pid_t child = fork();
  if (child == 0) {
    close(lifeline[1]);
    char end;
    _exit(read(lifeline[0], &end, 1) == 0 ? 0 : 1);
  }
  REQUIRE(litefs_close(std::exchange(first.node, nullptr)) == LITEFS_OK);
  CHECK(litefs_open(&options, &second.node) == LITEFS_OK);
  close(lifeline[1]);
  close(lifeline[0]);
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

}  // namespace
}  // namespace litefs::test
