// A replica is taken over while readers go on, wherever its host has died: in the midst of applying, too.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "db/live_story.h"
#include "faulty_file_system.h"

using namespace litefs;
using namespace litefs::test;

namespace {

constexpr size_t kLargeBytes = 1u << 20;

Guest::Host nobody() {
  return [](const std::string&, const std::string&) { return Status(); };
}

// The records of a primary's history, small and large, in which n counts the transactions since its table was made.
const std::vector<Bytes>& history() {
  static const std::vector<Bytes> records = [] {
    LiveStory primary;
    auto app = primary.guest();
    app->run("PRAGMA page_size=1024");
    app->run("PRAGMA journal_mode=WAL");
    REQUIRE(app->run("CREATE TABLE t(x); CREATE TABLE n(n); INSERT INTO n VALUES(0)") == "");
    for (int i = 1; i <= 40; ++i) {
      std::string sql = "BEGIN; UPDATE n SET n = n + 1;";
      sql += "INSERT INTO t WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < " +
             std::to_string(i == 20 ? 2000 : 3 + i % 7) + ") SELECT randomblob(700) FROM c;";
      if (i % 6 == 0) sql += "DELETE FROM t WHERE rowid % 3 = 0;";
      REQUIRE(app->run(sql + "COMMIT") == "");
      if (i == 30) REQUIRE(app->run("DELETE FROM t WHERE rowid > 100; VACUUM") == "");
    }
    REQUIRE(primary.db->drain(true).ok());
    // Another page size: a record that replaces the file.
    REQUIRE(app->run("PRAGMA journal_mode=DELETE; PRAGMA page_size=2048; VACUUM; PRAGMA journal_mode=WAL; UPDATE n SET "
                     "n = n + 1") == "delete\nwal");
    REQUIRE(primary.db->drain(true).ok());
    std::vector<Bytes> out;
    auto cursor = primary.db->read_log_after(Position()).value();
    while (cursor->next().value()) {
      out.emplace_back(cursor->record().size_bytes());
      REQUIRE(cursor->record().read(0, out.back()).ok());
    }
    return out;
  }();
  return records;
}

Status apply_all(Database& db, const std::vector<Bytes>& records) {
  for (const Bytes& record : records) {
    if (record.size() <= kLargeBytes) {
      TRY(db.apply({record}));
      continue;
    }
    RecordHeader header = TRY(decode_record_header(record));
    if (header.txid_last <= db.info().received.txid) continue;
    TRY(db.begin_large_record());
    TRY(db.append_large_record(record));
    TRY(db.finish_large_record());
  }
  return {};
}

std::vector<Bytes> part(size_t begin, size_t end) {
  const std::vector<Bytes>& all = history();
  return {all.begin() + static_cast<ptrdiff_t>(begin), all.begin() + static_cast<ptrdiff_t>(std::min(end, all.size()))};
}

constexpr size_t kBefore = 12;
constexpr uint64_t kReplacing = 25;  // operations at the end that replace the file, about

// Up to the record that replaces the file, behind which connections on the old one get errors.
std::vector<Bytes> before_replacement() {
  size_t i = history().size();
  while (!(decode_record_header(history()[--i]).value().flags & RecordHeader::kCreate)) {
  }
  return part(0, i);
}

// What a host does that dies at some operation. Answers how many there were.
uint64_t live_and_die(TestNode& node, FaultyFileSystem& files, const FaultPlan& plan) {
  std::shared_ptr<Database> db = node.database("app.db");
  files.plan(plan);
  try {
    static_cast<void>(apply_all(*db, part(kBefore, history().size())).ok());
  } catch (const Killed&) {
  }
  return files.operations();
}

// Until it succeeds: where readers must first recover the index, they do so by reading.
void take_over(TestNode& node, Guest& reader) {
  std::shared_ptr<Database> db = node.database("app.db");
  Status started = db->start_live_replica();
  for (int i = 0; i < 5 && !started.ok() && started.error().code() == ErrorCode::kBusy; ++i) {
    CHECK(db->state() == DatabaseState::kFenced);
    reader.run("COMMIT");
    reader.run("SELECT n FROM n");
    started = db->start_live_replica();
  }
  INFO((started.ok() ? "" : started.error().message()));
  REQUIRE(started.ok());
  CHECK(db->attached());
  CHECK(db->state() == DatabaseState::kReady);
  CHECK(db->attach().ok());
}

}  // namespace

TEST_CASE("a replica is taken over under its readers wherever its host has died") {
  auto real = posix_file_system();
  uint64_t operations = 0;
  {
    TempDir dir;
    FaultyFileSystem files(*real);
    TestNode node(dir.path(), &files);
    REQUIRE(apply_all(*node.start_replica("app.db"), part(0, kBefore)).ok());
    operations = live_and_die(node, files, {});
  }
  REQUIRE(operations > 50);
  const uint64_t stride = std::max<uint64_t>(1, operations / 40);
  for (const FaultAction action : {FaultAction::kKillBefore, FaultAction::kKillHalf, FaultAction::kKillAfter}) {
    for (uint64_t at = 1 + static_cast<uint64_t>(action) % stride; at <= operations;
         at += at + kReplacing > operations ? 1 : stride) {
      CAPTURE(at);
      CAPTURE(static_cast<int>(action));
      TempDir dir;
      FaultyFileSystem files(*real);
      auto node = std::make_unique<TestNode>(dir.path(), &files);
      REQUIRE(apply_all(*node->start_replica("app.db"), part(0, kBefore)).ok());
      Guest old(node->file("app.db"), nobody());
      Guest reader(node->file("app.db"), nobody());
      const std::string seen = old.run("BEGIN; SELECT n, (SELECT sum(length(x)) FROM t) FROM n");
      live_and_die(*node, files, {.at = at, .action = action});
      node.reset();

      node = std::make_unique<TestNode>(dir.path());
      take_over(*node, reader);
      std::shared_ptr<Database> db = node->database("app.db");
      LogReplay replay;
      {
        Guest now(node->file("app.db"), nobody());
        REQUIRE(difference(*node, *db, replay, now) == "");
      }
      CHECK(old.run("SELECT n, (SELECT sum(length(x)) FROM t) FROM n") == seen);
      REQUIRE(apply_all(*db, before_replacement()).ok());
      CHECK(old.run("SELECT n, (SELECT sum(length(x)) FROM t) FROM n") == seen);
      if (db->info().page_size == 1024) CHECK(old.run("COMMIT; SELECT n FROM n") == "40");
      REQUIRE(apply_all(*db, history()).ok());
      Guest last(node->file("app.db"), nobody());
      CHECK(last.run("SELECT n FROM n") == "41");
      REQUIRE(difference(*node, *db, replay, last) == "");
    }
  }
}

// The child of the next test: a host that takes over and applies, until it is killed.
int live_replica_host(const std::string& directory) {
  doctest::Context context;
  context.setAsDefaultForAssertsOutOfTestCases();
  TestNode node(directory);
  std::shared_ptr<Database> db = node.database("app.db");
  Status done = db->start_live_replica();
  auto files = posix_file_system();
  for (size_t i = 0; done.ok(); ++i) {
    Result<Bytes> record = files->read_all(directory + "/record-" + std::to_string(i), 64u << 20);
    if (!record.ok()) return 0;
    done = apply_all(*db, {record.value()});
  }
  return done.error().code() == ErrorCode::kBusy ? 3 : 1;
}

namespace {

void live_under_kills(std::mt19937_64& random, int& killed, int& busy) {
  TempDir dir;
  {
    TestNode node(dir.path());
    REQUIRE(apply_all(*node.start_replica("app.db"), part(0, 4)).ok());
  }
  auto files = posix_file_system();
  for (size_t i = 0; i < history().size(); ++i) {
    REQUIRE(files->write_atomically(dir.path() + "/record-" + std::to_string(i), history()[i]).ok());
  }
  const std::string path = dir.path() + "/db/app.db";
  Guest old(path, nobody());
  auto reader = std::make_unique<Guest>(path, nobody());
  CHECK(old.run("BEGIN; SELECT n FROM n") == "0");
  int64_t last = 0;
  int status = -1;
  for (int round = 0; round < 300 && status != 0; ++round) {
    const pid_t host = fork();
    REQUIRE(host >= 0);
    if (host == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      execl("/proc/self/exe", "host", "--live-replica", dir.path().c_str(), nullptr);
      _exit(127);
    }
    usleep(static_cast<useconds_t>(2000 + random() % 7000));
    kill(host, SIGKILL);
    REQUIRE(waitpid(host, &status, 0) == host);
    CAPTURE(status);
    if (WIFSIGNALED(status)) {
      ++killed;
    } else {
      REQUIRE((WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3));
      if (WEXITSTATUS(status) == 3) {
        ++busy;
        old.run("COMMIT");
      }
    }
    std::string n = reader->run("SELECT n FROM n");
    for (int i = 0; i < 3 && n.find_first_not_of("0123456789") != std::string::npos; ++i) {  // the file was replaced
      reader = std::make_unique<Guest>(path, nobody());
      n = reader->run("SELECT n FROM n");
    }
    INFO("n is ", n);
    REQUIRE(n.find_first_not_of("0123456789") == std::string::npos);
    CHECK(std::stoll(n) >= last);
    last = std::stoll(n);
    CHECK(reader->run("PRAGMA integrity_check") == "ok");
    if (round % 10 == 9) old.run("COMMIT; BEGIN; SELECT n FROM n");
  }
  old.run("COMMIT");
  TestNode node(dir.path());
  take_over(node, *reader);
  std::shared_ptr<Database> db = node.database("app.db");
  REQUIRE(apply_all(*db, history()).ok());
  reader = std::make_unique<Guest>(path, nobody());
  LogReplay replay;
  REQUIRE(difference(node, *db, replay, *reader) == "");
  CHECK(reader->run("SELECT n FROM n") == "41");
}

}  // namespace

TEST_CASE("a replica's hosts are killed one after the other while readers go on") {
  std::mt19937_64 random(std::random_device{}());
  int killed = 0, busy = 0;
  for (int life = 0; life < 5; ++life) live_under_kills(random, killed, busy);
  MESSAGE(killed << " hosts killed, " << busy << " times the readers had to recover");
}

TEST_CASE("a reader that has checkpointed and cut the WAL while no host was there leaves a replica that can go on") {
  for (const char* mode : {"PASSIVE", "RESTART", "TRUNCATE"}) {
    CAPTURE(mode);
    TempDir dir;
    auto node = std::make_unique<TestNode>(dir.path());
    REQUIRE(apply_all(*node->start_replica("app.db"), part(0, kBefore)).ok());
    Guest reader(node->file("app.db"), nobody());
    const std::string n = reader.run("SELECT n FROM n");
    node.reset();
    reader.run(std::string("PRAGMA wal_checkpoint(") + mode + ")");
    node = std::make_unique<TestNode>(dir.path());
    take_over(*node, reader);
    CHECK(reader.run("SELECT n FROM n") == n);
    REQUIRE(apply_all(*node->database("app.db"), before_replacement()).ok());
    LogReplay replay;
    REQUIRE(difference(*node, *node->database("app.db"), replay, reader) == "");
  }
}

TEST_CASE("an index torn by its dead writer is recovered by the readers, then the replica is taken over") {
  TempDir dir;
  auto node = std::make_unique<TestNode>(dir.path());
  REQUIRE(apply_all(*node->start_replica("app.db"), part(0, kBefore)).ok());
  Guest old(node->file("app.db"), nobody()), reader(node->file("app.db"), nobody());
  const std::string seen = old.run("BEGIN; SELECT n FROM n");
  reader.run("SELECT n FROM n");
  node.reset();
  auto files = posix_file_system();
  const Bytes zeros(kWalIndexHeaderBytes);
  REQUIRE(files->open(dir.path() + "/db/app.db-shm", OpenMode::kReadWrite).value()->write_at(0, zeros).ok());
  node = std::make_unique<TestNode>(dir.path());
  std::shared_ptr<Database> db = node->database("app.db");
  Status started = db->start_live_replica();
  REQUIRE(!started.ok());
  CHECK(started.error().code() == ErrorCode::kBusy);
  CHECK(db->state() == DatabaseState::kFenced);
  CHECK(old.run("SELECT n FROM n") == seen);
  CHECK(reader.run("SELECT n FROM n") == seen);
  take_over(*node, reader);
  REQUIRE(apply_all(*db, before_replacement()).ok());
  CHECK(old.run("SELECT n FROM n") == seen);
  LogReplay replay;
  REQUIRE(difference(*node, *db, replay, reader) == "");
}
