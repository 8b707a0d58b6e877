// `litefs import` and `litefs export` on running clusters.
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "system/sql.h"
#include "system/system_test.h"

using namespace litefs::test;

namespace {

namespace fs = std::filesystem;

constexpr Millis kSoon{20000};
constexpr Millis kCommandEnd{60000};

struct Outcome {
  int code = -1;
  std::string text;  // both streams
};

// A primary with two replicas, and the shell of the primary's machine.
class ImportTest {
 public:
  explicit ImportTest(size_t nodes = 3) : ImportTest(cluster_options(nodes)) {}
  explicit ImportTest(const ClusterOptions& options) : cluster(options) {
    cluster.start_primary();
    for (size_t i = 1; i < options.nodes; i++) cluster.start_replica(i);
  }

  static std::string program() { return std::getenv("LITEFS_BIN"); }

  std::unique_ptr<Process> spawn(const std::vector<std::string>& argv, const std::string& output) {
    SpawnOptions options;
    options.argv = argv;
    options.output_path = output;
    return Process::spawn(options);
  }
  Outcome run(const std::vector<std::string>& argv) {
    std::string output = cluster.scratch("output");
    fs::remove(output);  // it would be appended to
    Outcome outcome;
    outcome.code = spawn(argv, output)->join(kCommandEnd).code;
    outcome.text = read_text_file(output);
    return outcome;
  }
  Outcome shell(const std::string& script) { return run({"/bin/bash", "-o", "pipefail", "-c", script}); }

  Outcome try_import(const std::string& file, const std::string& name, const std::string& wait = "30s",
                     size_t node = 0) {
    return run({program(), "import", "-data", cluster.node(node).data(), "-wait", wait, file, name});
  }
  void import(const std::string& file, const std::string& name) {
    Outcome outcome = try_import(file, name);
    CHECK_MESSAGE(outcome.code == 0, outcome.text);
    // What it says is where the database is.
    if (outcome.code == 0) CHECK_MESSAGE(says(outcome, cluster.position(0, name)), outcome.text);
  }
  Outcome try_export(size_t node, const std::string& name, const std::string& file, bool force = false) {
    std::vector<std::string> argv = {program(), "export", "-data", cluster.node(node).data()};
    if (force) argv.push_back("--force");
    argv.push_back(name);
    argv.push_back(file);
    return run(argv);
  }

  static bool says(const Outcome& outcome, const std::string& part) {
    return outcome.text.find(part) != std::string::npos;
  }

  // Every node has the file's rows in `name`, and the nodes have the same pages.
  void check_content(const std::string& file, const std::string& name) {
    cluster.check_same(name);
    std::string expected = dump(file);
    for (size_t i = 0; i < cluster.size(); i++) CHECK(dump(cluster.node(i).path(name)) == expected);
  }
  // All rows, as an application sees them, in few words.
  std::string dump(const std::string& path) {
    std::string text = cluster.scratch("dump");
    cluster.run_app({"dump", path, text});
    std::string rows = read_text_file(text);
    return std::to_string(rows.size()) + " bytes, " + std::to_string(std::hash<std::string>()(rows));
  }

  Cluster cluster;
};

// A file system of this size for a cluster, which ends before it.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& size)
      : path_(fs::temp_directory_path() / ("litefs-disk-" + std::to_string(getpid()))) {
    fs::create_directories(path_);
    REQUIRE(mount("tmpfs", path_.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0);
  }
  ~SmallDisk() {
    CHECK(umount(path_.c_str()) == 0);
    fs::remove(path_);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct Shape {
  int rows = 200;
  int page_size = 4096;
  std::string mode = "DELETE";
  std::string value = "x";  // that all rows begin with
};

void fill(Sql& db, const Shape& shape) {
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v, w)");
  db.exec("CREATE INDEX i ON t(v)");
  db.exec("WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < " + std::to_string(shape.rows) +
          ") INSERT INTO t(v, w) SELECT '" + shape.value + "' || i, randomblob(400) FROM c");
}

void make_file(const std::string& path, const Shape& shape) {
  fs::remove(path);
  Sql db(path);
  db.exec("PRAGMA page_size=" + std::to_string(shape.page_size));
  db.exec("PRAGMA journal_mode=" + shape.mode);
  fill(db, shape);
}

// A file with a committed WAL beside it that no process has open, as a crash leaves it.
void make_file_with_wal(const std::string& path, const Shape& shape) {
  std::string live = path + ".live";
  for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(live + suffix);
  Sql db(live);
  db.exec("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0");
  fill(db, shape);
  fs::copy_file(live, path);
  fs::copy_file(live + "-wal", path + "-wal");
}

std::string integrity(const std::string& path) { return Sql(path).text("PRAGMA integrity_check"); }

uint64_t txid(const std::string& position) { return std::stoull(position.substr(0, 16), nullptr, 16); }

std::string checksum_text(uint64_t checksum) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(checksum));
  return text;
}

// The position in "exported db: 12 MB, at TXID/CHECKSUM".
std::string exported_position(const Outcome& outcome) {
  size_t at = outcome.text.rfind(", at ");
  REQUIRE_MESSAGE(at != std::string::npos, outcome.text);
  return outcome.text.substr(at + 5, 33);
}

void check_export(const Outcome& outcome, const std::string& file) {
  REQUIRE_MESSAGE(outcome.code == 0, outcome.text);
  CHECK(exported_position(outcome).substr(17) == checksum_text(pages_checksum(file)));
  CHECK(integrity(file) == "ok");
  CHECK(Sql(file).text("PRAGMA journal_mode") == "delete");
}

}  // namespace

TEST_CASE("an imported file becomes a database on every node, in one transaction") {
  ImportTest test;
  std::string file = test.cluster.scratch("file.db");
  Shape shape;
  SUBCASE("in a rollback mode") {}
  SUBCASE("in WAL") { shape.mode = "WAL"; }
  SUBCASE("of the smallest pages") { shape.page_size = 512; }
  SUBCASE("of the largest pages") { shape.page_size = 65536; }
  SUBCASE("larger than a record that memory holds") { shape.rows = 40000; }
  make_file(file, shape);
  std::string before = read_text_file(file);
  test.import(file, "db");
  CHECK(txid(test.cluster.position(0, "db")) == 1);
  test.check_content(file, "db");
  CHECK(test.cluster.open(0, "db").value("PRAGMA journal_mode") == (shape.mode == "WAL" ? "wal" : "delete"));
  // The file was only read.
  CHECK((read_text_file(file) == before));
  for (const char* suffix : {"-wal", "-shm", "-journal"}) CHECK_FALSE(fs::exists(file + suffix));
  CHECK_FALSE(fs::exists(test.cluster.node(0).data() + "/import/copy"));
  // And it is a database like any other.
  App app = test.cluster.open(0, "db");
  app.sql("INSERT INTO t(v) VALUES('later')");
  app.close();
  test.cluster.check_same("db");
}

TEST_CASE("a name whose database was deleted takes an import") {
  ImportTest test(2);
  std::string file = test.cluster.scratch("file.db");
  for (const char* mode : {"WAL", "DELETE"}) {
    make_file(file, {.mode = mode});
    test.import(file, "db");
    test.check_content(file, "db");
    test.cluster.run_app({"remove", test.cluster.node(0).path("db")});
    test.cluster.wait_for_equal(kSoon);
    Outcome outcome = test.try_export(0, "db", file, true);
    CHECK_MESSAGE(test.says(outcome, "there is no database 'db'"), outcome.text);
  }
}

TEST_CASE(
    "an import over a WAL database: readers keep their snapshot and then go on, a writer is waited "
    "for") {
  ImportTest test;
  std::string old_file = test.cluster.scratch("old.db"), new_file = test.cluster.scratch("new.db");
  make_file(old_file, {.mode = "WAL", .value = "old"});
  make_file(new_file, {.rows = 3000, .value = "new"});
  // Another schema of the same version, which a connection must not go on with.
  {
    Sql db(new_file);
    db.exec("CREATE TABLE first(a, b, c); INSERT INTO first VALUES(1, 2, 3)");
    db.exec("DROP INDEX i; CREATE INDEX i ON t(v, w)");
  }
  test.import(old_file, "db");
  test.cluster.wait_for_equal(kSoon);
  const uint64_t before = txid(test.cluster.position(0, "db"));

  App reader = test.cluster.open(0, "db"), far_reader = test.cluster.open(1, "db");
  for (App* app : {&reader, &far_reader}) {
    app->sql("BEGIN");
    CHECK(app->value("SELECT v FROM t WHERE id = 1") == "old1");
  }
  App writer = test.cluster.open(0, "db");
  writer.sql("BEGIN IMMEDIATE");
  writer.sql("INSERT INTO t(v) VALUES('in the way')");

  Outcome refused = test.try_import(new_file, "db", "100ms");
  CHECK(refused.code == 1);
  CHECK_MESSAGE(test.says(refused, "'db' is in use by app (pid"), refused.text);
  CHECK_MESSAGE(test.says(refused, std::to_string(writer.process().pid())), refused.text);
  CHECK(txid(test.cluster.position(0, "db")) == before);

  std::string output = test.cluster.scratch("import.out");
  auto import = test.spawn({test.program(), "import", "-data", test.cluster.node(0).data(), new_file, "db"}, output);
  CHECK_FALSE(import->wait(Millis(300)));
  writer.sql("COMMIT");
  CHECK_MESSAGE(import->join(kCommandEnd).ok(), read_text_file(output));
  CHECK(txid(test.cluster.position(0, "db")) == before + 2);

  for (App* app : {&reader, &far_reader}) CHECK(app->value("SELECT v FROM t WHERE id = 1") == "old1");
  test.cluster.wait_for_equal(kSoon);
  for (App* app : {&reader, &far_reader}) {
    CHECK(app->value("SELECT v FROM t WHERE id = 1") == "old1");
    app->sql("COMMIT");
    CHECK(app->value("SELECT v FROM t WHERE id = 1") == "new1");
    CHECK(app->value("SELECT a + b + c FROM first") == "6");
    CHECK(app->value("SELECT count(*) FROM t") == "3000");
  }
  writer.sql("INSERT INTO t(v) VALUES('after')");
  CHECK(writer.value("PRAGMA journal_mode") == "wal");
  for (App* app : {&reader, &far_reader, &writer}) app->close();
  test.cluster.check_same("db");
}

TEST_CASE(
    "an import over a rollback-mode database waits for readers, and connections go on with the new "
    "content") {
  ImportTest test;
  std::string old_file = test.cluster.scratch("old.db"), new_file = test.cluster.scratch("new.db");
  make_file(old_file, {.rows = 1000, .value = "old"});
  Shape shape{.rows = 300, .value = "new"};
  SUBCASE("of the same page size") {}
  SUBCASE("of larger pages") { shape.page_size = 16384; }
  SUBCASE("of smaller pages") { shape.page_size = 1024; }
  make_file(new_file, shape);
  test.import(old_file, "db");
  App reader = test.cluster.open(0, "db");
  reader.sql("BEGIN");
  CHECK(reader.value("SELECT count(*) FROM t") == "1000");
  Outcome refused = test.try_import(new_file, "db", "100ms");
  CHECK(refused.code == 1);
  CHECK_MESSAGE(test.says(refused, "'db' is in use by app (pid"), refused.text);
  test.check_content(old_file, "db");
  reader.sql("COMMIT");
  const uint64_t before = txid(test.cluster.position(0, "db"));
  test.import(new_file, "db");
  CHECK(txid(test.cluster.position(0, "db")) == before + 1);
  CHECK(reader.value("SELECT v FROM t WHERE id = 1") == "new1");
  reader.sql("INSERT INTO t(v) VALUES('after')");
  reader.sql("DELETE FROM t WHERE v = 'after'");
  reader.close();
  test.check_content(new_file, "db");
}

TEST_CASE("other pages in WAL need the database alone") {
  ImportTest test(2);
  std::string old_file = test.cluster.scratch("old.db"), new_file = test.cluster.scratch("new.db");
  make_file(old_file, {.mode = "WAL", .value = "old"});
  make_file(new_file, {.page_size = 8192, .value = "new"});
  test.import(old_file, "db");
  App app = test.cluster.open(0, "db");
  app.sql("SELECT * FROM t");
  Outcome refused = test.try_import(new_file, "db", "100ms");
  CHECK(refused.code == 1);
  CHECK_MESSAGE(test.says(refused, "'db' is in use by app (pid"), refused.text);
  CHECK_MESSAGE(test.says(refused, "pages of 4096 bytes"), refused.text);
  CHECK(app.value("PRAGMA journal_mode") == "wal");
  app.close();
  test.check_content(old_file, "db");
  test.import(new_file, "db");
  test.check_content(new_file, "db");
  CHECK(test.cluster.open(0, "db").value("PRAGMA journal_mode") == "wal");
}

TEST_CASE("a file is taken in its committed state, and stays as it is") {
  ImportTest test(2);
  std::string file = test.cluster.scratch("file.db");
  SUBCASE("with a WAL that a crash left") {
    make_file_with_wal(file, {});
    std::string before = read_text_file(file), wal = read_text_file(file + "-wal");
    test.import(file, "db");
    CHECK((read_text_file(file) == before));
    CHECK((read_text_file(file + "-wal") == wal));
    CHECK_FALSE(fs::exists(file + "-shm"));
    test.check_content(file, "db");  // opened by SQLite only now
  }
  SUBCASE("with a hot journal") {
    make_file(file, {.rows = 2000});
    std::string clean = test.dump(file), copy = test.cluster.scratch("copy.db");
    {
      Sql db(file);
      db.exec("PRAGMA cache_size=1; BEGIN; UPDATE t SET v = 'lost' || id");
      fs::copy_file(file, copy);
      fs::copy_file(file + "-journal", copy + "-journal");
    }
    std::string before = read_text_file(copy), journal = read_text_file(copy + "-journal");
    test.import(copy, "db");
    CHECK((read_text_file(copy) == before));
    CHECK((read_text_file(copy + "-journal") == journal));
    CHECK(test.dump(test.cluster.node(0).path("db")) == clean);
    test.cluster.check_same("db");
  }
  SUBCASE("while an application writes it") {
    make_file(file, {.mode = "WAL"});
    Sql db(file);
    db.exec("INSERT INTO t(v) VALUES('committed')");
    db.exec("BEGIN; INSERT INTO t(v) VALUES('not committed')");
    test.import(file, "db");
    App app = test.cluster.open(0, "db");
    CHECK(app.value("SELECT count(*) FROM t") == "201");
    app.close();
    test.cluster.check_same("db");
  }
}

TEST_CASE("what is no sound database is refused, and changes nothing") {
  ImportTest test(2);
  std::string good = test.cluster.scratch("good.db"), bad = test.cluster.scratch("bad.db");
  make_file(good, {.mode = "WAL"});
  test.import(good, "db");
  std::string position = test.cluster.position(0, "db");
  auto refused = [&](const std::string& file, const std::string& why) {
    for (const char* name : {"db", "other"}) {
      Outcome outcome = test.try_import(file, name);
      CHECK(outcome.code == 1);
      CHECK_MESSAGE(test.says(outcome, why), outcome.text);
    }
    CHECK(test.cluster.position(0, "db") == position);
    CHECK(test.cluster.run_app({"list", test.cluster.node(0).mount()}).find("other") == std::string::npos);
  };
  refused(bad, "No such file");
  std::ofstream(bad) << "";
  refused(bad, "is empty");
  std::ofstream(bad) << std::string(9000, 'x');
  refused(bad, "is not a SQLite database, or it is encrypted");
  refused(fs::path(bad).parent_path(), "is a directory");
  // A page lost, and one of the index's overwritten by another.
  fs::copy_file(good, bad, fs::copy_options::overwrite_existing);
  fs::resize_file(bad, fs::file_size(bad) - 4096);
  refused(bad, "is damaged");
  fs::copy_file(good, bad, fs::copy_options::overwrite_existing);
  {
    std::fstream out(bad, std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(4096 * 4 + 200);
    out << std::string(3000, '\x55');
  }
  refused(bad, "is damaged");
  Outcome outcome = test.try_import(good, "nodir/sub/db");
  CHECK_MESSAGE(test.says(outcome, "there is no directory 'nodir' on the mount: make it first, as by mkdir " +
                                       test.cluster.node(0).path("nodir")),
                outcome.text);
  outcome = test.try_import(good, "db/x");
  CHECK_MESSAGE(test.says(outcome, "'db' is a database, and no directory for 'db/x'"), outcome.text);
  outcome = test.try_import(good, "x-wal");
  CHECK_MESSAGE(test.says(outcome, "'x-wal' cannot be a database's name"), outcome.text);
  outcome = test.shell(": | " + test.program() + " import -data " + test.cluster.node(0).data() + " - db");
  CHECK_MESSAGE(test.says(outcome, "standard input is empty"), outcome.text);
  test.check_content(good, "db");
}

TEST_CASE("a full disk leaves the old database") {
  SmallDisk disk("64m");
  std::string small = disk.path() + ".small", large = disk.path() + ".large";  // not on it
  Shape shape{.rows = 10000, .value = "old"};
  SUBCASE("in WAL") { shape.mode = "WAL"; }
  SUBCASE("in a rollback mode") {}
  make_file(small, shape);
  shape.rows = 80000;
  make_file(large, shape);
  {
    ClusterOptions options = cluster_options(1);
    options.parent = disk.path();
    ImportTest test(options);
    test.import(small, "db");
    std::string before = test.dump(small);
    for (const char* name : {"db", "other"}) {
      Outcome outcome = test.try_import(large, name);
      CHECK_MESSAGE(outcome.code == 1, outcome.text);
      // SQLite's own file has no room, or the change log, for which the node refuses the commit.
      CHECK_MESSAGE((test.says(outcome, "full") || test.says(outcome, "I/O error")), outcome.text);
      CHECK_MESSAGE(test.says(outcome, "as it was"), outcome.text);
    }
    CHECK(test.dump(test.cluster.node(0).path("db")) == before);
    test.cluster.restart(0);
    CHECK(test.cluster.status(0).find("other") == nullptr);
    test.check_content(small, "db");
  }
  fs::remove(small);
  fs::remove(large);
}

TEST_CASE("a replica refuses an import and names the primary") {
  ImportTest test(2);
  std::string file = test.cluster.scratch("file.db");
  make_file(file, {});
  Outcome outcome = test.try_import(file, "db", "30s", 1);
  CHECK(outcome.code == 1);
  CHECK_MESSAGE(test.says(outcome, "this node is a replica; import on the primary, node0 (http://127.0.0.1:" +
                                       std::to_string(test.cluster.node(0).port()) + ")"),
                outcome.text);
}

TEST_CASE("an export is the database at one position, on the primary and on a replica") {
  ImportTest test(2);
  std::string file = test.cluster.scratch("file.db"), copy = test.cluster.scratch("copy.db");
  Shape shape{.rows = 5000};
  SUBCASE("of a rollback mode") {}
  SUBCASE("of WAL") { shape.mode = "WAL"; }
  make_file(file, shape);
  test.import(file, "db");
  App app = test.cluster.open(0, "db");
  app.sql("DELETE FROM t WHERE id % 3 = 0");
  test.cluster.wait_for_equal(kSoon);
  std::string position = test.cluster.position(0, "db");
  for (size_t node : {0, 1}) {
    fs::remove(copy);
    Outcome outcome = test.try_export(node, "db", copy);
    check_export(outcome, copy);
    CHECK(exported_position(outcome) == position);
    CHECK(test.dump(copy) == test.dump(test.cluster.node(0).path("db")));
  }
  app.close();
  std::string before = read_text_file(copy);
  Outcome refused = test.try_export(0, "db", copy);
  CHECK(refused.code == 1);
  CHECK_MESSAGE(test.says(refused, "exists; --force replaces it"), refused.text);
  CHECK((read_text_file(copy) == before));
  std::ofstream(copy + "-wal") << "x";
  refused = test.try_export(0, "db", copy, true);
  CHECK_MESSAGE(test.says(refused, "-wal exists"), refused.text);
  fs::remove(copy + "-wal");
  std::ofstream(copy) << "something else";
  check_export(test.try_export(0, "db", copy, true), copy);
  refused = test.try_export(0, "none", copy, true);
  CHECK_MESSAGE(test.says(refused, "there is no database 'none'"), refused.text);
  // Nothing is left beside it.
  for (const auto& entry : fs::directory_iterator(fs::path(copy).parent_path())) {
    CHECK(entry.path().filename().string().find("litefs-export") == std::string::npos);
  }
}

TEST_CASE("an export while writers go on is a state that was committed") {
  ImportTest test(2);
  test.cluster.run_app({"init", test.cluster.node(0).path("db"), "4096"});
  SUBCASE("in WAL") {}
  SUBCASE("in a rollback mode") {
    App app = test.cluster.open(0, "db");
    CHECK(app.value("PRAGMA journal_mode=DELETE") == "delete");
    app.close();
  }
  Ledger ledger(test.cluster, "db");
  std::vector<std::unique_ptr<Process>> writers;
  for (uint64_t i = 0; i < 3; i++)
    writers.push_back(ledger.spawn_writer(0, i ? "mixed" : "checkpoints", test_seed() + i));
  for (int i = 0; i < 10; i++) {
    std::string copy = test.cluster.scratch("copy" + std::to_string(i) + ".db");
    check_export(test.try_export(static_cast<size_t>(i % 2), "db", copy), copy);
    // The invariants that hold between two transactions, and never within one.
    CHECK_NOTHROW(test.cluster.run_app({"check", copy}));
  }
  for (auto& writer : writers) writer->signal(SIGTERM);
  for (auto& writer : writers) CHECK(writer->join(kCommandEnd).ok());
  test.cluster.check_same("db");
}

TEST_CASE("standard output of one is standard input of the other") {
  ImportTest test(2);
  std::string file = test.cluster.scratch("file.db");
  make_file(file, {.rows = 3000, .mode = "WAL"});
  test.import(file, "db");
  std::string node = " -data " + test.cluster.node(0).data() + " ";
  Outcome outcome =
      test.shell(test.program() + " export" + node + "db - | " + test.program() + " import" + node + "- copy");
  CHECK_MESSAGE(outcome.code == 0, outcome.text);
  CHECK_MESSAGE(test.says(outcome, "imported standard input as copy"), outcome.text);
  test.check_content(file, "copy");
  outcome = test.shell(test.program() + " import" + node + "<(cat " + file + ") third");
  CHECK_MESSAGE(outcome.code == 0, outcome.text);
  test.check_content(file, "third");
}

TEST_CASE("a node that is killed during an import has the old database or the new one") {
  std::mt19937_64 random(test_seed());
  const int64_t kills = environment_number("LITEFS_KILLS", 3);
  for (const std::string mode : {"WAL", "DELETE"}) {
    ImportTest test(2);
    std::string files[2] = {test.cluster.scratch("a.db"), test.cluster.scratch("b.db")};
    make_file(files[0], {.rows = 20000, .mode = mode, .value = "a"});
    make_file(files[1], {.rows = 30000, .mode = mode, .value = "b"});
    std::string contents[2] = {test.dump(files[0]), test.dump(files[1])};
    test.import(files[0], "db");
    size_t now = 0;
    for (int64_t i = 0; i < kills; i++) {
      auto import = test.spawn({test.program(), "import", "-data", test.cluster.node(0).data(), files[1 - now], "db"},
                               test.cluster.scratch("out"));
      usleep(static_cast<useconds_t>(random() % 1'500'000));
      const bool done = import->wait(Millis(0)).has_value();
      test.cluster.kill9(0);
      import->join(kCommandEnd);
      test.cluster.start_primary();
      test.cluster.wait_for_state(0, "db", "ready", kSoon);
      std::string found = test.dump(test.cluster.node(0).path("db"));
      CHECK_MESSAGE((found == contents[0] || found == contents[1]), mode);
      if (done) CHECK(found == contents[1 - now]);
      now = found == contents[0] ? 0 : 1;
      test.cluster.check_same("db");
    }
  }
}

TEST_CASE("an import that is killed has happened or not; one that says it was interrupted has not") {
  ImportTest test(2);
  std::string files[2] = {test.cluster.scratch("a.db"), test.cluster.scratch("b.db")};
  for (const std::string mode : {"DELETE", "WAL"}) {
    make_file(files[0], {.rows = 20000, .mode = mode, .value = "a"});
    make_file(files[1], {.rows = 30000, .mode = mode, .value = "b"});
    const std::string contents[2] = {test.dump(files[0]), test.dump(files[1])};
    std::mt19937_64 random(test_seed());
    for (int signal : {SIGKILL, SIGINT, SIGKILL, SIGINT, SIGKILL, SIGINT}) {
      test.import(files[0], mode);
      std::string output = test.cluster.scratch("out");
      fs::remove(output);
      auto import =
          test.spawn({test.program(), "import", "-data", test.cluster.node(0).data(), files[1], mode}, output);
      usleep(static_cast<useconds_t>(random() % 600'000));
      import->signal(signal);
      ExitStatus status = import->join(kCommandEnd);
      test.cluster.check_same(mode);
      std::string found = test.dump(test.cluster.node(0).path(mode));
      CHECK((found == contents[0] || found == contents[1]));
      if (status.code == 0) CHECK(found == contents[1]);
      if (status.code == 1) {
        CHECK(found == contents[0]);
        CHECK(read_text_file(output).find("interrupted") != std::string::npos);
      }
    }
  }
}
