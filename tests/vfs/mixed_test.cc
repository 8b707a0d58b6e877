// Nodes with a mount and nodes in applications are of one kind: they replicate to each other in any mix.
#include <signal.h>
#include <unistd.h>

#include <random>

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

TEST_CASE("an application is told that the data directory is a mount's") {
  Cluster cluster(cluster_options(1));
  cluster.start_primary();
  try {
    LinkedNode application(cluster.node(0).directory(), "application");
    FAIL("it has opened the data directory of a mount");
  } catch (const std::runtime_error& error) {
    const std::string said = error.what();
    INFO(said);
    CHECK(said.find(cluster.node(0).data()) != std::string::npos);
    CHECK(said.find("pid " + std::to_string(cluster.node(0).process()->pid())) != std::string::npos);
  }
  cluster.run_app({"init", cluster.node(0).path("db"), "4096", "wal"});
}

namespace {

// Node 0, which is the primary, and node 1 and 2, of which `mount` has a mount, and the others are applications.
class MixedKillTest {
 public:
  MixedKillTest(size_t mount, const std::string& mode) : mount_(mount), wal_(mode == "wal"), random_(test_seed()) {
    for (size_t i = 0; i < 3; ++i) start(i);
    if (mount_ == 0) {
      cluster_.run_app({"init", cluster_.node(0).path("db"), "4096", mode});
    } else {
      applications_[0]->command("start init db 4096 " + mode);
      applications_[0]->command("join");
    }
    check_same();
  }

  // Somebody is killed while they work, and comes back.
  void kill_one() {
    start_load();
    wait_for_commit(files_);
    usleep(static_cast<useconds_t>(100'000 + random_() % 400'000));
    const size_t victim = random_() % 3;
    kill9(victim);
    usleep(static_cast<useconds_t>(random_() % 200'000));
    stop_load(victim);
    start(victim);
    // Its applications of before may have the database open for a moment more.
    if (victim == mount_) cluster_.wait_for_state(victim, "db", "ready", kSoon);
    check_same();
    CHECK(max_committed() >= told());
  }
  int64_t told() const { return last_committed(files_); }
  void stop() {
    for (auto& application : applications_) {
      if (application) application->stop();
    }
  }

 private:
  void start(size_t node) {
    if (node == mount_) {
      cluster_.start(node);
    } else {
      applications_[node] = std::make_unique<LinkedNode>(cluster_.node(node).directory());
    }
  }
  void kill9(size_t node) {
    if (node == mount_) {
      cluster_.kill9(node);
    } else {
      applications_[node]->kill9();
    }
  }
  void start_load() {
    for (int i = 0; i < 2; ++i) {
      files_.push_back(cluster_.scratch("committed" + std::to_string(files_.size())));
      const std::vector<std::string> writer = {std::to_string(files_.size()), std::to_string(random_() % 9999), "0",
                                               wal_ ? "mixed" : "rollback", files_.back()};
      if (mount_ == 0) {
        std::vector<std::string> words = {"write", cluster_.node(0).path("db")};
        words.insert(words.end(), writer.begin(), writer.end());
        programs_.push_back(cluster_.spawn_app(words));
      } else {
        std::string line = "start write db";
        for (const std::string& word : writer) line += " " + word;
        applications_[0]->command(line);
      }
    }
    if (mount_ != 0) programs_.push_back(cluster_.spawn_app({"read", cluster_.node(mount_).path("db"), "3", "0"}));
    for (size_t i = 1; i < 3; ++i) {
      if (applications_[i]) applications_[i]->command("start read db 4 0");
    }
  }
  // Whose node was killed may have had errors; nobody hangs.
  void stop_load(size_t victim) {
    for (auto& program : programs_) {
      program->signal(SIGTERM);
      const ExitStatus status = program->join(kSoon);
      const bool of_victim = victim == mount_ && (status.code == 3 || status.signal == SIGBUS);
      CHECK_MESSAGE((status.ok() || of_victim), status.text());
    }
    programs_.clear();
    for (size_t i = 0; i < 3; ++i) {
      if (!applications_[i] || i == victim) continue;
      App::Answer ended = applications_[i]->try_command("end");
      INFO(ended.message);
      CHECK(ended.error == 0);
    }
  }
  std::string position() {
    return mount_ == 0 ? decimal(cluster_.position(0, "db")) : applications_[0]->position("db");
  }
  std::string content(size_t node) {
    return node == mount_ ? content_on_mount(cluster_, node, "db") : applications_[node]->content("db");
  }
  void check_same() {
    const std::string wanted = position();
    for (size_t i = 1; i < 3; ++i) {
      if (i == mount_) {
        wait_on_mount(cluster_, i, "db", wanted);
      } else {
        applications_[i]->wait("db", wanted);
      }
    }
    const std::string first = content(0);
    CHECK(content(1) == first);
    CHECK(content(2) == first);
  }
  int64_t max_committed() {
    const std::string query = "SELECT ifnull(max(n), 0) FROM entry";
    if (mount_ != 0) return std::stoll(applications_[0]->value("c", "db", query));
    App app = cluster_.open(0, "db");
    const int64_t committed = std::stoll(app.value(query));
    app.close();
    return committed;
  }

  const size_t mount_;
  const bool wal_;
  std::mt19937_64 random_;
  Cluster cluster_{cluster_options(3)};
  std::unique_ptr<LinkedNode> applications_[3];
  std::vector<std::unique_ptr<Process>> programs_;
  std::vector<std::string> files_;
};

}  // namespace

TEST_CASE("nodes of both kinds are killed under load, and nothing that was committed is lost") {
  for (const size_t mount : {0, 1}) {
    for (const std::string mode : {"wal", "delete"}) {
      CAPTURE(mount);
      CAPTURE(mode);
      MixedKillTest test(mount, mode);
      for (int64_t i = 0; i < environment_number("LITEFS_KILLS", 3); ++i) {
        CAPTURE(i);
        test.kill_one();
      }
      test.stop();
    }
  }
}
