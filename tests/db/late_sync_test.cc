// A primary whose log reaches the device a moment after the commit, as SQLite's journal leaves it.
#include <filesystem>

#include "db/capture_vfs.h"
#include "db/log_replay.h"
#include "faulty_file_system.h"
#include "node_fixture.h"
#include "shell.h"

using namespace litefs;
using namespace litefs::test;

namespace {

// A connection of this process. The answer of run() is the last value, or the error.
class Connection {
 public:
  explicit Connection(const std::string& path, const char* vfs = "capture") {
    REQUIRE(sqlite3_open_v2(path.c_str(), &db_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs) == SQLITE_OK);
  }
  ~Connection() { sqlite3_close(db_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  std::string run(const std::string& sql) {
    std::string value;
    auto take = [](void* out, int, char** values, char**) {
      *static_cast<std::string*>(out) = values[0] ? values[0] : "";
      return 0;
    };
    return sqlite3_exec(db_, sql.c_str(), take, &value, nullptr) == SQLITE_OK ? value : sqlite3_errmsg(db_);
  }

 private:
  sqlite3* db_ = nullptr;
};

std::string many_rows(int rows) {
  std::string sql;
  for (int i = 0; i < rows; ++i) sql += "INSERT INTO big VALUES(randomblob(3000));";
  return sql;
}

// A node whose log is brought to the device when the test says so, and an application in its process.
struct Story {
  Story() {
    node.run_later = [this](std::function<void()> job) { due.push_back(std::move(job)); };
    node.restart();
    db = node.start_primary("app.db", 1);
    // As of a guest's.
    vfs.set_unseen(true);
    db->set_writes_unseen(true);
    vfs.set_databases([this](const std::string& name) { return name == "app.db" ? db : nullptr; });
    app = std::make_unique<Connection>(node.file("app.db"));
    REQUIRE(app->run("PRAGMA synchronous=FULL; CREATE TABLE t(v); INSERT INTO t VALUES(0)") == "");
    sync_all();
  }
  void sync_all() {
    for (const std::function<void()>& sync : std::exchange(due, {})) sync();
  }
  Position commit() {
    CHECK(app->run("UPDATE t SET v=v+1") == "");
    return db->position();
  }

  std::unique_ptr<FileSystem> real = posix_file_system();
  TempDir dir;
  FaultyFileSystem files{*real};
  TestNode node{dir.path(), &files};
  std::shared_ptr<Database> db;
  CaptureVfs vfs{"capture"};
  std::vector<std::function<void()>> due;
  std::unique_ptr<Connection> app;
};

// What of the node's own files the device had when the power failed: as at the last sync, or as at the end.
struct Cut {
  bool log = false;  // true: as at the end
  bool sums = false;
  bool control = false;
};

// A node's files of a database as they were when a clean stop had brought them to the device.
class AtRest {
 public:
  explicit AtRest(const std::string& directory) : meta_(directory + "/meta/app.db/"), kept_(directory + "/kept/") {
    std::filesystem::copy(meta_, kept_);
  }
  // After a power cut.
  void put_back(const std::vector<std::string>& files) const {
    for (const std::string& file : files) {
      std::filesystem::copy_file(kept_ + file, meta_ + file, std::filesystem::copy_options::overwrite_existing);
    }
    put_on_another_boot(meta_ + "control");
  }

 private:
  std::string meta_;
  std::string kept_;
};

void power_fails(Story& story, const std::string& synced, const Cut& cut) {
  story.vfs.die();
  story.app.reset();
  story.vfs.set_databases(nullptr);
  story.db.reset();
  const std::string now = story.dir.path() + "/meta/app.db";
  auto take = [&](const std::string& name) {
    std::filesystem::remove_all(now + name);
    std::filesystem::copy(synced + "/app.db" + name, now + name, std::filesystem::copy_options::recursive);
  };
  if (!cut.log) take("/log");
  if (!cut.sums) take("/sums");
  if (!cut.control) take("/control");
  put_on_another_boot(now + "/control");
}

}  // namespace

TEST_CASE("what a power cut takes of the node's own files is taken from the database file again") {
  for (const int lost : {1, 2, 7}) {
    for (const Cut cut : {Cut{}, Cut{.sums = true}, Cut{.control = true}, Cut{.sums = true, .control = true},
                          Cut{.log = true}, Cut{.log = true, .sums = true}, Cut{.log = true, .control = true}}) {
      CAPTURE(lost);
      CAPTURE(cut.log);
      CAPTURE(cut.sums);
      CAPTURE(cut.control);
      Story story;
      for (int i = 0; i < 5; ++i) story.commit();
      const std::string synced = story.dir.path() + "/synced";
      story.sync_all();
      std::filesystem::copy(story.dir.path() + "/meta", synced, std::filesystem::copy_options::recursive);
      Position last;
      for (int i = 0; i < lost; ++i) last = story.commit();
      CHECK(story.due.size() == 1);
      power_fails(story, synced, cut);

      TestNode node(story.dir.path(), story.real.get());
      std::shared_ptr<Database> db = node.start_primary("app.db", 2);
      CHECK_FALSE(std::filesystem::exists(story.dir.path() + "/meta/app.db/lost"));
      // One transaction that was lost is the same again, to replicas too. Of several the last state is.
      CHECK(db->position().checksum == last.checksum);
      CHECK((db->position() == last) == (lost == 1 || cut.log));
      LogReplay replay;
      REQUIRE(replay.follow(*db) == "");
      CHECK(replay.difference(node.file("app.db")) == "");
      CHECK(Shell(node.file("app.db"), true).run("SELECT v FROM t;") == std::to_string(5 + lost));
      // And it goes on from there.
      CaptureVfs vfs("later");
      vfs.set_unseen(true);
      db->set_writes_unseen(true);
      vfs.set_databases([&](const std::string& name) { return name == "app.db" ? db : nullptr; });
      CHECK(Connection(node.file("app.db"), "later").run("UPDATE t SET v=v+1") == "");
      CHECK(db->position().txid.value == node.batches().back().after.txid.value);
      REQUIRE(replay.follow(*db) == "");
      CHECK(replay.difference(node.file("app.db")) == "");
    }
  }
}

TEST_CASE("a journal that a power cut brings back is rolled back where the log lacks its transaction") {
  for (const Cut cut : {Cut{}, Cut{.sums = true, .control = true}, Cut{.log = true}, Cut{.log = true, .sums = true},
                        Cut{.log = true, .control = true}, Cut{.log = true, .sums = true, .control = true}}) {
    CAPTURE(cut.log);
    CAPTURE(cut.sums);
    CAPTURE(cut.control);
    Story story;
    // Free pages, which SQLite does not journal when it takes them into use again.
    REQUIRE(story.app->run("CREATE TABLE big(v);" + many_rows(40) + "DELETE FROM big") == "");
    story.sync_all();
    const std::string synced = story.dir.path() + "/synced", kept = story.dir.path() + "/journal";
    std::filesystem::copy(story.dir.path() + "/meta", synced, std::filesystem::copy_options::recursive);
    const std::string journal = story.node.file("app.db-journal");
    REQUIRE(story.app->run("PRAGMA cache_size=2; BEGIN; UPDATE t SET v=7;" + many_rows(20)) == "");
    std::filesystem::create_hard_link(journal, kept);
    REQUIRE(story.app->run("COMMIT") == "");
    const Position last = story.db->position();
    power_fails(story, synced, cut);
    std::filesystem::rename(kept, journal);

    TestNode node(story.dir.path(), story.real.get());
    std::shared_ptr<Database> db = node.start_primary("app.db", 2);
    if (cut.log) CHECK(db->position() == last);
    Shell shell(node.file("app.db"), true);
    CHECK(shell.run("SELECT count(*) FROM big;") == (cut.log ? "20" : "0"));
    CHECK(shell.run("SELECT v FROM t;") == (cut.log ? "7" : "0"));
    CHECK(shell.run("PRAGMA integrity_check;") == "ok");
    LogReplay replay;
    REQUIRE(replay.follow(*db) == "");
    CHECK(replay.difference(node.file("app.db")) == "");
  }
}

TEST_CASE("what a power cut takes back to the last clean stop is behind the log") {
  for (const bool sums : {true, false}) {
    CAPTURE(sums);
    TempDir dir;
    TestNode node(dir.path());
    std::shared_ptr<Database> db = node.start_primary("app.db", 1);
    Shell(node.file("app.db")).run("PRAGMA journal_mode=WAL; CREATE TABLE t(v); INSERT INTO t VALUES(0);");
    REQUIRE(db->capture_file().ok());
    REQUIRE(db->stop().ok());
    const AtRest at_rest(dir.path());
    db.reset();
    node.restart();
    db = node.start_primary("app.db", 2);
    Shell shell(node.file("app.db"));
    for (int i = 0; i < 5; ++i) {
      shell.run("UPDATE t SET v=v+1;");
      if (i == 0) REQUIRE(db->tail_opened(false).ok());
      if (i == 0) REQUIRE(db->tail_opened(true).ok());
      REQUIRE(db->drain(true).ok());
    }
    const Position last = db->position();
    CHECK(last.epoch.value == 2);
    shell.kill9();
    db.reset();
    at_rest.put_back(sums ? std::vector<std::string>{"control", "sums"} : std::vector<std::string>{"control"});

    node.restart();
    db = node.start_primary("app.db", 3);
    CHECK(db->position() == last);
    CHECK(Shell(node.file("app.db")).run("SELECT v FROM t;") == "5");
    LogReplay replay;
    REQUIRE(replay.follow(*db) == "");
    CHECK(replay.difference(node.file("app.db")) == "");
  }
}

TEST_CASE("a database that was begun before a power cut keeps its id") {
  TempDir dir;
  TestNode node(dir.path());
  std::shared_ptr<Database> db = node.start_primary("app.db", 1);
  REQUIRE(db->stop().ok());
  const AtRest at_rest(dir.path());
  db.reset();
  node.restart();
  db = node.start_primary("app.db", 2);
  Shell(node.file("app.db")).run("CREATE TABLE t(v);");
  REQUIRE(db->capture_file().ok());
  const DatabaseId id = db->id();
  const Position last = db->position();
  CHECK(id.value != 0);
  CHECK(last.txid.value == 1);
  db.reset();
  at_rest.put_back({"control"});
  node.restart();
  db = node.start_primary("app.db", 3);
  CHECK(db->id() == id);
  CHECK(db->position() == last);
}

TEST_CASE("a removal that a power cut takes back from the node's own files is in the log") {
  for (const std::string mode : {"WAL", "DELETE"}) {
    for (const bool file_back : {false, true}) {
      CAPTURE(mode);
      CAPTURE(file_back);
      TempDir dir;
      TestNode node(dir.path());
      const std::string file = node.file("app.db");
      std::filesystem::create_directories(dir.path() + "/db");
      Shell(file).run("PRAGMA journal_mode=" + mode + "; CREATE TABLE t(v);");
      std::shared_ptr<Database> db = node.start_primary("app.db", 1);
      REQUIRE(db->stop().ok());
      const AtRest at_rest(dir.path());
      std::filesystem::copy_file(file, file + ".kept");
      db.reset();
      node.restart();
      db = node.start_primary("app.db", 2);
      const DatabaseId id = db->id();
      REQUIRE(db->drop().ok());
      std::filesystem::remove(file);
      const Position dropped = db->position();
      CHECK(dropped.txid.value == 2);
      db.reset();
      at_rest.put_back({"control"});
      if (file_back) std::filesystem::rename(file + ".kept", file);

      for (uint64_t epoch : {3, 4}) {
        node.restart();
        db = node.start_primary("app.db", epoch);
        CHECK(db->position() == dropped);
        CHECK_FALSE(std::filesystem::exists(file));
        db.reset();
      }
      Shell(file).run("PRAGMA journal_mode=" + mode + "; CREATE TABLE t(v);");
      node.restart();
      db = node.start_primary("app.db", 5);
      CHECK(db->position().txid.value == 3);
      CHECK(db->id() == id);
    }
  }
}

TEST_CASE("a log that could not be synced later stops the database, before somebody else begins to write") {
  Story story;
  story.commit();
  REQUIRE(story.due.size() == 1);
  story.files.plan({.at = 1, .error = ErrorCode::kIo, .kinds = kFaultSync});
  story.sync_all();
  CHECK(story.db->state() == DatabaseState::kStopped);
  CHECK(story.db->info().detail != "");
  CHECK(story.app->run("SELECT v FROM t") == "1");
}

TEST_CASE("a log that was found by the next commit not to be synced stops the database") {
  Story story;
  story.commit();
  REQUIRE(story.due.size() == 1);
  story.files.plan({.at = 1, .error = ErrorCode::kIo, .kinds = kFaultSync});
  // Somebody who wants it synced now comes before its time.
  CHECK_FALSE(story.db->stop().ok());
  story.due.front()();
  CHECK(story.db->state() == DatabaseState::kStopped);
}

TEST_CASE("where SQLite syncs the removal of its journal, or its end, the record is synced before") {
  Story story;
  for (const char* how : {"PRAGMA synchronous=EXTRA", "PRAGMA synchronous=FULL; PRAGMA journal_mode=TRUNCATE",
                          "PRAGMA journal_mode=PERSIST", "PRAGMA journal_mode=DELETE; PRAGMA locking_mode=EXCLUSIVE"}) {
    CAPTURE(how);
    (void)story.app->run(how);
    story.commit();
    story.due.clear();
    story.files.plan({.kinds = kFaultSync});
    story.commit();
    CHECK(story.due.empty());
    CHECK(story.files.operations() >= 1);
  }
}
