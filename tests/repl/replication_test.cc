#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN

#include "repl/fixture.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

constexpr size_t kQueueBound = kSendQueueBytesMax + 3 * (1u << 20);  // and the reads under way

SessionTimes quick_times() {
  return {.hello_deadline_ms = 5000, .dead_peer_ms = 10000, .heartbeat_ms = 20, .database_retry_ms = 20, .tick_ms = 5};
}

TestReplicaOptions quick_replica(uint64_t node = 2) {
  TestReplicaOptions options;
  options.identity.node = NodeId{node};
  options.connector.times = quick_times();
  return options;
}

const ReplicaStatus::Database* find(const ReplicaStatus& status, const std::string& name) {
  for (const auto& d : status.databases) {
    if (d.name == name) return &d;
  }
  return nullptr;
}

}  // namespace

TEST_CASE("commits reach a replica from memory and are acknowledged") {
  TempDir dir;
  TestPrimary primary(dir.path());
  TestReplica replica;
  primary.commit("a.db");
  replica.follow(primary.address());
  REQUIRE(replica.wait_position("a.db", primary.position("a.db")));
  int feeds = primary.feeds;
  for (int i = 0; i < 500; ++i) primary.commit("a.db", i % 50 ? 512 : 300000);
  Position last = primary.commit("a.db");
  REQUIRE(replica.wait_position("a.db", last));
  CHECK(replica.db("a.db").records == last.txid.value);
  CHECK(primary.feeds - feeds <= 8);  // the log was hardly read

  auto acked = [&] { return primary.held_through == last.txid.value; };
  CHECK(replica.wait([&] { return acked(); }));
  std::vector<ReplicaStatus> status = primary.status();
  REQUIRE(status.size() == 1);
  CHECK(status[0].replica.node == NodeId{2});
  CHECK(status[0].replica.host_name == "two");
  CHECK(status[0].connected_wall_ms > 0);
  CHECK(status[0].bytes_sent > 500 * 512);
  const auto* db = find(status[0], "a.db");
  REQUIRE(db);
  CHECK(db->sent == last);
  CHECK(db->durable == last.txid);
}

TEST_CASE("a slow replica of busy databases misses nothing and costs bounded memory") {
  TempDir dir;
  TestPrimary primary(dir.path());
  TestReplica replica;
  // Pauses at each 40th piece until the loop comes round again.
  int pieces = 0;
  std::vector<std::unique_ptr<Timer>> timers;
  replica.on_piece = [&](ReplicaSession& session) {
    if (++pieces % 40 != 0) return;
    session.pause();
    timers.clear();
    timers.push_back(replica.thread().loop().timer([&] {
      if (replica.connector().session()) replica.connector().session()->resume();
    }));
    timers.back()->start(1);
  };
  replica.follow(primary.address());
  std::vector<std::thread> writers;
  for (int w = 0; w < 3; ++w) {
    writers.emplace_back([&, w] {
      for (int i = 0; i < 600; ++i) primary.commit("db" + std::to_string(w), i % 3 ? 20000 : 512);
    });
  }
  for (std::thread& t : writers) t.join();
  for (int w = 0; w < 3; ++w) {
    std::string name = "db" + std::to_string(w);
    REQUIRE(replica.wait_position(name, primary.position(name)));
    CHECK(replica.db(name).records == 600);
  }
  CHECK(primary.snapshots == 0);
  CHECK(primary.queue_peak() <= kQueueBound);
  CHECK(replica.sessions == 1);
  replica.thread().call([&] { timers.clear(); });
}

TEST_CASE("a replica that stands still keeps the queue bounded, then catches up from the log") {
  TempDir dir;
  TestPrimary primary(dir.path());
  TestReplica replica(quick_replica());
  primary.commit("a.db");
  replica.follow(primary.address());
  REQUIRE(replica.wait_position("a.db", primary.position("a.db")));
  replica.thread().call([&] { replica.connector().session()->pause(); });
  // More than the queue and what the sockets of both sides take.
  for (int i = 0; i < 500; ++i) primary.commit("a.db", 65536);
  CHECK(replica.db("a.db").records == 1);
  CHECK(primary.queue_peak() <= kQueueBound);
  CHECK(primary.queue_peak() >= 1u << 20);
  replica.thread().call([&] { replica.connector().session()->resume(); });
  REQUIRE(replica.wait_position("a.db", primary.position("a.db")));
  // And is live again.
  Position last = primary.commit("a.db");
  REQUIRE(replica.wait_position("a.db", last));
  CHECK(std::string(find(primary.status()[0], "a.db")->state) == "live");
  CHECK(replica.sessions == 1);
  CHECK(replica.db("a.db").records == last.txid.value);
}

TEST_CASE("a replica disconnected at random moments continues exactly where it was") {
  TempDir dir;
  TestPrimary primary(dir.path());
  TestReplica replica;
  std::mt19937_64 random(test_seed());
  replica.follow(primary.address());
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int i = 0; !stop; ++i) {
      primary.commit("a.db", i % 20 ? 700 : 400000);
      primary.commit("b.db");
      if (i % 16 == 0) std::this_thread::yield();
    }
  });
  for (int round = 0; round < 25; ++round) {
    // Somewhere within what comes next, in the middle of a record as well.
    std::string name = random() % 2 ? "a.db" : "b.db";
    uint64_t target = replica.db(name).records + random() % 60 + 1;
    REQUIRE(replica.wait([&] { return replica.dbs[name].records >= target; }));
    if (random() % 2) {
      replica.disconnect();
    } else {
      primary.thread().call([&] { primary.server().goodbye(wire::GoodbyeReason::kOther, "test", ""); });
    }
  }
  stop = true;
  writer.join();
  for (const std::string name : {"a.db", "b.db"}) {
    REQUIRE(replica.wait_position(name, primary.position(name)));
    CHECK(replica.db(name).records == primary.position(name).txid.value);
  }
  CHECK(primary.snapshots == 0);
  CHECK(replica.sessions >= 5);  // a cut may have found no connection
}

TEST_CASE("a record of 100 MB passes with bounded memory, and small databases are not held up") {
  TempDir dir;
  TestPrimary primary(dir.path());
  TestReplica replica;
  replica.follow(primary.address());
  Position small = primary.commit("small.db");
  REQUIRE(replica.wait_position("small.db", small));
  // Commits that go on while the large record is on its way.
  std::atomic<bool> large_seen{false};
  replica.on_piece = [&](ReplicaSession&) { large_seen = true; };
  Position large = primary.commit_large("large.db", 1600);
  for (int i = 0; i < 50; ++i) small = primary.commit("small.db");
  REQUIRE(replica.wait_position("small.db", small));
  REQUIRE(replica.wait_position("large.db", large));
  CHECK(large_seen);
  CHECK(primary.queue_peak() <= kQueueBound);
  small = primary.commit("large.db");
  CHECK(replica.wait_position("large.db", small));
}

TEST_CASE("a position that the log does not have leads to a snapshot with its reason, then to records") {
  TempDir dir;
  TestPrimary primary(dir.path());
  primary.snapshot_bytes = 5u << 20;
  for (int i = 0; i < 10; ++i) primary.commit("a.db");
  Position end = primary.position("a.db");
  DatabaseId id = primary.databases()[0].id;
  TestReplica replica;
  wire::SnapshotReason expected = wire::SnapshotReason::kTooOld;
  SUBCASE("new, and the log does not begin at the start") {
    primary.clear_log("a.db");
    expected = wire::SnapshotReason::kNew;
  }
  SUBCASE("too old") { replica.set_db("a.db", {.id = id, .position = {Epoch{1}, TxId{3}, Checksum{5}}}); }
  SUBCASE("ahead") {
    replica.set_db("a.db", {.id = id, .position = {Epoch{3}, TxId{11}, Checksum{5}}});
    expected = wire::SnapshotReason::kDiverged;
  }
  SUBCASE("the same TXID with another checksum") {
    replica.set_db("a.db", {.id = id, .position = {Epoch{3}, TxId{10}, Checksum{5}}});
  }
  SUBCASE("another database of the same name") {
    replica.set_db("a.db", {.id = DatabaseId{id.value + 1}, .position = end});
    expected = wire::SnapshotReason::kAnotherDatabase;
  }
  replica.follow(primary.address());
  REQUIRE(replica.wait([&] { return replica.dbs["a.db"].consistent_at == end; }));
  CHECK(replica.db("a.db").reason == expected);
  CHECK(replica.db("a.db").snapshots == 1);
  CHECK(replica.db("a.db").differences == (expected == wire::SnapshotReason::kNew ? 0 : 1));
  Position last = primary.commit("a.db");
  CHECK(replica.wait_position("a.db", last));
  CHECK(primary.snapshots == 1);
}

TEST_CASE("a replica that has something is asked for its sums, answers each question, and loses nothing") {
  TempDir dir;
  TestPrimary primary(dir.path());
  for (int i = 0; i < 10; ++i) primary.commit("a.db");
  SumsQuestion largest;
  for (uint32_t r = 0; r < kRangeSumsMax; ++r) largest.ranges.push_back(r);
  SumsQuestion pages{.of_pages = true, .ranges = {}};
  for (uint32_t r = 0; r < kPageSumRangesMax; ++r) pages.ranges.push_back(kRangesEnd - kPageSumRangesMax + r);
  primary.questions = {{.of_pages = false, .ranges = {0, 1, 2, 3}}, largest, pages};
  TestReplica replica;
  replica.set_db("a.db", {.id = primary.databases()[0].id, .position = {Epoch{1}, TxId{3}, Checksum{5}}});
  size_t asked = 0;
  SUBCASE("at once") {}
  SUBCASE("later, while others commit") {
    replica.on_question = [&](ReplicaSession&, uint32_t index, const SumsQuestion& question) {
      ++asked;
      replica.thread().loop().post([&, index, n = question.answer_sums()] {
        primary.commit("b.db");
        std::vector<Checksum> sums;
        for (size_t i = 0; i < n; ++i) sums.push_back(Checksum{i + 1});
        if (replica.connector().session()) replica.connector().session()->answer_sums(index, std::move(sums));
      });
    };
  }
  replica.follow(primary.address());
  REQUIRE(replica.wait([&] { return replica.dbs["a.db"].consistent_at == primary.position("a.db"); }));
  CHECK(replica.db("a.db").differences == 1);
  REQUIRE(primary.answers.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(primary.answers[i].size() == primary.questions[i].answer_sums());
    for (size_t j = 0; j < primary.answers[i].size(); ++j) {
      if (primary.answers[i][j].value != j + 1) FAIL("sum " << j << " is another");
    }
  }
  CHECK(replica.wait_position("a.db", primary.commit("a.db")));
  CHECK(replica.sessions == 1);
}

TEST_CASE("a copy that meets pages of a transaction in flight goes on with them later") {
  TempDir dir;
  TestPrimary primary(dir.path());
  const Position at = primary.commit("a.db");
  primary.clear_log("a.db");
  primary.snapshot_bytes = 5u << 20;
  primary.busy_reads = 3;
  TestReplica replica;
  replica.follow(primary.address());
  CHECK(replica.wait_position("a.db", at));
  CHECK(primary.busy_reads == 0);
  CHECK(primary.snapshots == 1);
  CHECK(replica.db("a.db").snapshots == 1);
  CHECK(replica.wait_position("a.db", primary.commit("a.db")));
}

TEST_CASE("a replica that leaves in the middle of a question begins anew") {
  TempDir dir;
  TestPrimary primary(dir.path());
  for (int i = 0; i < 10; ++i) primary.commit("a.db");
  primary.questions = {{.of_pages = false, .ranges = {0, 1, 2, 3}}};
  TestReplica replica(quick_replica());
  replica.set_db("a.db", {.id = primary.databases()[0].id, .position = {Epoch{1}, TxId{3}, Checksum{5}}});
  int asked = 0;
  replica.on_question = [&](ReplicaSession& session, uint32_t index, const SumsQuestion& question) {
    if (++asked < 3) return session.failed(Error(ErrorCode::kBusy, "not now"));
    session.answer_sums(index, std::vector<Checksum>(question.answer_sums()));
  };
  replica.follow(primary.address());
  REQUIRE(replica.wait([&] { return replica.dbs["a.db"].consistent_at == primary.position("a.db"); }));
  CHECK(replica.sessions == 3);
  CHECK(replica.wait_position("a.db", primary.commit("a.db")));
}

TEST_CASE("a replica that the log left behind while it was connected gets a snapshot under a new index") {
  TempDir dir;
  TestPrimary primary(dir.path());
  TestReplica replica;
  primary.commit("a.db");
  replica.follow(primary.address());
  REQUIRE(replica.wait_position("a.db", primary.position("a.db")));
  replica.thread().call([&] { replica.connector().session()->pause(); });
  for (int i = 0; i < 400; ++i) primary.commit("a.db", 65536);
  primary.clear_log("a.db");
  primary.commit("a.db");
  replica.thread().call([&] { replica.connector().session()->resume(); });
  REQUIRE(replica.wait_position("a.db", primary.position("a.db")));
  CHECK(replica.db("a.db").snapshots >= 1);
  CHECK(replica.sessions == 1);
  CHECK(replica.wait_position("a.db", primary.commit("a.db")));
}

TEST_CASE("a database that the primary cannot read now is kept, and continues when it can") {
  TempDir dir;
  TestPrimaryOptions options;
  options.session.times = quick_times();
  TestPrimary primary(dir.path(), options);
  TestReplica replica(quick_replica());
  Position before = primary.commit("a.db");
  replica.follow(primary.address());
  REQUIRE(replica.wait_position("a.db", before));
  primary.readable = false;
  replica.disconnect();
  REQUIRE(replica.wait([&] { return replica.sessions == 2; }));
  int snapshots = primary.snapshots;
  REQUIRE(primary.wait_replicas(1));
  const std::vector<ReplicaStatus> status = primary.status();
  REQUIRE(find(status[0], "a.db"));
  CHECK(find(status[0], "a.db")->state == std::string("awaited"));
  primary.readable = true;
  Position last = primary.commit("a.db");
  REQUIRE(replica.wait_position("a.db", last));
  CHECK(replica.unknown.empty());
  CHECK(primary.snapshots == snapshots);
}

TEST_CASE("databases appear, are dropped, come again under another id, and unknown ones are named") {
  TempDir dir;
  TestPrimary primary(dir.path());
  TestReplica replica;
  replica.set_db("stale.db", {.id = DatabaseId{4}, .position = {Epoch{1}, TxId{1}, Checksum{1}}});
  replica.follow(primary.address());
  CHECK(replica.wait([&] { return replica.unknown.count("stale.db") == 1; }));
  for (int round = 0; round < 5; ++round) {
    Position p = primary.commit("a.db");
    CHECK(p.txid.value == 1);
    for (int i = 0; i < 20; ++i) p = primary.commit("a.db");
    REQUIRE(replica.wait_position("a.db", p));
    primary.drop("a.db");
    if (round % 2 == 0) CHECK(replica.wait([&] { return replica.dbs.count("a.db") == 0; }));
  }
  CHECK(replica.sessions == 1);
  CHECK(replica.error == "");
}

TEST_CASE("one database that cannot be read does not stop the others, and is tried again") {
  TempDir dir;
  auto sink = std::make_shared<LineSink>();
  TestPrimary primary(dir.path(), {.session = {.times = quick_times()}}, sink);
  TestReplica replica(quick_replica());
  replica.follow(primary.address());
  REQUIRE(replica.wait_position("good.db", primary.commit("good.db")));
  primary.fail_feeds = true;
  Position bad = primary.commit("bad.db");
  for (int i = 0; i < 10; ++i) REQUIRE(replica.wait_position("good.db", primary.commit("good.db")));
  CHECK(sink->comes("the disk of this test is broken"));
  CHECK(replica.db("bad.db").records == 0);
  primary.fail_feeds = false;
  CHECK(replica.wait_position("bad.db", bad));
  CHECK(replica.sessions == 1);
}

TEST_CASE("an error of the replica's host ends the connection, both sides know why, and it recovers") {
  TempDir dir;
  auto sink = std::make_shared<LineSink>();
  TestPrimary primary(dir.path(), {}, sink);
  TestReplica replica;
  replica.follow(primary.address());
  REQUIRE(replica.wait_position("a.db", primary.commit("a.db")));
  TestReplica::Db wrong = replica.db("a.db");
  wrong.position.checksum = Checksum{12345};
  replica.set_db("a.db", wrong);
  Position last = primary.commit("a.db");
  // It does not follow, so the replica leaves; its position is unknown to the primary, so a
  // snapshot follows.
  REQUIRE(replica.wait_position("a.db", last));
  CHECK(replica.ended == 1);
  CHECK(replica.error.find("does not follow on") != std::string::npos);
  CHECK(replica.wait([&] { return sink->has("does not follow on"); }));
  CHECK(replica.db("a.db").snapshots == 1);
}

TEST_CASE("heartbeats tell a replica how far it is behind") {
  TempDir dir;
  TestPrimary primary(dir.path(), {.session = {.times = quick_times()}});
  TestReplica replica(quick_replica());
  replica.follow(primary.address());
  REQUIRE(replica.wait_position("a.db", primary.commit("a.db")));
  auto lag = [&] { return replica.thread().call([&] { return replica.connector().session()->lag("a.db"); }); };
  CHECK(replica.wait([&] { return replica.dbs["a.db"].primary == replica.dbs["a.db"].position; }));
  CHECK(lag()->lag_ms == 0);
  CHECK(lag()->transactions == 0);

  // A host that receives and does not get on: it takes nothing for as long as the test says.
  replica.thread().call([&] { replica.hold_acks = true; });
  for (int i = 0; i < 7; ++i) primary.commit("a.db");
  Position last = primary.position("a.db");
  CHECK(replica.wait([&] { return replica.dbs["a.db"].primary == last; }));
  auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (lag()->lag_ms < 60 && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  CHECK(lag()->lag_ms >= 60);
  CHECK(lag()->transactions == 7);
  replica.thread().call([&] {
    replica.hold_acks = false;
    replica.turn_ended();
  });
  CHECK(lag()->lag_ms == 0);
  CHECK(lag()->transactions == 0);
}

TEST_CASE("a thousand databases are introduced, continue from memory, and reconnect") {
  TempDir dir;
  TestPrimary primary(dir.path());
  auto name = [](int i) { return "dir/database-" + std::to_string(i) + ".db"; };
  std::filesystem::create_directories(dir.path() + "/dir");
  for (int i = 0; i < 1000; ++i) primary.commit(name(i));
  TestReplica replica;
  replica.follow(primary.address());
  auto all_equal = [&] {
    for (int i = 0; i < 1000; ++i) {
      if (!replica.wait_position(name(i), primary.position(name(i)))) return false;
    }
    return true;
  };
  REQUIRE(all_equal());
  int feeds = primary.feeds;
  replica.disconnect();
  REQUIRE(replica.wait([&] { return replica.sessions == 2; }));
  for (int i = 0; i < 1000; ++i) primary.commit(name(i));
  REQUIRE(all_equal());
  CHECK(primary.feeds - feeds < 1000);  // those that stood at the end needed no log
  CHECK(primary.snapshots == 0);
}

TEST_CASE("a handoff names the new primary") {
  TempDir dir;
  TestPrimary primary(dir.path());
  TestReplica replica;
  replica.follow(primary.address());
  REQUIRE(primary.wait_replicas(1));
  primary.thread().call([&] { primary.server().goodbye(wire::GoodbyeReason::kHandoff, "moving", "http://next:1"); });
  CHECK(replica.wait([&] { return replica.farewell.new_primary_url == "http://next:1"; }));
  CHECK(replica.farewell.reason == wire::GoodbyeReason::kHandoff);
  CHECK(replica.wait([&] { return replica.ended == 1; }));
}

TEST_CASE("a replica changes to another primary when it is told to, and finds one that was down") {
  TempDir dir;
  TempDir other_dir;
  TestPrimary primary(dir.path());
  TestReplica replica;
  replica.follow("127.0.0.1:1");  // nobody listens there
  auto attempts = [&] { return replica.thread().call([&] { return replica.connector().status().attempts; }); };
  auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (attempts() < 3 && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  CHECK(attempts() >= 3);
  replica.follow(primary.address());
  REQUIRE(replica.wait_position("a.db", primary.commit("a.db")));
  TestPrimary other(other_dir.path());
  other.commit("b.db");
  replica.follow(other.address());
  CHECK(replica.wait_position("b.db", other.position("b.db")));
  CHECK(primary.wait_replicas(0));
  CHECK(replica.wait([&] { return replica.unknown.count("a.db") == 1; }));
}
