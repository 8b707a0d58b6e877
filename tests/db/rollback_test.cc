#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
// The rollback-journal modes: the log, replayed, is the file, after whatever an application does and wherever it or the
// node dies.
//
// LITEFS_TRANSACTIONS: how many random steps in each of the first tests (default 3,000).
#include <cstdlib>
#include <iostream>

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
      if (app.in_wal()) REQUIRE(story.db->drain(true).ok());
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
