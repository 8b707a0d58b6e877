// Starting while applications do not wait: nothing is ever written into the bare directory, and
// status says when the mount serves.
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "system/janitor.h"
#include "system/system_test.h"

using namespace litefs::test;

namespace {

constexpr Millis kSoon{10000};
constexpr Millis kAppEnd{30000};

std::vector<std::string> lines_of(const std::string& path) {
  std::vector<std::string> lines;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// Asks the node of index 0 for its status until it answers as the primary: how often it said that it is starting.
size_t count_starting_answers(Cluster& cluster) {
  size_t starting = 0;
  for (Deadline deadline(kSoon); !deadline.passed();) {
    bool mounted = !mounts_below(cluster.directory()).empty();
    SpawnOptions options;
    options.argv = {getenv("LITEFS_BIN"), "status", "-data", cluster.node(0).data()};
    auto status = Process::spawn(options);
    std::string text = status->read_all(kSoon);
    int code = status->join(kSoon).code;
    if (code == 0) {
      CHECK(!mounts_below(cluster.directory()).empty());
      CHECK(text.find("node0 is the primary") == 0);
      return starting;
    }
    if (code == 3) {
      CHECK(text.find("node0 is starting") == 0);
      starting++;
    } else {
      CHECK(code == 1);
      CHECK_FALSE(mounted);
    }
  }
  FAIL("the node does not answer as the primary");
  return starting;
}

}  // namespace

TEST_CASE("applications that insist while the node is killed and restarted lose nothing") {
  constexpr int kRounds = 20;
  Cluster cluster(cluster_options(1));
  cluster.start_primary();
  std::mt19937_64 random(test_seed());
  std::vector<std::unique_ptr<Process>> apps;
  std::vector<std::string> ledgers;
  for (int i = 0; i < 3; i++) {
    ledgers.push_back(cluster.scratch("committed" + std::to_string(i)));
    apps.push_back(cluster.spawn_app({"insist", cluster.node(0).path("db" + std::to_string(i)), ledgers.back()}));
  }
  for (int round = 0; round < kRounds; round++) {
    usleep(static_cast<useconds_t>(random() % 200000));
    cluster.kill9(0);
    usleep(static_cast<useconds_t>(random() % 30000));
    // Fails where the bare directory holds a file.
    cluster.start_primary();
  }
  // Each gets through once more.
  for (const std::string& ledger : ledgers) {
    size_t before = lines_of(ledger).size();
    Deadline deadline(kSoon);
    while (lines_of(ledger).size() <= before && !deadline.passed()) usleep(10000);
    CHECK(lines_of(ledger).size() > before);
  }
  for (auto& app : apps) {
    app->signal(SIGTERM);
    CHECK(app->join(kAppEnd).ok());
  }
  for (size_t i = 0; i < ledgers.size(); i++) {
    std::vector<std::string> committed = lines_of(ledgers[i]);
    MESSAGE(committed.size(), " transactions committed");
    App app = cluster.open(0, "db" + std::to_string(i));
    std::string all = "SELECT count(*) FROM insisted WHERE number <= " + committed.back();
    CHECK(app.value(all) == committed.back());
    CHECK(app.value("PRAGMA integrity_check") == "ok");
    app.close();
  }
  cluster.stop(0);
  CHECK(std::filesystem::is_empty(cluster.node(0).mount()));
}

TEST_CASE("several dead mounts on one another are replaced by one") {
  Cluster cluster(cluster_options(1));
  cluster.start_primary();
  cluster.kill9(0);
  // As a start that was killed between its two last steps leaves them.
  const std::string mount = cluster.node(0).mount();
  for (int i = 0; i < 2; i++) {
    int fd = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
    std::string options = "rootmode=40000,user_id=0,group_id=0,fd=" + std::to_string(fd);
    REQUIRE(::mount("litefs", mount.c_str(), "fuse.litefs", 0, options.c_str()) == 0);
    ::close(fd);
  }
  CHECK(mounts_below(cluster.directory()).size() == 3);
  cluster.start_primary();
  CHECK(mounts_below(cluster.directory()).size() == 1);
  App app = cluster.open(0, "db");
  app.sql("PRAGMA journal_mode=WAL; CREATE TABLE t(x)");
  app.close();
  cluster.stop(0);
  CHECK(mounts_below(cluster.directory()).empty());
}

TEST_CASE("a start that fails leaves the dead mount, which protects the directory") {
  Cluster cluster(cluster_options(1));
  cluster.start_primary();
  cluster.kill9(0);
  const std::string node_file = cluster.node(0).data() + "/node";
  std::filesystem::rename(node_file, node_file + ".away");
  std::ofstream(node_file) << "nonsense\n";
  cluster.launch(0);
  CHECK(cluster.node(0).process()->join(kSoon).code == 1);
  CHECK(mounts_below(cluster.directory()).size() == 1);
  std::filesystem::rename(node_file + ".away", node_file);
  cluster.start_primary();
}

TEST_CASE("a start waits for a killed predecessor that still holds the data directory") {
  Cluster cluster(cluster_options(1));
  cluster.start_primary();
  cluster.kill9(0);
  const std::string lock_path = cluster.node(0).data() + "/lock";
  int holder = ::open(lock_path.c_str(), O_RDWR | O_CLOEXEC);
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  REQUIRE(fcntl(holder, F_OFD_SETLK, &lock) == 0);
  cluster.launch(0);
  CHECK_FALSE(cluster.node(0).process()->wait(Millis(300)));
  ::close(holder);
  cluster.wait_until_up(0, kSoon);
}

TEST_CASE("a start and a connection are each logged once") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  App app = cluster.open(0, "db");
  app.sql("PRAGMA journal_mode=WAL; CREATE TABLE t(x, y)");
  app.close();
  cluster.wait_for_equal(kSoon);
  for (const std::string event : {" mounted ", " replica connected "}) {
    CAPTURE(event);
    const std::string log = read_text_file(cluster.node(0).log_path());
    CHECK(log.find(event) != std::string::npos);
    CHECK(log.find(event) == log.rfind(event));
  }
}

TEST_CASE("status says that a node is starting until its mount serves") {
  Cluster cluster(cluster_options(1));
  cluster.start_primary();
  App app = cluster.open(0, "db");
  app.sql("PRAGMA journal_mode=WAL; CREATE TABLE t(x)");
  app.sql(
      "WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 20000) "
      "INSERT INTO t SELECT randomblob(1000) FROM c");
  app.close();
  cluster.stop(0);
  size_t starting = 0;
  // A start of some milliseconds can be over before the first question: then again.
  for (int start = 0; start < 20 && starting == 0; start++) {
    CAPTURE(start);
    if (start > 0) cluster.stop(0);
    // Of another boot: the start hashes the whole database.
    std::filesystem::remove(cluster.node(0).data() + "/meta/db/control");
    cluster.launch(0);
    starting = count_starting_answers(cluster);
  }
  CHECK(starting > 0);
}

// Its locks are those of a mount that is dead; but the files that it opens by name, a journal, are the new mount's.
TEST_CASE("while a connection of before is open, in a rollback mode too, the database is nobody else's") {
  Cluster cluster(cluster_options(1));
  cluster.start_primary();
  std::string mode;
  SUBCASE("DELETE") { mode = "delete"; }
  SUBCASE("PERSIST") { mode = "persist"; }
  SUBCASE("WAL, which the mount passes through") { mode = "wal"; }
  CAPTURE(mode);
  App before = cluster.open(0, "db");
  before.sql("PRAGMA journal_mode=" + mode + "; CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
  before.sql("INSERT INTO t(x) VALUES('old')");
  // Who stops a node that is in use leaves its mount to those who have files open there.
  const bool stopped = mode != "wal";
  stopped ? cluster.stop(0) : cluster.kill9(0);
  cluster.start(0);
  cluster.wait_for_state(0, "db", "fenced", kSoon);
  App next = cluster.open(0, "db");
  CHECK(next.try_sql("SELECT * FROM t").error != 0);
  CHECK(before.try_sql("INSERT INTO t(x) VALUES('late')").error != 0);
  // A death while it still waits: it is of an earlier mount than the last.
  cluster.kill9(0);
  cluster.start(0);
  cluster.wait_for_state(0, "db", "fenced", kSoon);
  before.close();
  cluster.wait_for_state(0, "db", "ready", kSoon);
  App fresh = cluster.open(0, "db");
  CHECK(fresh.sql("SELECT x FROM t") == std::vector<std::string>{"old"});
  fresh.sql("INSERT INTO t(x) VALUES('new')");
  fresh.close();
  cluster.check_same("db");
}

namespace {

// A writer dies, and the node with it, when half of a transaction is in the database's file.
void check_reads_after_death(const std::string& mode, bool in_wal_at_first, bool stopped) {
  CAPTURE(mode);
  CAPTURE(in_wal_at_first);
  CAPTURE(stopped);
  Cluster cluster(cluster_options(1));
  cluster.start_primary();
  const std::string states = "SELECT count(DISTINCT x) FROM t";
  App writer = cluster.open(0, "db");
  writer.sql("PRAGMA journal_mode=" + (in_wal_at_first ? "wal" : mode));
  writer.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, x, filler)");
  writer.sql(
      "WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 1000) "
      "INSERT INTO t SELECT i, 0, zeroblob(1000) FROM c");
  if (in_wal_at_first) {
    writer.close();
    writer = cluster.open(0, "db");  // from here on it is passed through
  }
  CHECK(writer.value("PRAGMA journal_mode=" + mode) == mode);
  writer.sql("UPDATE t SET x = 0 WHERE id = 1000; PRAGMA cache_size=0");
  App reader = cluster.open(0, "db");
  reader.sql("PRAGMA cache_size=0");
  CHECK(reader.value(states) == "1");
  writer.sql("BEGIN; UPDATE t SET x = 1 WHERE id < 500");
  // Whoever looks at the file has its size from the node; from then on the kernel would ask nobody.
  App other = cluster.open(0, "db");
  CHECK(other.try_sql("PRAGMA busy_timeout=0; " + states).error != 0);
  stopped ? cluster.stop(0) : cluster.kill9(0);
  writer.process().signal(SIGKILL);
  writer.process().join(kSoon);
  auto read = [&] {
    App::Answer answer = reader.try_sql(states);
    CHECK((answer.error != 0 || answer.rows == std::vector<std::string>{"1"}));
  };
  read();
  cluster.start(0);
  read();
  reader.close();
  other.close();
  cluster.wait_for_state(0, "db", "ready", kSoon);
  App fresh = cluster.open(0, "db");
  CHECK(fresh.value(states) == "1");
  fresh.close();
  cluster.check_same("db");
}

}  // namespace

// What was written into the database before the commit is in the kernel's cache of that mount; the journal that takes
// it back is looked for by its name, which the dead mount does not answer.
TEST_CASE("who has a database open on a mount that is gone never reads half a transaction") {
  for (const std::string mode : {"delete", "truncate", "persist"}) {
    for (bool in_wal_at_first : {false, true}) {
      for (bool stopped : {false, true}) check_reads_after_death(mode, in_wal_at_first, stopped);
    }
  }
}
