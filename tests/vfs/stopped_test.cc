// The process that runs the node is stopped (SIGSTOP, a debugger, a frozen container), and not dead: what the others
// on its data directory get, and when.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <signal.h>
#include <sqlite3.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "test.h"
#include "vfs/linked_node.h"

namespace litefs::test {
namespace {

constexpr Millis kEnd{60000};

std::unique_ptr<Process> spawn_application(const std::string& directory) {
  SpawnOptions options;
  options.argv = {getenv("LITEFS_LINKED_APP"), directory + "/litefs.yml"};
  options.error_path = directory + "/late-log";
  return Process::spawn(options);
}

TEST_CASE("while the process that runs the node is stopped nothing is waited for without end") {
  TempDir dir;
  LinkedPair pair(dir.path());
  LinkedNode& host = pair.primary();
  host.sql("w", "db", "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  std::unique_ptr<LinkedNode> guest = pair.guest("primary", "guest"), leaving = pair.guest("primary", "leaving");
  for (LinkedNode* node : {guest.get(), leaving.get()}) node->sql("c", "db", "INSERT INTO t(v) VALUES(1)");
  host.process().signal(SIGSTOP);
  // Who is starting can be ended as ever.
  std::unique_ptr<Process> starting = spawn_application(dir.file("primary"));
  std::unique_ptr<Process> interrupted = spawn_application(dir.file("primary"));
  usleep(500'000);
  interrupted->signal(SIGTERM);
  CHECK(interrupted->join(kEnd).signal == SIGTERM);
  // Neither reading nor a commit in the WAL needs the node.
  guest->sql("c", "db", "INSERT INTO t(v) VALUES(2)");
  CHECK(guest->value("c", "db", "SELECT count(*) FROM t") == "3");
  const App::Answer opened = guest->try_command("sql d db SELECT count(*) FROM t");
  CHECK(opened.error == SQLITE_BUSY);
  const std::string host_pid = "process " + std::to_string(host.process().pid());
  CHECK(guest->log().find(host_pid + ", which runs the node, does not answer") != std::string::npos);
  CHECK(starting->join(kEnd).code == 3);
  CHECK(read_text_file(dir.file("primary/late-log")).find(host_pid) != std::string::npos);
  leaving->stop();
  host.process().signal(SIGCONT);
  CHECK(guest->value("d", "db", "SELECT count(*) FROM t") == "3");
  guest->sql("d", "db", "INSERT INTO t(v) VALUES(3); PRAGMA wal_checkpoint(TRUNCATE)");
  CHECK(host.value("w", "db", "SELECT count(*) FROM t") == "4");
  pair.check_same("db");
  guest->stop();
  pair.stop();
}

TEST_CASE(
    "a process that has not asked its new host anything does not wait for it where another's lock is in the way") {
  for (const std::string mode : {"WAL", "DELETE"}) {
    CAPTURE(mode);
    TempDir dir;
    LinkedPair pair(dir.path());
    pair.primary().sql("w", "db", "PRAGMA journal_mode=" + mode + "; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    std::unique_ptr<LinkedNode> first = pair.guest("primary", "first"), second = pair.guest("primary", "second");
    for (LinkedNode* node : {first.get(), second.get()}) {
      node->sql("c", "db", "PRAGMA busy_timeout=3000; INSERT INTO t(v) VALUES(1)");
    }
    pair.primary().kill9();
    static_cast<void>(first->position("db"));  // as soon as there is a host
    const bool hosts =
        read_text_file(dir.file("primary/data/lock")).starts_with(std::to_string(first->process().pid()));
    LinkedNode& host = hosts ? *first : *second;
    LinkedNode& guest = hosts ? *second : *first;
    host.sql("c", "db", "BEGIN IMMEDIATE; INSERT INTO t(v) VALUES(2)");
    static_cast<void>(guest.log());
    host.process().signal(SIGSTOP);
    CHECK(guest.try_command("sql c db INSERT INTO t(v) VALUES(3)").error == SQLITE_BUSY);
    CHECK(guest.log() == "");
    host.process().signal(SIGCONT);
    host.sql("c", "db", "COMMIT");
    guest.sql("c", "db", "INSERT INTO t(v) VALUES(3)");
    CHECK(guest.value("c", "db", "SELECT count(*) FROM t") == "4");
    pair.replica().wait("db", guest.position("db"));
    CHECK(pair.replica().content("db") == guest.content("db"));
    first->stop();
    second->stop();
    pair.replica().stop();
  }
}

TEST_CASE("a commit that waits for a stopped process goes on when that one is killed after long") {
  TempDir dir;
  LinkedPair pair(dir.path());
  pair.primary().command("start init db 4096 delete");
  pair.primary().command("join");
  std::unique_ptr<LinkedNode> guest = pair.guest("primary", "guest");
  guest->command("start write db 1 1 0 rollback " + dir.file("committed"));
  usleep(300'000);
  pair.primary().process().signal(SIGSTOP);
  usleep(33'000'000);  // longer than a host that is gone is waited for
  pair.primary().kill9();
  usleep(1'000'000);
  const App::Answer ended = guest->try_command("end");
  INFO(ended.message);
  CHECK(ended.error == 0);
  CHECK(std::stoll(guest->value("c", "db", "SELECT ifnull(max(n), 0) FROM entry")) ==
        last_committed({dir.file("committed")}));
  pair.replica().wait("db", guest->position("db"));
  CHECK(pair.replica().content("db") == guest->content("db"));
  guest->stop();
  pair.replica().stop();
}

TEST_CASE("who would be the other role on the same data directory is refused") {
  TempDir dir;
  LinkedPair pair(dir.path());
  std::string config = read_text_file(dir.file("primary/litefs.yml"));
  const size_t at = config.find("candidate: true");
  REQUIRE(at != std::string::npos);
  config.replace(at, 15, "candidate: false");
  std::filesystem::create_directories(dir.file("other"));
  std::ofstream(dir.file("other/litefs.yml")) << config;
  std::unique_ptr<Process> other = spawn_application(dir.file("other"));
  CHECK(other->join(kEnd).code == 3);
  CHECK(read_text_file(dir.file("other/late-log")).find("is the primary; all processes need the same options") !=
        std::string::npos);
  pair.stop();
}

}  // namespace
}  // namespace litefs::test
