#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
// The rollback-journal modes: the log, replayed, is the file, after whatever an application does and wherever it or the
// node dies.
//
// LITEFS_TRANSACTIONS: how many random steps in each of the first tests (default 3,000).
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>

#include "db/capture_vfs.h"
#include "db/log_replay.h"
#include "db/random_application.h"
#include "faulty_file_system.h"
#include "node_fixture.h"

using namespace litefs;
using namespace litefs::test;

namespace {

uint64_t number(const char* name, uint64_t otherwise) {
  const char* given = std::getenv(name);
  return given ? std::strtoull(given, nullptr, 0) : otherwise;
}

uint64_t seed() {
  static const uint64_t seed = [] {
    uint64_t s = number("LITEFS_TEST_SEED", std::random_device{}());
    std::cout << "LITEFS_TEST_SEED=" << s << std::endl;
    return s;
  }();
  return seed;
}

// An application and a primary on the same files, in one process.
struct Story {
  explicit Story(FileSystem* files = nullptr) : faulty(*real), node(dir.path(), files ? files : &faulty) {
    db = node.start_primary("app.db", 1);
    vfs.set_databases([this](const std::string& name) { return name == "app.db" ? db : nullptr; });
  }
  RandomApplication::Options application(uint64_t with_seed) {
    return {.vfs = "capture", .path = node.file("app.db"), .seed = with_seed};
  }
  std::string check(bool compare_file) {
    std::string wrong = replay.follow(*db);
    if (wrong.empty() && compare_file) wrong = replay.difference(node.file("app.db"));
    return wrong;
  }

  std::unique_ptr<FileSystem> real = posix_file_system();
  TempDir dir;
  FaultyFileSystem faulty;
  TestNode node;
  std::shared_ptr<Database> db;
  CaptureVfs vfs{"capture"};
  LogReplay replay;
};

void run_story(bool unseen) {
  const uint64_t steps = number("LITEFS_TRANSACTIONS", 3000);
  constexpr uint64_t kStepsOfOne = 1000;
  uint64_t committed = 0, records = 0;
  for (uint64_t done = 0; done < steps; done += kStepsOfOne) {
    const uint64_t this_seed = seed() + done;
    CAPTURE(this_seed);
    Story story;
    story.vfs.set_unseen(unseen);
    story.db->set_writes_unseen(unseen);
    RandomApplication app(story.application(this_seed));
    for (uint64_t i = 0; i < kStepsOfOne; ++i) {
      app.step();
      // Where nobody asks, an end that was not seen is found when the next transaction writes.
      if (!app.in_wal() && i % 3 == 0) continue;
      REQUIRE((app.in_wal() ? story.db->drain(true) : story.db->capture_unseen_end()).ok());
      std::string wrong = story.check(!app.in_wal());
      INFO("step ", i, ", last error ", app.last_error());
      REQUIRE(wrong == "");
      REQUIRE(story.vfs.take_refusal() == "");
    }
    app.close();
    REQUIRE(story.check(true) == "");
    CHECK(RandomApplication::count(story.node.file("app.db")) == app.committed());
    committed += static_cast<uint64_t>(app.committed());
    records += story.replay.records();
  }
  MESSAGE(committed, " transactions, ", records, " records");
}

}  // namespace

TEST_CASE("the log follows the file through random transactions in all journal modes") { run_story(false); }

TEST_CASE("and where the writes to the database file are not seen") { run_story(true); }

namespace {

// A short life of an application, the same each time, that ends at one operation.
struct Death {
  uint64_t seed = 0;
  bool unseen = false;
  FaultPlan node;              // where the node's own files fail or the process dies
  CaptureVfsPlan application;  // where the application dies, and the node with it
  bool of_machine = false;     // that is started again
};

constexpr int kStepsOfALife = 25;

// Operations of the node and of the application in the life when nothing happens to it.
std::pair<uint64_t, uint64_t> operations_of(const Death& death) {
  Story story;
  story.vfs.set_unseen(death.unseen);
  story.db->set_writes_unseen(death.unseen);
  story.faulty.plan(death.node);
  story.vfs.plan({});
  RandomApplication app(story.application(death.seed));
  for (int i = 0; i < kStepsOfALife; ++i) app.step();
  return {story.faulty.operations(), story.vfs.operations()};
}

// Starts the node on what a death has left, and dies. Operations until then, or until it was ready.
uint64_t recover_and_die(Story& story, const FaultPlan& plan) {
  FaultyFileSystem files(*story.real);
  TestNode node(story.dir.path(), &files);
  files.plan(plan);
  try {
    std::shared_ptr<Database> db = node.database("app.db");
    if (db->fence().ok()) (void)db->start_primary(Epoch{2}).ok();
  } catch (const Killed&) {
    return files.operations() + 1;
  }
  return files.operations();
}

// Starts the node on what a death has left; nothing reported committed may be missing.
void recover_and_check(Story& story, const RandomApplication& app, int more = 0) {
  TestNode node(story.dir.path(), story.real.get());
  std::shared_ptr<Database> db = node.start_primary("app.db", 3);
  const std::string path = node.file("app.db");
  LogReplay replay;
  REQUIRE(replay.follow(*db) == "");
  REQUIRE(replay.position() == db->position());
  const int64_t count = std::max<int64_t>(0, RandomApplication::count(path));  // checkpoints a WAL as it closes
  REQUIRE(replay.difference(path) == "");
  CHECK(count >= app.committed());
  CHECK(count <= app.committed() + (app.in_doubt() ? 1 : 0) + more);
}

void live_and_die(const Death& death, int deaths_in_recovery) {
  Story story;
  story.vfs.set_unseen(death.unseen);
  story.db->set_writes_unseen(death.unseen);
  story.faulty.plan(death.node);
  story.vfs.plan(death.application);
  RandomApplication app(story.application(death.seed));
  for (int i = 0; i < kStepsOfALife && !story.vfs.dead(); ++i) app.step();
  story.vfs.die();
  app.close();
  story.vfs.set_databases(nullptr);
  story.db.reset();
  const std::string control = story.dir.path() + "/meta/app.db/control";
  if (death.of_machine && std::filesystem::exists(control)) put_on_another_boot(control);
  std::mt19937_64 random(death.seed + death.node.at + death.application.kill_at);
  const FaultAction how[] = {FaultAction::kKillBefore, FaultAction::kKillHalf, FaultAction::kKillAfter};
  uint64_t most = 40;
  for (int i = 0; i < deaths_in_recovery; ++i) {
    most = std::max<uint64_t>(1, recover_and_die(story, {.at = 1 + random() % most, .action = how[random() % 3]}));
  }
  recover_and_check(story, app);
}

// Numbers 1 … count, at most `most` of them, spread.
std::vector<uint64_t> spread(uint64_t count, uint64_t most) {
  std::vector<uint64_t> numbers;
  const uint64_t stride = std::max<uint64_t>(1, (count + most - 1) / most);
  for (uint64_t n = 1 + seed() % stride; n <= count; n += stride) numbers.push_back(n);
  return numbers;
}

// Whether the file alone is the committed state: there is neither a WAL nor a hot journal. A step of an application may
// not have touched the database, and what the last one left beside it.
bool is_whole(Story& story) {
  const std::string path = story.node.file("app.db");
  Result<Bytes> journal = story.real->read_all(path + "-journal", 1 << 26);
  const bool hot = journal.ok() && !journal.value().empty() && journal.value()[0] != 0;
  Result<FileInfo> wal = story.real->info(path + "-wal");
  return !hot && (!wal.ok() || wal.value().size_bytes == 0);
}

// A connection whose statements must succeed, on the story's database, whose writes the capture does not see from
// hide_writes() on.
class Connection {
 public:
  explicit Connection(Story& story) : story_(story) {
    REQUIRE(sqlite3_open_v2(story.node.file("app.db").c_str(), &db_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                            "capture") == SQLITE_OK);
  }
  ~Connection() { sqlite3_close(db_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  int try_exec(const std::string& sql) { return sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr); }
  void exec(const std::string& sql) { REQUIRE(try_exec(sql) == SQLITE_OK); }
  void hide_writes() {
    story_.vfs.set_unseen(true);
    story_.db->set_writes_unseen(true);
  }

 private:
  Story& story_;
  sqlite3* db_ = nullptr;
};

}  // namespace

namespace {

// The first column of the first row.
std::string value_in(const std::string& path, const std::string& query) {
  std::string value;
  auto take = [](void* to, int, char** values, char**) {
    *static_cast<std::string*>(to) = values[0] ? values[0] : "";
    return 1;
  };
  sqlite3* db = nullptr;
  if (sqlite3_open(path.c_str(), &db) == SQLITE_OK) sqlite3_exec(db, query.c_str(), take, &value, nullptr);
  sqlite3_close(db);
  return value;
}

}  // namespace

// The next one plays its journal back, and may find the database opened in the other way.
TEST_CASE("the log follows the file through the deaths of applications while the node lives") {
  const uint64_t lives = number("LITEFS_TRANSACTIONS", 3000) / 10;
  Story story;
  std::mt19937_64 random(seed());
  for (uint64_t life = 0; life < lives; ++life) {
    CAPTURE(life);
    CaptureVfs vfs("life");
    vfs.set_databases([&](const std::string& name) { return name == "app.db" ? story.db : nullptr; });
    const bool unseen = random() % 2 == 0;
    CAPTURE(unseen);
    vfs.set_unseen(unseen);
    story.db->set_writes_unseen(unseen);
    // Never between the capture and what it allowed: a mount does that, whether or not who asked for it still lives.
    vfs.plan({.kill_at = 1 + random() % 200, .after = true});
    RandomApplication::Options options = story.application(random());
    options.vfs = "life";
    RandomApplication app(options);
    for (int i = 0; i < kStepsOfALife && !vfs.dead(); ++i) {
      app.step();
      if (vfs.dead()) break;
      REQUIRE(story.db->drain(true).ok());
      REQUIRE(story.check(is_whole(story)) == "");
    }
    vfs.die();
    app.close();
  }
}

TEST_CASE("death at any operation of the application loses no commit") {
  const uint64_t most = number("LITEFS_DEATHS", 150);
  for (bool unseen : {false, true}) {
    Death death{.seed = seed() + 7 * unseen, .unseen = unseen, .node = {}, .application = {}};
    for (uint64_t n : spread(operations_of(death).second, most)) {
      for (bool after : {false, true}) {
        CAPTURE(death.seed);
        CAPTURE(n);
        CAPTURE(after);
        CAPTURE(unseen);
        death.of_machine = n / 2 % 2 == 0;
        CAPTURE(death.of_machine);
        death.application = {.kill_at = n, .after = after};
        live_and_die(death, static_cast<int>(n % 3));
      }
    }
  }
}

TEST_CASE("death at any operation of the capture loses no commit") {
  const uint64_t most = number("LITEFS_DEATHS", 150);
  for (FaultAction action : {FaultAction::kKillBefore, FaultAction::kKillHalf, FaultAction::kKillAfter}) {
    Death death{.seed = seed() + 100, .unseen = action == FaultAction::kKillHalf, .node = {}, .application = {}};
    for (uint64_t n : spread(operations_of(death).first, most)) {
      CAPTURE(death.seed);
      CAPTURE(n);
      CAPTURE(static_cast<int>(action));
      death.of_machine = n / 2 % 2 == 0;
      CAPTURE(death.of_machine);
      death.node = {.at = n, .action = action};
      live_and_die(death, static_cast<int>(n % 3));
    }
  }
}

TEST_CASE("a transaction whose end and writes passed unseen is in the log with the next one") {
  Story story;
  Connection app(story);
  app.exec("CREATE TABLE a(v); CREATE TABLE b(v); INSERT INTO a VALUES(1); INSERT INTO b VALUES(1)");
  app.hide_writes();
  app.exec("UPDATE a SET v = 2");
  REQUIRE(story.check(true) == "");
  story.vfs.set_databases(nullptr);
  app.exec("UPDATE a SET v = 3");
  story.vfs.set_databases([&](const std::string&) { return story.db; });
  app.exec("UPDATE b SET v = 2");
  CHECK(story.check(true) == "");
  app.exec("UPDATE b SET v = 3");
  CHECK(story.check(true) == "");
}

TEST_CASE("a journal begun over another's tells nothing of that one's pages") {
  Story story;
  {
    Connection app(story);
    app.exec("PRAGMA cache_size=2; CREATE TABLE a(v); INSERT INTO a VALUES(zeroblob(50000))");
    app.hide_writes();
    app.exec("BEGIN; UPDATE a SET v = randomblob(50000)");
    // Another writer's header, as it goes by and as it lies there.
    auto journal = story.real->open(story.node.file("app.db") + "-journal", OpenMode::kReadWrite).value();
    Bytes header(512);
    REQUIRE(journal->read_exactly(0, header).ok());
    header[12] ^= 1;
    REQUIRE(story.db->before_journal_write(0, header).ok());
    REQUIRE(journal->write_at(0, header).ok());
    REQUIRE(journal->truncate(512).ok());
    app.try_exec("COMMIT");
  }
  CHECK(story.check(true) == "");
}

// SQLite has asked for it, so that the transaction is recorded, and then it cannot be done.
TEST_CASE("after an error of any operation of a transaction the database can be used as before") {
  for (const std::string mode : {"journal_mode=DELETE", "journal_mode=TRUNCATE", "journal_mode=PERSIST",
                                 "journal_mode=PERSIST; PRAGMA locking_mode=EXCLUSIVE"}) {
    uint64_t operations = 0;  // of all, in a first run in which none fails
    for (uint64_t failing = 0; failing <= operations; ++failing) {
      CAPTURE(mode);
      CAPTURE(failing);
      Story story;
      Connection app(story);
      app.exec("PRAGMA " + mode +
               "; CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t(v) VALUES(zeroblob(9000))");
      story.vfs.plan({.fail_at = failing});
      app.try_exec("UPDATE t SET v = 1; INSERT INTO t(v) VALUES(zeroblob(20000))");
      if (failing == 0) operations = story.vfs.operations();
      CHECK(app.try_exec("SELECT count(*) FROM t") == SQLITE_OK);
      INFO(story.vfs.take_refusal());
      CHECK(app.try_exec("INSERT INTO t(v) VALUES('after')") == SQLITE_OK);
      INFO(story.vfs.take_refusal());
      CHECK(story.check(true) == "");
    }
  }
}

// The next journal, whose transaction has not touched the file yet, is hot, and the file is ahead of the log.
TEST_CASE("a death after an end that was not seen loses nothing") {
  for (const std::string mode : {"locking_mode=EXCLUSIVE", "journal_mode=PERSIST"}) {
    CAPTURE(mode);
    Story story;
    {
      Connection app(story);
      app.exec("CREATE TABLE a(v); CREATE TABLE b(v); INSERT INTO a VALUES(1); INSERT INTO b VALUES(1)");
      REQUIRE(story.db->journal_may_be_unseen());
      app.exec("BEGIN IMMEDIATE; UPDATE a SET v = 2");
      REQUIRE(story.db->journal_unseen());
      app.exec("COMMIT; PRAGMA synchronous=OFF; PRAGMA " + mode + "; SELECT * FROM a; UPDATE a SET v = 3");
      REQUIRE(story.db->capture_unseen_end().ok());
      REQUIRE(story.check(true) == "");
      // The first in EXCLUSIVE raised the change counter, this one does not.
      app.exec("UPDATE a SET v = 4; BEGIN; UPDATE b SET v = 2");
      story.vfs.die();
    }
    story.vfs.set_databases(nullptr);
    story.db.reset();
    TestNode node(story.dir.path(), story.real.get());
    std::shared_ptr<Database> db = node.start_primary("app.db", 2);
    LogReplay replay;
    REQUIRE(replay.follow(*db) == "");
    CHECK(replay.difference(node.file("app.db")) == "");
    CHECK(value_in(node.file("app.db"), "SELECT a.v || ' ' || b.v FROM a, b") == "4 1");
  }
}

TEST_CASE("a creation that was recorded and not made final survives two deaths in its recovery") {
  const FaultAction how[] = {FaultAction::kKillBefore, FaultAction::kKillHalf, FaultAction::kKillAfter};
  for (uint64_t life = 1; life <= 4; ++life) {
    for (FaultAction action : how) {
      for (uint64_t at = 1, most = 2; at <= most; ++at) {
        CAPTURE(life);
        CAPTURE(at);
        CAPTURE(static_cast<int>(action));
        Story story;
        story.faulty.plan({.at = life, .action = FaultAction::kKillAfter});
        story.vfs.plan({});
        RandomApplication app(story.application(7));
        for (int i = 0; i < kStepsOfALife && !story.vfs.dead(); ++i) app.step();
        story.vfs.die();
        app.close();
        story.vfs.set_databases(nullptr);
        story.db.reset();
        most = std::max(most, recover_and_die(story, {.at = at, .action = action}));
        recover_and_die(story, {.at = 2, .action = action});
        recover_and_check(story, app);
      }
    }
  }
}

TEST_CASE("files behind the log are brought up to it, whatever deaths come between") {
  const FaultAction how[] = {FaultAction::kKillBefore, FaultAction::kKillHalf, FaultAction::kKillAfter};
  for (FaultAction action : how) {
    for (uint64_t at = 1, most = 2; at <= most; ++at) {
      CAPTURE(at);
      CAPTURE(static_cast<int>(action));
      Story story;
      RandomApplication::Options options = story.application(11);
      options.wal = false;
      RandomApplication app(options);
      const std::string file = story.node.file("app.db"), old = story.dir.path() + "/old";
      for (int i = 0; i < 2 * kStepsOfALife; ++i) {
        app.step();
        if (i == kStepsOfALife) std::filesystem::copy_file(file, old);
      }
      story.vfs.die();
      app.close();
      story.vfs.set_databases(nullptr);
      story.db.reset();
      // As after a power cut that took the end of the file and of what was not synced beside it.
      std::filesystem::rename(old, file);
      std::filesystem::remove(file + "-journal");
      std::filesystem::remove(story.dir.path() + "/meta/app.db/control");
      most = std::max(most, recover_and_die(story, {.at = at, .action = action}));
      recover_and_die(story, {.at = at / 2, .action = action});
      recover_and_check(story, app);
    }
  }
}

TEST_CASE("a commit that cannot be recorded is refused, and the log follows the file all the same") {
  const uint64_t steps = number("LITEFS_TRANSACTIONS", 3000);
  std::mt19937_64 random(seed());
  constexpr uint64_t kStepsOfOne = 300;
  for (uint64_t done = 0; done < steps; done += kStepsOfOne) {
    const bool unseen = random() % 2;
    const uint64_t this_seed = random();
    CAPTURE(this_seed);
    CAPTURE(unseen);
    Story story;
    story.vfs.set_unseen(unseen);
    story.db->set_writes_unseen(unseen);
    RandomApplication::Options options = story.application(this_seed);
    options.wal = false;
    RandomApplication app(options);
    uint64_t refused = 0;
    for (uint64_t i = 0; i < kStepsOfOne; ++i) {
      const FaultAction how[] = {FaultAction::kFail, FaultAction::kFailHalf};
      story.faulty.plan(
          {.at = random() % 3 == 0 ? 1 + random() % 3 : 0, .action = how[random() % 2], .kinds = kFaultWrite});
      const int64_t before = app.committed();
      app.step();
      story.faulty.plan({});
      INFO("step ", i, ", last error ", app.last_error());
      if (!story.vfs.take_refusal().empty()) {
        ++refused;
        CHECK(app.committed() <= before + 1);
      }
      REQUIRE(story.replay.follow(*story.db) == "");
    }
    app.close();
    INFO("last error ", app.last_error());
    // Whoever comes next rolls back what had an error at its end.
    const int64_t count = RandomApplication::count(story.node.file("app.db"), "capture");
    INFO("refusal ", story.vfs.take_refusal());
    CHECK(count >= app.committed());
    INFO("refusal ", story.vfs.take_refusal());
    // What could not when a transaction was rolled back is, with the next one.
    REQUIRE(story.db->capture_file().ok());
    REQUIRE(story.check(true) == "");
    CHECK(refused > 0);
  }
}

TEST_CASE("a log that cannot be synced stops the database; the next start has all that was reported committed") {
  for (uint64_t n = 1; n <= 12; n += 3) {
    CAPTURE(n);
    Story story;
    RandomApplication::Options options = story.application(seed() + n);
    options.wal = false;
    RandomApplication app(options);
    story.faulty.plan({.at = n, .kinds = kFaultSync});
    // With synchronous=OFF the log is not synced.
    for (int i = 0; i < 5000 && story.db->info().state != DatabaseState::kStopped; ++i) app.step();
    REQUIRE(story.db->info().state == DatabaseState::kStopped);
    story.vfs.die();
    app.close();
    story.vfs.set_databases(nullptr);
    story.db.reset();
    recover_and_die(story, {.at = n, .action = FaultAction::kKillHalf});
    // The commit whose record could not be synced was answered with an error; the log has it.
    recover_and_check(story, app, 1);
  }
}

namespace {

// Two databases that an application changes in one transaction, in a rollback mode.
struct Attached {
  Attached() : faulty(*real), node(dir.path(), &faulty) {
    for (const char* name : {"a.db", "b.db"}) {
      dbs[name] = node.start_primary(name, 1);
    }
    vfs.set_databases([this](const std::string& name) { return dbs.count(name) ? dbs[name] : nullptr; });
    vfs.set_group([this](const std::string& name) { return node.store().capture_group(name); });
  }
  // Adds one to both counts in each of `transactions`; answers how many were reported committed.
  int run(int transactions, const std::string& mode) {
    sqlite3* db = nullptr;
    sqlite3_open_v2(node.file("a.db").c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "attached");
    auto exec = [&](const std::string& sql) {
      return sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK;
    };
    exec("PRAGMA cache_size=5; PRAGMA journal_mode=" + mode);
    exec("ATTACH '" + node.file("b.db") + "' AS b; PRAGMA b.journal_mode=" + mode);
    int committed = 0;
    // Free pages in one of them, which SQLite does not journal when it takes them into use.
    exec("CREATE TABLE main.gone(v); INSERT INTO main.gone VALUES(randomblob(99000)); DELETE FROM main.gone");
    if (exec("CREATE TABLE IF NOT EXISTS main.count(n, v); CREATE TABLE IF NOT EXISTS b.count(n, v)") &&
        exec("INSERT INTO main.count SELECT 0, 0 WHERE NOT EXISTS (SELECT * FROM main.count);"
             "INSERT INTO b.count SELECT 0, 0 WHERE NOT EXISTS (SELECT * FROM b.count)")) {
      for (int i = 0; i < transactions && !vfs.dead(); ++i) {
        bool done = exec(
                        "BEGIN; UPDATE main.count SET n = n + 1, v = randomblob(9000); UPDATE b.count SET n = n + 1, v "
                        "= randomblob(9000)") &&
                    exec("COMMIT");
        if (done) ++committed;
        if (!sqlite3_get_autocommit(db)) exec("ROLLBACK");
      }
    }
    sqlite3_close(db);
    return committed;
  }

  std::unique_ptr<FileSystem> real = posix_file_system();
  TempDir dir;
  FaultyFileSystem faulty;
  TestNode node;
  std::map<std::string, std::shared_ptr<Database>> dbs;
  CaptureVfs vfs{"attached"};
};

}  // namespace

TEST_CASE("a transaction over attached databases that was reported committed is in all of them after any death") {
  for (const std::string mode : {"DELETE", "TRUNCATE", "PERSIST"}) {
    uint64_t application = 0, capture = 0;
    {
      Attached story;
      story.faulty.plan({});
      story.vfs.plan({});
      CHECK(story.run(3, mode) == 3);
      application = story.vfs.operations();
      capture = story.faulty.operations();
      for (const char* name : {"a.db", "b.db"}) {
        LogReplay replay;
        REQUIRE(replay.follow(*story.dbs[name]) == "");
        CHECK(replay.difference(story.node.file(name)) == "");
      }
    }
    struct End {
      bool of_application;
      uint64_t n;
      bool after;
      bool of_machine;
    };
    std::vector<End> ends;
    for (bool after : {false, true}) {
      for (bool of_machine : {false, true}) {
        for (uint64_t n : spread(application, number("LITEFS_DEATHS", 150) / 4)) {
          ends.push_back({true, n, after, of_machine});
        }
        for (uint64_t n : spread(capture, number("LITEFS_DEATHS", 150))) ends.push_back({false, n, after, of_machine});
      }
    }
    for (const End& end : ends) {
      CAPTURE(mode);
      CAPTURE(end.of_application);
      CAPTURE(end.n);
      CAPTURE(end.after);
      CAPTURE(end.of_machine);
      Attached story;
      if (end.of_application) {
        story.vfs.plan({.kill_at = end.n, .after = end.after});
      } else {
        story.faulty.plan({.at = end.n, .action = end.after ? FaultAction::kKillAfter : FaultAction::kKillHalf});
      }
      const int committed = story.run(3, mode);
      story.vfs.die();
      story.vfs.set_databases(nullptr);
      story.vfs.set_group(nullptr);
      story.dbs.clear();
      for (const char* name : {"a.db", "b.db"}) {
        const std::string control = story.dir.path() + "/meta/" + name + "/control";
        if (end.of_machine && std::filesystem::exists(control)) put_on_another_boot(control);
      }
      {
        FaultyFileSystem files(*story.real);
        files.plan({.at = 1 + end.n % 13, .action = end.after ? FaultAction::kKillAfter : FaultAction::kKillHalf});
        try {
          TestNode dying(story.dir.path(), &files);
          for (const char* name : {"a.db", "b.db"}) {
            std::shared_ptr<Database> db = dying.database(name);
            if (db->fence().ok()) (void)db->start_primary(Epoch{2}).ok();
          }
        } catch (const Killed&) {
        }
      }
      TestNode node(story.dir.path(), story.real.get());
      std::vector<int64_t> counts;
      for (const char* name : {"a.db", "b.db"}) {
        CAPTURE(name);
        std::shared_ptr<Database> db = node.start_primary(name, 3);
        LogReplay replay;
        REQUIRE(replay.follow(*db) == "");
        REQUIRE(replay.difference(node.file(name)) == "");
        const int64_t count = std::max<int64_t>(0, RandomApplication::count(node.file(name)));
        CHECK(count >= committed);
        CHECK(count <= committed + 1);
        counts.push_back(count);
      }
      CHECK(counts[0] == counts[1]);
    }
  }
}

TEST_CASE("a transaction with a database elsewhere as the main one is refused, and each can be committed by itself") {
  for (const std::string mode : {"DELETE", "TRUNCATE", "PERSIST"}) {
    CAPTURE(mode);
    Attached story;
    story.faulty.plan({});
    story.vfs.plan({});
    CHECK(story.run(1, mode) == 1);
    sqlite3* db = nullptr;
    REQUIRE(sqlite3_open_v2((story.dir.path() + "/elsewhere.db").c_str(), &db,
                            SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "attached") == SQLITE_OK);
    auto exec = [&](const std::string& sql) { return sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr); };
    REQUIRE(exec("ATTACH '" + story.node.file("b.db") + "' AS b; PRAGMA b.journal_mode=" + mode) == SQLITE_OK);
    REQUIRE(exec("CREATE TABLE main.count(n); INSERT INTO main.count VALUES(0)") == SQLITE_OK);
    CHECK(exec("BEGIN; UPDATE main.count SET n = n + 1; UPDATE b.count SET n = n + 1; COMMIT") == SQLITE_IOERR);
    CHECK(story.vfs.take_refusal().find("elsewhere.db-mj") != std::string::npos);
    if (!sqlite3_get_autocommit(db)) exec("ROLLBACK");
    CHECK(RandomApplication::count(story.node.file("b.db")) == 1);
    CHECK(exec("UPDATE b.count SET n = n + 1") == SQLITE_OK);
    CHECK(exec("UPDATE main.count SET n = n + 1") == SQLITE_OK);
    sqlite3_close(db);
    CHECK(RandomApplication::count(story.node.file("b.db")) == 2);
    LogReplay replay;
    REQUIRE(replay.follow(*story.dbs["b.db"]) == "");
    CHECK(replay.difference(story.node.file("b.db")) == "");
  }
}
