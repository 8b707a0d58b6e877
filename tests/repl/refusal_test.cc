// What a primary and a replica do with peers that are wrong, silent or broken.
#include "repl/fixture.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

SessionTimes quick_times() {
  return {.hello_deadline_ms = 1200, .dead_peer_ms = 1000, .heartbeat_ms = 20, .database_retry_ms = 20, .tick_ms = 5};
}

// A connection of its own that says what the test wants and keeps what it hears.
class RawPeer {
 public:
  explicit RawPeer(const std::string& address) {
    thread_.call([&] {
      dial_ = thread_.loop().connect(address, 5000, [this](Result<std::unique_ptr<Stream>> s) {
        stream_ = std::move(s).value();
        stream_->start(
            {.on_data =
                 [this](ByteView v) { signal_.change([&] { heard_.insert(heard_.end(), v.begin(), v.end()); }); },
             .on_closed = [this](const Status&) { signal_.change([&] { closed_ = true; }); }});
        signal_.change([&] { connected_ = true; });
      });
    });
    REQUIRE(signal_.wait([&] { return connected_; }));
  }
  ~RawPeer() {
    thread_.call([this] {
      dial_.reset();
      stream_.reset();
    });
  }

  void say(ByteView bytes) {
    thread_.call([&] { stream_->write(bytes); });
  }
  void say_hello(const wire::Hello& hello) {
    Bytes bytes(wire::kPreface, wire::kPreface + sizeof wire::kPreface);
    hello.append_to(bytes);
    wire::append_databases_held({}, bytes);
    say(bytes);
  }
  bool wait_closed() {
    return signal_.wait([&] { return closed_; });
  }
  bool wait_frame(wire::FrameType type) {
    return signal_.wait([&] { return payload_of(heard_, type).has_value(); });
  }
  bool wait_heard(size_t bytes) {
    return signal_.wait([&] { return heard_.size() >= bytes; });
  }
  bool closed() {
    bool out = false;
    signal_.change([&] { out = closed_; });
    return out;
  }
  std::string text() {
    std::string out;
    signal_.change([&] { out.assign(heard_.begin(), heard_.end()); });
    return out;
  }
  // The first frame of a type, once the connection is closed.
  std::optional<Bytes> payload(wire::FrameType type) {
    std::string all = text();
    return payload_of(as_bytes(all), type);
  }
  static std::optional<Bytes> payload_of(ByteView all, wire::FrameType type) {
    wire::FrameReader reader(wire::FrameReader::Preface::kExpected);
    reader.feed(all);
    for (;;) {
      auto frame = reader.next();
      if (!frame.ok() || !frame.value()) return std::nullopt;
      ByteView payload = frame.value()->payload;
      if (frame.value()->type == type) return Bytes(payload.begin(), payload.end());
    }
  }
  wire::Refuse refuse() {
    REQUIRE(wait_closed());
    auto found = payload(wire::FrameType::kRefuse);
    REQUIRE(found);
    return wire::Refuse::parse(*found).value();
  }

 private:
  Signal signal_;
  bool connected_ = false;
  bool closed_ = false;
  Bytes heard_;
  LoopThread thread_;
  std::unique_ptr<Dial> dial_;
  std::unique_ptr<Stream> stream_;
};

wire::Hello stranger() {
  return {.cluster_id = 7, .node = NodeId{9}, .epoch = Epoch{1}, .host_name = "raw", .url = ""};
}

}  // namespace

TEST_CASE("a primary refuses who does not belong to it, and says why") {
  TempDir dir;
  TestPrimary primary(dir.path());
  wire::Hello hello = stranger();
  wire::RefuseCode expected = wire::RefuseCode::kOther;
  SUBCASE("another cluster") {
    hello.cluster_id = 8;
    expected = wire::RefuseCode::kWrongCluster;
  }
  SUBCASE("itself") {
    hello.node = NodeId{1};
    expected = wire::RefuseCode::kOwnNode;
  }
  SUBCASE("a newer protocol") {
    hello.version_min = hello.version_max = 2;
    expected = wire::RefuseCode::kVersion;
  }
  SUBCASE("another kind of stream") { hello.kind = 77; }
  SUBCASE("one that has seen a newer primary") {
    hello.epoch = Epoch{4};
    expected = wire::RefuseCode::kHigherEpoch;
  }
  RawPeer peer(primary.address());
  peer.say_hello(hello);
  wire::Refuse refuse = peer.refuse();
  CHECK(refuse.code == expected);
  CHECK_FALSE(refuse.text.empty());
  if (expected == wire::RefuseCode::kWrongCluster) {
    CHECK(refuse.text ==
          "the data of replica 'raw' is of cluster 0000000000000008, that of the primary 'one' of "
          "cluster 0000000000000007: to join it, stop the replica, move its data.dir away and start "
          "it again");
  }
  if (expected == wire::RefuseCode::kHigherEpoch) CHECK(primary.epoch_seen == 4);
}

TEST_CASE("a node that is not primary names the one that is, and a replica hears it") {
  TempDir dir;
  TestPrimary primary(dir.path(), {.primary = false, .primary_url = "http://elsewhere:20202"});
  TestReplica replica;
  replica.follow("http://" + primary.address() + "/");
  CHECK(replica.wait([&] { return replica.refuse.code == wire::RefuseCode::kNotPrimary; }));
  CHECK(replica.refuse.primary_url == "http://elsewhere:20202");
  CHECK(replica.refuse.text ==
        "node 'one' is not the primary: lease.advertise-url must be the primary's URL on every "
        "node, and it has http://elsewhere:20202");
}

TEST_CASE("a primary that is starting says so, and no warning is given of it") {
  TempDir dir;
  TestPrimary primary(dir.path(), {.primary = false, .starting = true});
  TestReplica replica;
  replica.follow("http://" + primary.address() + "/");
  CHECK(replica.wait([&] { return replica.refuse.code == wire::RefuseCode::kStarting; }));
  CHECK(replica.refuse.text == "node 'one' is starting");
}

TEST_CASE("a replica does not follow a primary whose epoch is over, or of another cluster") {
  TempDir dir;
  TestPrimary primary(dir.path());
  auto sink = std::make_shared<LineSink>();
  TestReplicaOptions options;
  SUBCASE("cluster") { options.identity.cluster_id = 8; }
  SUBCASE("epoch") { options.identity.epoch = Epoch{9}; }
  TestReplica replica(options, sink);
  replica.follow(primary.address());
  CHECK(replica.wait([&] { return replica.refuse.code != wire::RefuseCode::kOther; }));
  CHECK(replica.sessions == 0);
}

TEST_CASE("HTTP on the port is answered, anything else is closed with a log line") {
  TempDir dir;
  auto sink = std::make_shared<LineSink>();
  TestPrimary primary(dir.path(), {}, sink);
  {
    RawPeer peer(primary.address());
    peer.say(as_bytes("GE"));
    peer.say(as_bytes("T / HTTP/1.1\r\nHost: x\r\n\r\n"));
    REQUIRE(peer.wait_closed());
    CHECK(peer.text().substr(0, 12) == "HTTP/1.1 501");
  }
  {
    RawPeer peer(primary.address());
    peer.say(as_bytes("\x16\x03\x01 TLS"));
    REQUIRE(peer.wait_closed());
    CHECK(peer.text().empty());
    CHECK(sink->comes("not our protocol"));
  }
}

TEST_CASE("peers that do not introduce themselves in time are closed") {
  TempDir dir;
  TestPrimary primary(dir.path(), {.session = {.times = quick_times()}});
  RawPeer silent(primary.address());
  RawPeer half(primary.address());
  half.say(ByteView(wire::kPreface));
  CHECK(silent.wait_closed());
  CHECK(half.wait_closed());
}

TEST_CASE("nonsense behind a good beginning ends the connection with a reason") {
  TempDir dir;
  TestPrimary primary(dir.path());
  RawPeer peer(primary.address());
  peer.say_hello(stranger());
  REQUIRE(primary.wait_replicas(1));
  Bytes bytes;
  SUBCASE("an ACK for what was never sent") {
    wire::Ack{.databases = {{.index = 50, .received = TxId{1}, .durable = TxId{1}}}}.append_to(bytes);
  }
  SUBCASE("sums under an index that was never given") {
    wire::Sums{.index = 50, .of_pages = false, .sums = {Checksum{1}}}.append_to(bytes);
  }
  SUBCASE("a second HELLO") { stranger().append_to(bytes); }
  SUBCASE("an unknown type") { bytes = {0, 0, 0, 0, 0x44}; }
  SUBCASE("a frame too long") { bytes = {0xff, 0xff, 0xff, 0xff, 0x0c}; }
  peer.say(bytes);
  REQUIRE(peer.wait_closed());
  auto goodbye = peer.payload(wire::FrameType::kGoodbye);
  REQUIRE(goodbye);
  CHECK(wire::Goodbye::parse(*goodbye).value().reason == wire::GoodbyeReason::kFailed);
  CHECK(primary.wait_replicas(0));
}

TEST_CASE("sums that are no answer to what the primary asked end the connection") {
  TempDir dir;
  TestPrimary primary(dir.path());
  primary.commit("a.db");
  primary.questions = {{.of_pages = false, .ranges = {0, 1, 2, 3}}};
  RawPeer peer(primary.address());
  Bytes bytes(wire::kPreface, wire::kPreface + sizeof wire::kPreface);
  stranger().append_to(bytes);
  wire::append_databases_held(
      {{.name = "a.db", .id = primary.databases()[0].id, .position = {Epoch{1}, TxId{9}, Checksum{9}}}}, bytes);
  wire::Sums sums{.index = 1, .of_pages = false, .sums = {}};
  SUBCASE("too few") { sums.sums.resize(3); }
  SUBCASE("too many") { sums.sums.resize(5); }
  SUBCASE("of the other level") {
    sums.of_pages = true;
    sums.sums.resize(4);
  }
  SUBCASE("twice") { sums.sums.resize(4); }
  peer.say(bytes);
  REQUIRE(peer.wait_frame(wire::FrameType::kSumsWanted));
  bytes.clear();
  sums.append_to(bytes);
  sums.append_to(bytes);
  peer.say(bytes);
  REQUIRE(peer.wait_closed());
  auto goodbye = peer.payload(wire::FrameType::kGoodbye);
  REQUIRE(goodbye);
  CHECK(wire::Goodbye::parse(*goodbye).value().text.find("SUMS") != std::string::npos);
}

TEST_CASE("a replica that falls silent is dropped, one that sends heartbeats stays") {
  TempDir dir;
  auto sink = std::make_shared<LineSink>();
  TestPrimary primary(dir.path(), {.session = {.times = quick_times()}}, sink);
  TestReplica alive({.connector = {.times = quick_times(), .backoff_min_ms = 10, .backoff_max_ms = 50}});
  alive.follow(primary.address());
  REQUIRE(primary.wait_replicas(1));
  RawPeer silent(primary.address());
  silent.say_hello(stranger());
  CHECK(silent.wait_closed());
  CHECK(sink->comes("nothing heard from the replica"));
  CHECK(primary.wait_replicas(1));
  CHECK(alive.sessions == 1);
}

TEST_CASE("a replica leaves a primary that falls silent, and tries again") {
  // A primary that welcomes and then stands still, as a stopped process would.
  LoopThread thread;
  std::unique_ptr<Listener> listener;
  std::vector<std::unique_ptr<Stream>> streams;
  std::string address = thread.call([&] {
    listener =
        thread.loop()
            .listen("127.0.0.1:0",
                    [&](std::unique_ptr<Stream> s) {
                      Bytes bytes(wire::kPreface, wire::kPreface + sizeof wire::kPreface);
                      wire::Welcome{.cluster_id = 7, .node = NodeId{1}, .epoch = Epoch{1}, .host_name = "", .url = ""}
                          .append_to(bytes);
                      s->write(std::move(bytes));
                      s->start({});
                      streams.push_back(std::move(s));
                    })
            .value();
    return listener->address();
  });
  {
    TestReplica replica({.connector = {.times = quick_times(), .backoff_min_ms = 10, .backoff_max_ms = 50}});
    replica.follow(address);
    CHECK(replica.wait([&] { return replica.ended >= 1 && replica.sessions >= 2; }));
    CHECK(replica.wait([&] { return replica.error.find("nothing heard") != std::string::npos; }));
  }
  thread.call([&] {
    listener.reset();
    streams.clear();
  });
}

TEST_CASE("a node that connects again replaces its first connection") {
  TempDir dir;
  TestPrimary primary(dir.path());
  RawPeer first(primary.address());
  first.say_hello(stranger());
  REQUIRE(primary.wait_replicas(1));
  RawPeer second(primary.address());
  second.say_hello(stranger());
  REQUIRE(first.wait_closed());
  auto goodbye = first.payload(wire::FrameType::kGoodbye);
  REQUIRE(goodbye);
  CHECK(wire::Goodbye::parse(*goodbye).value().reason == wire::GoodbyeReason::kReplaced);
  CHECK(primary.wait_replicas(1));
  CHECK_FALSE(second.closed());
}

TEST_CASE("urls and addresses of a primary") {
  CHECK(address_of_url("http://host:20202").value() == "host:20202");
  CHECK(address_of_url("https://[::1]:1/x").value() == "[::1]:1");
  CHECK(address_of_url("host:5").value() == "host:5");
  CHECK_FALSE(address_of_url("http://host").ok());
  CHECK_FALSE(address_of_url(":5").ok());
  CHECK_FALSE(address_of_url("").ok());
}
