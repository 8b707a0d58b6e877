// Applications with a node that fork: what a child keeps, and what it can do. (What a connection of before answers in
// it is with the pairs.)
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <signal.h>
#include <sqlite3.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "test.h"
#include "vfs/linked_node.h"

// g++ and clang++ say it each in its own way.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LITEFS_THREAD_SANITIZER
#endif
#elif defined(__SANITIZE_THREAD__)
#define LITEFS_THREAD_SANITIZER
#endif

namespace litefs::test {
namespace {

constexpr Millis kEndSeenMax{5000};  // a primary that only falls silent is given up after 10 s

// The child of a node's process, which is killed at the end. Once its parent is gone no other process can wait for it.
struct Child {
  explicit Child(LinkedNode& node) : pid(std::stoi(node.command("leave-child").at(0))) {}
  ~Child() { kill(pid, SIGKILL); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  bool lives() const { return kill(pid, 0) == 0; }
  // What it has open, as paths.
  std::vector<std::string> open_files() const {
    std::vector<std::string> paths;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
      std::error_code gone;
      paths.push_back(std::filesystem::read_symlink(entry.path(), gone).string());
    }
    return paths;
  }

  const pid_t pid;
};

std::string directory_of_config(const TempDir& dir, const std::string& name) {
  const std::string directory = dir.file(name);
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/litefs.yml")
      << "data:\n  dir: \"" << directory << "/data\"\nhttp:\n  addr: \"127.0.0.1:0\"\n"
      << "lease:\n  type: \"static\"\n  hostname: \"" << name
      << "\"\n  advertise-url: \"http://127.0.0.1:1\"\n  candidate: true\n";
  return directory;
}

TEST_CASE("a child that outlives its killed parent keeps neither data directory, port nor connections") {
  for (const std::string mode : {"WAL", "DELETE"}) {
    CAPTURE(mode);
    TempDir dir;
    LinkedPair pair(dir.path());
    pair.primary().sql("w", "db", "PRAGMA journal_mode=" + mode + "; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    pair.replica().wait("db", pair.primary().position("db"));
    const std::string address = pair.primary().address();
    Child child(pair.primary());
    for (const std::string& path : child.open_files()) {
      CAPTURE(path);
      const bool is_ours = path.find("/data/lock") != std::string::npos ||
                           path.find("/data/meta") != std::string::npos || path.find("inotify") != std::string::npos ||
                           path.find("eventpoll") != std::string::npos;
      CHECK_FALSE(is_ours);
    }
    pair.primary().sql("w", "db", "INSERT INTO t(v) VALUES('after the fork')");
    pair.primary().kill9();
    const auto until = std::chrono::steady_clock::now() + kEndSeenMax;
    bool seen = false;
    while (!seen && std::chrono::steady_clock::now() < until) {
      seen = read_text_file(dir.file("replica/log")).find("connection to the primary lost") != std::string::npos;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    CHECK(seen);
    pair.restart_primary();
    REQUIRE(child.lives());
    CHECK(pair.primary().address() == address);
    CHECK(pair.primary().value("w", "db", "SELECT v FROM t") == "after the fork");
    pair.primary().sql("w", "db", "INSERT INTO t(v) VALUES(1)");
    pair.check_same("db");
    CHECK(child.lives());
    pair.stop();
  }
}

TEST_CASE("a replica whose killed process has left a child is taken over, too") {
  TempDir dir;
  LinkedPair pair(dir.path());
  pair.primary().sql("w", "db", "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  pair.replica().wait("db", pair.primary().position("db"));
  pair.replica().value("r", "db", "SELECT count(*) FROM t");
  Child child(pair.replica());
  pair.replica().kill9();
  pair.restart_replica();
  pair.primary().sql("w", "db", "INSERT INTO t(v) VALUES(1); PRAGMA wal_checkpoint(TRUNCATE)");
  pair.check_same("db");
  CHECK(child.lives());
  pair.stop();
}

TEST_CASE("the end of a child leaves the parent's node as it is") {
  TempDir dir;
  LinkedPair pair(dir.path());
  pair.primary().sql("w", "db", "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  for (int i = 0; i < 5; ++i) {
    pair.primary().sql("w", "db", "INSERT INTO t(v) VALUES(1)");
    pair.primary().command("end-child");
    pair.replica().command("end-child");
    pair.check_same("db");
  }
  CHECK(read_text_file(dir.file("replica/log")).find("connection to the primary lost") == std::string::npos);
  pair.stop();
}

TEST_CASE("a child opens a node of its own, and the parent goes on with its own") {
#ifdef LITEFS_THREAD_SANITIZER
  MESSAGE("skipped: the thread sanitizer allows no new threads in the child of a process with threads");
#else
  TempDir dir;
  LinkedNode node(directory_of_config(dir, "parent"));
  const std::string other = directory_of_config(dir, "child") + "/litefs.yml";
  for (int round = 1; round <= 3; ++round) {
    node.sql("w", "db", "PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t(v)");
    INFO(read_text_file(dir.file("parent/log")));
    const std::vector<std::string> rows =
        node.command("child-node " + other +
                     " w PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t(v); INSERT INTO t VALUES(1); "
                     "SELECT count(*) FROM t");
    REQUIRE(rows.size() == 4);
    CHECK(rows[0] == std::to_string(SQLITE_BUSY) + " 0");
    CHECK(rows[2] == std::to_string(round));
    CHECK(rows[3] == std::to_string(round + 2));
    node.sql("w", "db", "INSERT INTO t VALUES('still here')");
    CHECK(node.value("w", "db", "SELECT count(*) FROM t") == std::to_string(round));
    CHECK(node.position("db").find(" " + std::to_string(round + 2) + " ") != std::string::npos);
  }
  // On the parent's data directory it is a guest of the parent.
  CHECK(node.try_command("child-node " + dir.file("parent/litefs.yml") + " w INSERT INTO t VALUES(2)").error == 0);
  CHECK(node.value("w", "db", "SELECT max(v = 2) FROM t") == "1");
  node.sql("w", "db", "INSERT INTO t VALUES('still here')");
  node.stop();
#endif
}

}  // namespace
}  // namespace litefs::test
