// Nodes with a mount and nodes in applications are of one kind: they replicate to each other in any mix.
#include <unistd.h>

#include "system/system_test.h"
#include "vfs/linked_node.h"

using namespace litefs::test;

namespace {

constexpr Millis kSoon{30000};

// "TXID/CHECKSUM" in hex, as a mount shows it, to "0 TXID CHECKSUM" in decimal, as applications with a node take it.
std::string decimal(const std::string& position) {
  const size_t slash = position.find('/');
  return "0 " + std::to_string(std::stoull(position.substr(0, slash), nullptr, 16)) + " " +
         std::to_string(std::stoull(position.substr(slash + 1), nullptr, 16));
}

// What LinkedNode::content says, of a database on a mount.
std::string content_on_mount(Cluster& cluster, size_t node, const std::string& database) {
  const std::string rows = cluster.scratch("rows"), pages = cluster.scratch("pages");
  cluster.run_app({"dump", cluster.node(node).path(database), rows});
  cluster.run_app({"pages", cluster.node(node).path(database), pages});
  return std::to_string(pages_checksum(pages)) + " " + run_command({"/usr/bin/sha256sum", rows}, kSoon).substr(0, 64);
}

void wait_on_mount(Cluster& cluster, size_t node, const std::string& database, const std::string& position) {
  const std::string wanted = position.substr(position.find(' ') + 1);
  Deadline deadline(kSoon);
  std::string seen;
  while (!deadline.passed()) {
    const NodeStatus status = cluster.status(node);
    const DatabaseStatus* found = status.find(database);
    seen = found ? decimal(found->position) : "none";
    if (found && found->state == "ready" && seen.substr(2) == wanted) return;
    usleep(10000);
  }
  throw std::runtime_error(database + " is at " + seen + " on the mount, not at " + position);
}

std::string seconds() { return std::to_string(environment_number("LITEFS_TEST_SECONDS", 3)); }

}  // namespace

TEST_CASE("a mount is the primary of two applications") {
  for (const std::string mode : {"wal", "delete"}) {
    CAPTURE(mode);
    Cluster cluster(cluster_options(3));
    cluster.start_primary();
    LinkedNode first(cluster.node(1).directory()), second(cluster.node(2).directory());
    const std::string path = cluster.node(0).path("db");
    cluster.run_app({"init", path, "4096", mode});
    for (LinkedNode* node : {&first, &second}) node->wait("db", decimal(cluster.position(0, "db")));
    std::vector<std::unique_ptr<Process>> writers;
    for (int i = 0; i < 2; ++i) {
      writers.push_back(
          cluster.spawn_app({"write", path, std::to_string(i), std::to_string(test_seed()), seconds(),
                             mode == "wal" ? "mixed" : "rollback", cluster.scratch("committed" + std::to_string(i))}));
    }
    for (LinkedNode* node : {&first, &second}) {
      node->command("start read db 1 " + seconds());
      node->command("start visit db 2 " + seconds());
    }
    for (auto& writer : writers) CHECK(writer->join(kSoon).ok());
    for (LinkedNode* node : {&first, &second}) {
      App::Answer joined = node->try_command("join");
      INFO(joined.message);
      CHECK(joined.error == 0);
    }
    const std::string content = content_on_mount(cluster, 0, "db");
    for (LinkedNode* node : {&first, &second}) {
      node->wait("db", decimal(cluster.position(0, "db")));
      CHECK(node->content("db") == content);
      CHECK(node->try_command("sql w db DELETE FROM counter").error == 8);  // SQLITE_READONLY
    }
    first.stop();
    second.stop();
  }
}

TEST_CASE("an application is the primary of a mount and of another application") {
  for (const std::string mode : {"wal", "delete"}) {
    CAPTURE(mode);
    Cluster cluster(cluster_options(3));
    LinkedNode primary(cluster.node(0).directory());
    cluster.start_replica(1);
    LinkedNode second(cluster.node(2).directory());
    primary.command("start init db 4096 " + mode);
    primary.command("join");
    wait_on_mount(cluster, 1, "db", primary.position("db"));
    second.wait("db", primary.position("db"));
    for (int i = 0; i < 2; ++i) {
      primary.command("start write db " + std::to_string(i) + " " + std::to_string(test_seed()) + " " + seconds() +
                      " " + (mode == "wal" ? "mixed " : "rollback ") +
                      cluster.scratch("committed" + std::to_string(i)));
    }
    second.command("start visit db 2 " + seconds());
    std::unique_ptr<Process> reader = cluster.spawn_app({"read", cluster.node(1).path("db"), "3", seconds()});
    CHECK(reader->join(kSoon).ok());
    for (LinkedNode* node : {&primary, &second}) {
      App::Answer joined = node->try_command("join");
      INFO(joined.message);
      CHECK(joined.error == 0);
    }
    const std::string position = primary.position("db");
    wait_on_mount(cluster, 1, "db", position);
    second.wait("db", position);
    const std::string content = primary.content("db");
    CHECK(content_on_mount(cluster, 1, "db") == content);
    CHECK(second.content("db") == content);
    second.stop();
    cluster.stop(1);
    primary.stop();
  }
}
