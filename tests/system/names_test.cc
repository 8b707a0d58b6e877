// What happens to names, as every node sees it: super-journals, renamed databases, files copied in.
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "system/system_test.h"

using namespace litefs::test;

namespace {

constexpr Millis kSoon{10000};

// A closed database with a table of 100 rows.
void make_database(const std::string& path, const std::string& mode, const std::string& value) {
  run_command({"/usr/bin/env", "sqlite3", path,
               "PRAGMA journal_mode=" + mode +
                   "; CREATE TABLE t(id INTEGER PRIMARY KEY, v); WITH c(i) AS (SELECT 1 UNION ALL " +
                   "SELECT i + 1 FROM c WHERE i < 100) INSERT INTO t(v) SELECT '" + value + "' FROM c"},
              kSoon);
}

// What `command` says on its error output; it must fail.
std::string failure(const std::string& command) {
  std::string text = run_command({"/bin/sh", "-c", command + " 2>&1 && echo UNEXPECTED || true"}, kSoon);
  CHECK(text.find("UNEXPECTED") == std::string::npos);
  return text;
}

void run(const std::string& command) { run_command({"/bin/sh", "-c", command}, kSoon); }

std::string list(Cluster& cluster, size_t node) { return cluster.run_app({"list", cluster.node(node).mount()}); }

}  // namespace

TEST_CASE("a transaction over two attached databases is replicated, and its super-journal is no database") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  {
    App app = cluster.open(0, "a.db");
    app.sql("PRAGMA journal_mode=DELETE");
    app.sql("CREATE TABLE t(id, v)");
    app.sql("ATTACH '" + cluster.node(0).path("b.db") + "' AS b");
    app.sql("CREATE TABLE b.u(id, v)");
    app.sql("BEGIN; INSERT INTO t VALUES(1, 1); INSERT INTO b.u VALUES(2, 2); COMMIT");
    app.close();
  }
  cluster.wait_for_equal(kSoon);
  CHECK(cluster.open(1, "a.db").value("SELECT v FROM t") == "1");
  CHECK(cluster.open(1, "b.db").value("SELECT v FROM u") == "2");
  for (size_t node : {0, 1}) {
    CHECK(cluster.status(node).databases.size() == 2);
    CHECK(cluster.run_app({"list", cluster.node(node).mount()}).find("-mj") == std::string::npos);
  }
  cluster.check_same("a.db");
  cluster.check_same("b.db");
}

TEST_CASE("a transaction over a database here and a main one elsewhere is refused, and says what to do") {
  Cluster cluster(cluster_options(1));
  cluster.start_primary();
  const std::string elsewhere = cluster.scratch("elsewhere.db");
  run("sqlite3 " + cluster.node(0).path("a.db") + " 'CREATE TABLE t(id, v)'; sqlite3 " + elsewhere +
      " 'CREATE TABLE t(id, v)'");
  const std::string attach = "ATTACH '" + cluster.node(0).path("a.db") + "' AS here; ";
  const std::string both = "BEGIN; INSERT INTO t VALUES(1, 1); INSERT INTO here.t VALUES(1, 1); ";
  // The mount passes the journal through of who has unlinked his last one.
  const std::string alone = "INSERT INTO here.t VALUES(2, 2); DELETE FROM here.t; ";
  const std::string third = "ATTACH '" + elsewhere + "2' AS third; CREATE TABLE third.u(id); ";
  for (const std::string& script :
       {attach + both, attach + alone + both,
        // Without a sync of the journal; SQLite makes a super-journal for the other two.
        attach + "PRAGMA here.synchronous=OFF; " + alone + third + both + "INSERT INTO third.u VALUES(1); "}) {
    CAPTURE(script);
    run("! sqlite3 " + elsewhere + " \"" + script + "COMMIT\"");
  }
  CHECK(cluster.log_contains(0, "Open the database here as the main one"));
  for (const std::string& path : {elsewhere, cluster.node(0).path("a.db")}) {
    run("test $(sqlite3 " + path + " 'SELECT count(*) FROM t') = 0");
  }
  run("sqlite3 " + elsewhere + " \"ATTACH '" + cluster.node(0).path("a.db") +
      "' AS here; INSERT INTO here.t VALUES(1, 1)\"");
  cluster.check_same("a.db");
}

TEST_CASE("a transaction over two databases by a path of the applications' own is one in the log, too") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  const std::string bound = cluster.scratch("bound");
  run("mkdir " + bound + " " + cluster.node(0).path("dir"));
  run("mount --bind " + cluster.node(0).path("dir") + " " + bound);
  for (const std::string name : {"a.db", "b.db"}) run("sqlite3 " + bound + "/" + name + " 'CREATE TABLE t(id, v)'");
  const std::string attach = "ATTACH '" + bound + "/b.db' AS b; ";
  run("sqlite3 " + bound + "/a.db \"" + attach +
      "BEGIN; INSERT INTO t VALUES(1, 1); INSERT INTO b.t VALUES(1, 1); COMMIT\"");
  CHECK_FALSE(cluster.log_contains(0, "refused"));
  run("umount " + bound);
  cluster.wait_for_equal(kSoon);
  cluster.check_same("dir/a.db");
  cluster.check_same("dir/b.db");
}

TEST_CASE("who still has a deleted database open is in nobody's way") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  const std::string made = cluster.scratch("made.db"), a = cluster.node(0).path("a.db");
  run("sqlite3 " + made + " \"CREATE TABLE t(x, y); INSERT INTO t(x) VALUES('copied')\"");
  for (const std::string mode : {"delete", "truncate", "persist"}) {
    CAPTURE(mode);
    App before = cluster.open(0, "a.db");
    before.sql("PRAGMA journal_mode=" + mode);
    before.sql("CREATE TABLE t(x, y); INSERT INTO t(x) VALUES('old')");
    run("rm " + a);
    run("cp " + made + " " + a);
    App after = cluster.open(0, "a.db");
    CHECK(after.value("SELECT x FROM t") == "copied");
    CHECK(before.value("SELECT x FROM t") == "old");
    after.sql("INSERT INTO t(x) VALUES('new')");
    CHECK(after.value("SELECT group_concat(x) FROM t") == "copied,new");
    after.close();
    cluster.check_same("a.db");
    run("mv " + a + " " + a + "2");
    run("rm " + a + "2");
    before.process().signal(SIGKILL);
    before.process().join(kSoon);
  }
}

TEST_CASE("a copy is whole although its deleted predecessor is closed meanwhile") {
  Cluster cluster(cluster_options(1));
  cluster.start_primary();
  const std::string made = cluster.scratch("made.db"), a = cluster.node(0).path("a.db");
  run("sqlite3 " + made + " \"CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(100000))\"");
  for (int i = 0; i < 50; i++) {
    CAPTURE(i);
    // The kernel tells of the close at some moment of the copying.
    run("exec 3<" + (i == 0 ? made : a) + "; rm -f " + a + "; exec 3<&-; cp " + made + " " + a + " && cmp " + made +
        " " + a);
  }
}

TEST_CASE("no database is made under a name with a line end, and one that begins alike is untouched") {
  Cluster cluster(cluster_options(1));
  cluster.start_primary();
  cluster.open(0, "two").sql("CREATE TABLE t(x); INSERT INTO t VALUES('mine')");
  CHECK(cluster.open(0, "two\nlines.db").try_sql("CREATE TABLE t(x)").error != 0);
  CHECK(cluster.open(0, "two").value("SELECT x FROM t") == "mine");
  CHECK(cluster.status(0).databases.size() == 1);
  std::ofstream(cluster.node(0).data() + "/db/old\nname.db").flush();
  cluster.restart(0);
  CHECK(cluster.status(0).databases.size() == 1);
  CHECK(cluster.open(0, "two").value("SELECT x FROM t") == "mine");
}

TEST_CASE("a closed database is renamed on every node") {
  std::string mode;
  SUBCASE("in WAL mode") { mode = "WAL"; }
  SUBCASE("in rollback mode") { mode = "DELETE"; }
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  const std::string mount = cluster.node(0).mount() + "/";
  make_database(mount + "old.db", mode, "kept");
  make_database(mount + "other.db", mode, "other");
  cluster.wait_for_equal(kSoon);
  run("mv " + mount + "old.db " + mount + "new.db");
  cluster.wait_for_equal(kSoon);
  for (size_t node : {0, 1}) {
    CAPTURE(node);
    CHECK(cluster.status(node).find("old.db") == nullptr);
    CHECK(cluster.status(node).find("new.db") != nullptr);
    CHECK(list(cluster, node).find("old.db") == std::string::npos);
    CHECK(cluster.open(node, "new.db").value("SELECT count(*) FROM t WHERE v = 'kept'") == "100");
    CHECK_THROWS(cluster.position(node, "old.db"));
  }
  cluster.check_same("new.db");

  // It goes on under its new name, and the old one is free.
  cluster.open(0, "new.db").sql("INSERT INTO t(v) VALUES('more')");
  make_database(mount + "old.db", mode, "another");
  cluster.check_same("new.db");
  cluster.check_same("old.db");
  cluster.restart(0);
  cluster.check_same("new.db");
  CHECK(cluster.open(1, "new.db").value("SELECT count(*) FROM t") == "101");

  std::string before = cluster.position(0, "new.db");
  {
    failure("mv -f " + mount + "new.db " + mount + "other.db");
    CHECK(cluster.log_contains(0, "litefs import"));
    CHECK(cluster.open(1, "other.db").value("SELECT DISTINCT v FROM t") == "other");
  }
  {
    App app = cluster.open(0, "new.db");
    app.sql("SELECT * FROM t");
    CHECK(failure("mv " + mount + "new.db " + mount + "third.db").find("busy") != std::string::npos);
    CHECK(app.value("SELECT count(*) FROM t") == "101");
    app.close();
  }
  const std::string replica = cluster.node(1).mount() + "/";
  CHECK(failure("mv " + replica + "new.db " + replica + "third.db").find("Read-only") != std::string::npos);
  CHECK(cluster.position(0, "new.db") == before);
  cluster.check_same("new.db");
}

TEST_CASE("a database copied onto the primary's mount is adopted whole") {
  std::string mode, copy;
  SUBCASE("cp, WAL header") { mode = "WAL", copy = "cp FILE TARGET"; }
  SUBCASE("cp, rollback header") { mode = "DELETE", copy = "cp FILE TARGET"; }
  SUBCASE("cat") { mode = "WAL", copy = "cat FILE > TARGET"; }
  SUBCASE("dd in small blocks") { mode = "DELETE", copy = "dd if=FILE of=TARGET bs=1000 status=none"; }
  SUBCASE("cp -p") { mode = "WAL", copy = "cp -p FILE TARGET"; }
  SUBCASE("python") { mode = "WAL", copy = "python3 -c 'import shutil; shutil.copy(\"FILE\", \"TARGET\")'"; }
  SUBCASE("over an empty file") { mode = "WAL", copy = "touch TARGET && cp FILE TARGET"; }
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  const std::string file = cluster.scratch("source.db");
  const std::string target = cluster.node(0).path("new.db");
  make_database(file, mode, "copied");
  for (auto [word, path] : {std::pair<std::string, std::string>("FILE", file), {"TARGET", target}}) {
    for (size_t at; (at = copy.find(word)) != std::string::npos;) copy.replace(at, word.size(), path);
  }
  run(copy);
  // Whoever opens it at once gets the whole of it.
  CHECK(cluster.open(0, "new.db").value("SELECT count(*) FROM t WHERE v = 'copied'") == "100");
  cluster.wait_for_equal(kSoon);
  CHECK(cluster.status(0).find("new.db")->position.substr(0, 16) == "0000000000000001");
  cluster.open(0, "new.db").sql("INSERT INTO t(v) VALUES('more')");
  cluster.check_same("new.db");
  CHECK(cluster.open(1, "new.db").value("SELECT count(*) FROM t") == "101");

  // What is there cannot be copied over, in whatever way, open or not.
  std::string before = cluster.position(0, "new.db");
  failure("cp " + file + " " + target);
  failure("cat " + file + " > " + target);
  failure("cat " + file + " >> " + target);
  failure("dd if=" + file + " of=" + target + " conv=notrunc status=none");
  {
    App app = cluster.open(0, "new.db");
    app.sql("INSERT INTO t(v) VALUES('in the WAL')");
    before = cluster.position(0, "new.db");
    failure("cp " + file + " " + target);
    failure("truncate -s 0 " + target);
    failure("cp " + file + " " + target + "-wal");
    CHECK(app.value("SELECT count(*) FROM t") == "102");
    app.close();
  }
  CHECK(cluster.position(0, "new.db") == before);
  CHECK(cluster.log_contains(0, "litefs import"));
  cluster.check_same("new.db");
  failure("cp " + file + " " + cluster.node(1).path("x.db"));
  failure("cp " + file + " " + cluster.node(1).path("new.db"));
}

TEST_CASE("what is no whole database is refused and removed, on every node") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  const std::string source = cluster.scratch("source.db");
  const std::string file = cluster.scratch("bad.db");
  const std::string target = cluster.node(0).path("new.db");
  make_database(source, "WAL", "copied");
  SUBCASE("text") { run("echo no database > " + file); }
  SUBCASE("a copy that was cut off") { run("head -c 6000 " + source + " > " + file); }
  SUBCASE("a copy that was cut off at a page") { run("head -c 4096 " + source + " > " + file); }
  SUBCASE("a header alone") { run("head -c 100 " + source + " > " + file); }
  run("cp " + file + " " + target);
  // Waits until it has been looked at.
  CHECK_THROWS(cluster.run_app({"cat", target}));
  // The file goes before the log says so.
  run("for i in $(seq 500); do grep -q 'litefs import' " + cluster.node(0).log_path() +
      " && exit 0; sleep 0.01; done; exit 1");
  CHECK(list(cluster, 0).find("new.db") == std::string::npos);
  CHECK(cluster.status(0).databases.empty());
  // The name is as free as before.
  run("cp " + source + " " + target);
  cluster.check_same("new.db");
  CHECK(list(cluster, 1).find("new.db\n") != std::string::npos);
}

TEST_CASE("nobody sees a copy before it is whole, and a crash of the node leaves nothing of it") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  const std::string source = cluster.scratch("source.db");
  const std::string target = cluster.node(0).path("new.db");
  make_database(source, "WAL", "copied");
  SpawnOptions options;
  options.argv = {"/bin/sh", "-c",
                  "head -c 4096 " + source + " && echo half >&2 && read rest && tail -c +4097 " + source};
  options.argv[2] = "exec > " + target + " 2>&3; " + options.argv[2];
  options.argv[2] = "exec 3>&1; " + options.argv[2];
  std::unique_ptr<Process> copier = Process::spawn(options);
  REQUIRE(copier->read_line(kSoon) == "half");
  SUBCASE("an open waits for the end") {
    App app = cluster.open(0, "new.db");
    std::unique_ptr<Process> reader = cluster.spawn_app({"cat", target});
    CHECK_FALSE(reader->wait(Millis(100)).has_value());
    copier->write_line("on");
    CHECK(app.value("SELECT count(*) FROM t") == "100");
    CHECK(reader->read_all(kSoon) == read_text_file(source));
    app.close();
    cluster.check_same("new.db");
  }
  SUBCASE("the copier is killed") {
    copier->signal(SIGKILL);
    CHECK_THROWS(cluster.run_app({"cat", target}));
    CHECK(list(cluster, 0).find("new.db") == std::string::npos);
  }
  SUBCASE("the copier deletes it again") {
    run("rm " + target);
    run("cp " + source + " " + target);
    copier->write_line("on");
    copier->join(kSoon);
    cluster.check_same("new.db");
  }
  SUBCASE("the node is killed") {
    cluster.kill9(0);
    copier->signal(SIGKILL);
    copier->join(kSoon);
    cluster.start_primary();
    CHECK(list(cluster, 0).find("new.db") == std::string::npos);
    CHECK(cluster.status(0).databases.empty());
    run("cp " + source + " " + target);
    cluster.check_same("new.db");
  }
}

TEST_CASE("databases in directories are replicated, and the directories come and go with them") {
  Cluster cluster(cluster_options(2));
  cluster.start_primary();
  cluster.start_replica(1);
  const std::string mount = cluster.node(0).mount() + "/";
  const std::string replica = cluster.node(1).mount() + "/";
  // The replica's kernel remembers the names as missing.
  failure("cat " + replica + "a/b/c.db");
  run("mkdir -p " + mount + "a/b " + mount + "empty");
  make_database(mount + "a/b/c.db", "WAL", "deep");
  make_database(mount + "a/c.db", "DELETE", "middle");
  make_database(mount + "c.db", "WAL", "top");
  cluster.wait_for_equal(kSoon);
  for (const char* name : {"a/b/c.db", "a/c.db", "c.db"}) cluster.check_same(name);
  CHECK(cluster.open(1, "a/b/c.db").value("SELECT DISTINCT v FROM t") == "deep");
  CHECK(cluster.position(0, "a/b/c.db") == cluster.position(1, "a/b/c.db"));
  CHECK(list(cluster, 1).find("empty") == std::string::npos);
  failure("mkdir " + replica + "d");
  failure("rmdir " + replica + "a/b");
  failure("rmdir " + mount + "a/b");
  failure("mkdir " + mount + "x-wal");

  {
    App app = cluster.open(0, "a/b/c.db");
    app.sql("INSERT INTO t(v) VALUES('more')");
    cluster.wait_for_equal(kSoon);
    CHECK(cluster.open(1, "a/b/c.db").value("SELECT count(*) FROM t") == "101");
    app.close();
  }
  run("mv " + mount + "a/b/c.db " + mount + "empty/d.db");
  cluster.check_same("empty/d.db");
  failure("ls " + replica + "a/b");
  run("cp " + mount + "a/c.db " + mount + "a/b/copy.db");
  cluster.check_same("a/b/copy.db");
  run("rm -r " + mount + "a");
  cluster.wait_for_equal(kSoon);
  failure("ls " + replica + "a");
  CHECK(cluster.status(1).databases.size() == 2);

  // A file where a directory was, and the reverse.
  make_database(mount + "a", "WAL", "file");
  cluster.check_same("a");
  run("rm " + mount + "a && mkdir " + mount + "a");
  make_database(mount + "a/x.db", "WAL", "again");
  cluster.check_same("a/x.db");
  cluster.restart(0);
  cluster.restart(1);
  cluster.check_same("a/x.db");
  cluster.check_same("empty/d.db");
  cluster.add_node();
  cluster.start_replica(2);
  cluster.check_same("a/x.db");
}

TEST_CASE("a thousand databases in a node, under the usual limit of open files") {
  constexpr size_t kDatabases = 1000;
  TempDir directory;
  const std::string program = directory.file("litefs");
  std::ofstream(program) << "#!/bin/sh\nulimit -Sn 1024\nexec " << std::getenv("LITEFS_BIN") << " \"$@\"\n";
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  ClusterOptions options = cluster_options(2);
  options.litefs = program;
  Cluster cluster(options);
  const std::string source = cluster.scratch("source.db");
  make_database(source, "WAL", "one of many");
  auto name = [](size_t i) { return "tenant" + std::to_string(i % 10) + "/" + std::to_string(i) + ".db"; };
  for (size_t i = 0; i < kDatabases; ++i) {
    std::filesystem::path path = cluster.node(0).data() + "/db/" + name(i);
    std::filesystem::create_directories(path.parent_path());
    std::filesystem::copy(source, path);
  }
  cluster.start_primary();
  cluster.start_replica(1);
  {
    App writer = cluster.open(0, name(kDatabases - 1));
    writer.sql("INSERT INTO t(v) VALUES('more')");
    writer.close();
  }
  cluster.wait_for_equal(Millis(60000));
  for (size_t node : {0, 1}) {
    NodeStatus status = cluster.status(node);
    CHECK(status.databases.size() == kDatabases);
    size_t ready = 0;
    for (const DatabaseStatus& database : status.databases) ready += database.state == "ready";
    CHECK(ready == kDatabases);
  }
  CHECK(cluster.open(1, name(0)).value("SELECT count(*) FROM t") == "100");
  CHECK(cluster.open(1, name(kDatabases - 1)).value("SELECT count(*) FROM t") == "101");
}
