// Nodes whose data directory has no room: they go on, status says what waits for room, and it goes on by itself.
#include <sys/mount.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "system/system_test.h"

using namespace litefs::test;
namespace fs = std::filesystem;

namespace {

constexpr Millis kSoon{20000};
constexpr Millis kPause{20};

// A small disk under a node's data directory, before its first start. The cluster unmounts what is mounted below it.
class SmallDisk {
 public:
  SmallDisk(Node& node, const std::string& size) : ballast_(node.data() + "/ballast") {
    fs::create_directories(node.data());
    REQUIRE(mount("none", node.data().c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0);
  }
  void fill() {
    std::ofstream out(ballast_, std::ios::binary | std::ios::app);
    const std::string piece(4096, 'x');
    while (out.write(piece.data(), 4096).flush()) {
    }
  }
  void make_room() { fs::remove(ballast_); }

 private:
  const std::string ballast_;
};

template <class Condition>
void wait_until(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + kSoon;
  while (!condition()) {
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    std::this_thread::sleep_for(kPause);
  }
}

bool status_says(Cluster& cluster, size_t node, const std::string& text) {
  return cluster.status(node).json.find(text) != std::string::npos;
}

size_t times_logged(const Node& node, const std::string& text) {
  const std::string log = read_text_file(node.log_path());
  size_t times = 0;
  for (size_t at = log.find(text); at != std::string::npos; at = log.find(text, at + 1)) ++times;
  return times;
}

// With a WAL that has room for what comes, so that SQLite commits where the node finds none.
App open_made(Cluster& cluster, const std::string& name) {
  App app = cluster.open(0, name);
  app.sql(
      "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, b); INSERT INTO t(b) "
      "VALUES(randomblob(400000))");
  app.sql("PRAGMA wal_checkpoint(RESTART)");
  return app;
}

void make(Cluster& cluster, const std::string& name) { open_made(cluster, name).close(); }

}  // namespace

TEST_CASE("a primary without room says what is not captured, and captures it when there is some") {
  Cluster cluster(cluster_options(1));
  SmallDisk disk(cluster.node(0), "24m");
  cluster.start_primary();
  make(cluster, "keep");
  App app = open_made(cluster, "app");
  const std::string before = cluster.position(0, "app");
  disk.fill();
  app.sql("INSERT INTO t(b) VALUES(randomblob(100000))");
  wait_until([&] { return status_says(cluster, 0, "not captured yet"); });
  CHECK(status_says(cluster, 0, "No space left"));
  CHECK(cluster.status(0).find("app")->state == "ready");
  CHECK(cluster.status(0).find("app")->position == before);
  disk.make_room();
  wait_until([&] { return !status_says(cluster, 0, "not captured yet"); });
  CHECK(cluster.position(0, "app") != before);
  app.close();
  cluster.check_same("app");
}

TEST_CASE("a primary without room starts, and its databases can be deleted to make some") {
  Cluster cluster(cluster_options(1));
  SmallDisk disk(cluster.node(0), "24m");
  cluster.start_primary();
  make(cluster, "large");
  make(cluster, "keep");
  disk.fill();
  cluster.kill9(0);
  cluster.start(0);
  CHECK(cluster.status(0).find("keep")->state == "ready");
  disk.fill();
  CHECK(cluster.open(0, "new").try_sql("CREATE TABLE t(x, y)").error != 0);
  cluster.run_app({"remove", cluster.node(0).path("large")});
  CHECK(cluster.status(0).find("large") == nullptr);
  cluster.open(0, "new").sql("CREATE TABLE t(x, y)");
  cluster.check_same("new");
  cluster.restart(0);
  CHECK(cluster.status(0).databases.size() == 2);
  cluster.check_same("keep");
}

TEST_CASE("a replica without room says so once and in its status, and takes up when there is some") {
  Cluster cluster(cluster_options(2));
  SmallDisk disk(cluster.node(1), "24m");
  cluster.start_primary();
  cluster.start_replica(1);
  make(cluster, "app");
  cluster.wait_for_equal(kSoon);
  disk.fill();
  App app = cluster.open(0, "app");
  for (int i = 0; i < 5; ++i) app.sql("INSERT INTO t(b) VALUES(randomblob(300000))");
  wait_until([&] { return status_says(cluster, 1, "until there is room"); });
  // Longer than several tries.
  std::this_thread::sleep_for(Millis(3500));
  app.sql("INSERT INTO t(b) VALUES(randomblob(1000))");
  CHECK(status_says(cluster, 1, "until there is room"));
  CHECK(times_logged(cluster.node(1), "can be written again") == 0);
  CHECK(times_logged(cluster.node(1), "cannot take what comes") == 1);
  disk.make_room();
  cluster.wait_for_equal(kSoon);
  CHECK_FALSE(status_says(cluster, 1, "until there is room"));
  app.close();
  cluster.check_same("app");
}
