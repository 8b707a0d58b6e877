// Files of a node's data directory are lost or damaged while it is stopped: nothing committed is lost
// silently, the cluster ends with equal content, and what could not be used lies under lost/.
#include <filesystem>
#include <fstream>

#include "system/system_test.h"

using namespace litefs::test;
namespace fs = std::filesystem;

namespace {

constexpr Millis kSoon{15000};

// Two nodes with a database of four rows, both in step.
class Pair {
 public:
  Pair() : cluster(cluster_options(2)) {
    cluster.start_primary();
    cluster.start_replica(1);
    App app = cluster.open(0, "a.db");
    app.sql("PRAGMA journal_mode=WAL; CREATE TABLE t(x, y)");
    for (int i = 0; i < 4; i++) app.sql("INSERT INTO t(x) VALUES(" + std::to_string(i) + ")");
    app.close();
    cluster.check_same("a.db");
  }

  fs::path meta(size_t node) { return fs::path(cluster.node(node).data()) / "meta/a.db"; }
  fs::path file(size_t node) { return fs::path(cluster.node(node).data()) / "db/a.db"; }

  // The database takes a row more, and both nodes have all of them.
  void check_goes_on(const std::string& rows = "5") {
    cluster.wait_for_state(0, "a.db", "ready", kSoon);
    App app = cluster.open(0, "a.db");
    app.sql("INSERT INTO t(x) VALUES(99)");
    CHECK(app.value("SELECT count(*) FROM t") == rows);
    app.close();
    cluster.check_same("a.db");
    CHECK(cluster.open(1, "a.db").value("SELECT count(*) FROM t") == rows);
  }

  std::vector<fs::path> lost(size_t node) {
    std::vector<fs::path> found;
    if (!fs::exists(meta(node) / "lost")) return found;
    for (const auto& entry : fs::directory_iterator(meta(node) / "lost")) found.push_back(entry);
    return found;
  }

  Cluster cluster;
};

void overwrite(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

fs::path last_segment(const fs::path& meta) {
  fs::path last;
  for (const auto& entry : fs::directory_iterator(meta / "log")) {
    if (entry.path() > last) last = entry.path();
  }
  return last;
}

}  // namespace

TEST_CASE("a control file that is lost or damaged is taken from the log") {
  Pair pair;
  for (size_t node : {0, 1}) {
    CAPTURE(node);
    for (const std::string content : {"", "gone", "x"}) {
      CAPTURE(content);
      pair.cluster.stop(node);
      const fs::path control = pair.meta(node) / "control";
      if (content == "gone")
        fs::remove(control);
      else
        overwrite(control, content.empty() ? "" : std::string(4096, 'x'));
      pair.cluster.start(node);
      CHECK(pair.cluster.log_contains(node, "taken from the change log"));
      pair.cluster.wait_for_equal(kSoon);
    }
  }
  pair.check_goes_on();
  CHECK(pair.lost(0).empty());
  CHECK(pair.lost(1).empty());
}

TEST_CASE("a control file lost with commits that were not captured loses none") {
  Pair pair;
  App app = pair.cluster.open(0, "a.db");
  app.sql("SELECT * FROM t");
  pair.cluster.kill9(0);
  // The file is passed through: the connection goes on.
  App::Answer answer = app.try_sql("INSERT INTO t(x) VALUES(4)");
  app.close();
  fs::remove(pair.meta(0) / "control");
  pair.cluster.start_primary();
  pair.check_goes_on(answer.error ? "5" : "6");
}

TEST_CASE("a log without its end, and one that is lost, are replaced") {
  Pair pair;
  pair.cluster.stop(0);
  const fs::path segment = last_segment(pair.meta(0));
  SUBCASE("cut") { fs::resize_file(segment, fs::file_size(segment) / 2); }
  SUBCASE("cut, and the control file lost") {
    fs::resize_file(segment, fs::file_size(segment) / 2);
    fs::remove(pair.meta(0) / "control");
  }
  SUBCASE("lost") { fs::remove_all(pair.meta(0) / "log"); }
  SUBCASE("lost, and the control file too") { fs::remove_all(pair.meta(0)); }
  SUBCASE("the page sums lost") { fs::remove(pair.meta(0) / "sums"); }
  pair.cluster.start_primary();
  pair.check_goes_on();
}

TEST_CASE("a log that cannot be read is put aside") {
  Pair pair;
  pair.cluster.stop(0);
  const fs::path segment = last_segment(pair.meta(0));
  fs::rename(segment, segment.parent_path() / "0000000000000009-0000000000000123.seg");
  SUBCASE("with control") {}
  SUBCASE("without control") { fs::remove(pair.meta(0) / "control"); }
  pair.cluster.start_primary();
  CHECK(pair.cluster.log_contains(0, "change log put aside"));
  CHECK(pair.lost(0).size() == 1);
  pair.check_goes_on();
}

TEST_CASE("a replica whose files are gone or no database loads a copy by itself") {
  Pair pair;
  pair.cluster.stop(1);
  SUBCASE("gone") {
    for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(pair.file(1).string() + suffix);
  }
  SUBCASE("no database") { overwrite(pair.file(1), std::string(8192, 'x')); }
  SUBCASE("no database, and the control file lost") {
    overwrite(pair.file(1), std::string(8192, 'x'));
    fs::remove(pair.meta(1) / "control");
  }
  SUBCASE("another content") {
    std::fstream file(pair.file(1), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(5000);
    file << "damage";
    file.close();
    fs::remove(pair.file(1).string() + "-wal");  // all of it has been checkpointed
    fs::remove(pair.meta(1) / "control");
  }
  pair.cluster.start_replica(1);
  pair.check_goes_on();
  CHECK(pair.lost(1).size() >= 1);
}

TEST_CASE("a stopped database says what to do, has no position, and can be deleted on the mount") {
  Pair pair;
  pair.cluster.stop(0);
  overwrite(pair.file(0), std::string(8192, 'x'));
  SUBCASE("by its content") {}
  SUBCASE("by its content, without control") { fs::remove(pair.meta(0) / "control"); }
  pair.cluster.start_primary();
  CHECK(pair.cluster.status(0).find("a.db")->state == "stopped");
  CHECK(pair.cluster.log_contains(0, "put its files right and start the node again, or delete it"));
  CHECK(pair.cluster.log_contains(0, pair.file(0).string()));
  CHECK_THROWS(pair.cluster.position(0, "a.db"));
  CHECK(pair.cluster.run_app({"list", pair.cluster.node(0).mount()}).find("a.db-pos") == std::string::npos);
  CHECK(pair.cluster.open(0, "a.db").try_sql("SELECT * FROM t").error != 0);
  CHECK(pair.cluster.open(1, "a.db").value("SELECT count(*) FROM t") == "4");

  pair.cluster.run_app({"remove", pair.cluster.node(0).path("a.db")});
  for (Deadline deadline(kSoon); pair.cluster.status(1).find("a.db");) {
    REQUIRE_FALSE(deadline.passed());
  }
  App app = pair.cluster.open(0, "a.db");
  app.sql("PRAGMA journal_mode=WAL; CREATE TABLE t(x, y)");
  app.close();
  pair.check_goes_on("1");
  pair.cluster.restart(0);
  pair.check_goes_on("2");
}

TEST_CASE("a database that its primary cannot open stays on the replicas") {
  Pair pair;
  std::string before = pair.cluster.position(1, "a.db");
  pair.cluster.stop(0);
  // Neither id nor position can be known.
  fs::rename(pair.meta(0) / "log", pair.meta(0) / "log.away");
  overwrite(pair.meta(0) / "log", "no directory");
  const fs::path control = pair.meta(0) / "control";
  const fs::path control_away = pair.meta(0) / "control.away";
  fs::rename(control, control_away);
  pair.cluster.start_primary();
  pair.cluster.wait_for_state(0, "a.db", "stopped", kSoon);
  for (Deadline deadline(kSoon); !pair.cluster.log_contains(0, "replicas wait for it");) {
    REQUIRE_FALSE(deadline.passed());
  }
  // What comes after it on the same connection has been handled.
  App other = pair.cluster.open(0, "b.db");
  other.sql("PRAGMA journal_mode=WAL; CREATE TABLE t(x, y)");
  other.close();
  pair.cluster.wait_for_state(1, "b.db", "ready", kSoon);
  CHECK(pair.cluster.position(1, "a.db") == before);
  CHECK(pair.cluster.open(1, "a.db").value("SELECT count(*) FROM t") == "4");
  CHECK(pair.lost(1).empty());

  pair.cluster.stop(0);
  fs::remove(pair.meta(0) / "log");
  fs::rename(pair.meta(0) / "log.away", pair.meta(0) / "log");
  fs::rename(control_away, control);
  pair.cluster.start_primary();
  pair.check_goes_on();
}
