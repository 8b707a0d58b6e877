#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "env/address.h"
#include "repl/fixture.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

// Runs a loop on the test's own thread until something calls stop(); a deadline keeps a failure
// finite.
class Loop {
 public:
  Loop() : loop_(uv_event_loop(Log(null_log_sink()))) {}
  EventLoop* operator->() { return loop_.get(); }
  EventLoop& operator*() { return *loop_; }
  bool run() {
    bool in_time = true;
    auto deadline = loop_->timer([&] {
      in_time = false;
      loop_->stop();
    });
    deadline->start(kTestWaitMs);
    loop_->run();
    return in_time;
  }

 private:
  std::unique_ptr<EventLoop> loop_;
};

struct Pair {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Dial> dial;
  std::unique_ptr<Stream> server;
  std::unique_ptr<Stream> client;
};

// Two connected streams, not started.
Pair connect_pair(Loop& loop) {
  Pair pair;
  auto both = [&] {
    if (pair.server && pair.client) loop->stop();
  };
  pair.listener = loop->listen("127.0.0.1:0",
                               [&](std::unique_ptr<Stream> s) {
                                 pair.server = std::move(s);
                                 both();
                               })
                      .value();
  pair.dial = loop->connect(pair.listener->address(), 5000, [&](Result<std::unique_ptr<Stream>> s) {
    pair.client = std::move(s).value();
    both();
  });
  REQUIRE(loop.run());
  return pair;
}

std::string text_of(ByteView v) { return std::string(v.begin(), v.end()); }

}  // namespace

TEST_CASE("posted functions run in order on the loop's thread, from any thread") {
  LoopThread thread;
  thread.call([] {});  // it runs
  std::vector<int> seen;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) {
      thread.loop().post([&, i] {
        CHECK(thread.loop().in_loop_thread());
        seen.push_back(i);
      });
    }
  });
  other.join();
  CHECK_FALSE(thread.loop().in_loop_thread());
  thread.call([&] {
    REQUIRE(seen.size() == 1000);
    for (int i = 0; i < 1000; ++i) CHECK(seen[static_cast<size_t>(i)] == i);
  });
}

TEST_CASE("a timer repeats, and may destroy itself in its callback") {
  Loop loop;
  int fired = 0;
  std::unique_ptr<Timer> timer;
  timer = loop->timer([&] {
    if (++fired < 3) return;
    timer.reset();
    loop->stop();
  });
  timer->start(1, 1);
  auto stopped = loop->timer([&] { FAIL("a stopped timer fired"); });
  stopped->start(0);
  stopped->stop();
  CHECK(loop.run());
  CHECK(fired == 3);
}

TEST_CASE("functions that were posted and never run are destroyed with what they own") {
  auto owned = std::make_shared<int>(1);
  std::weak_ptr<int> watch = owned;
  {
    auto loop = uv_event_loop(Log(null_log_sink()));
    loop->post([owned] {});
    owned.reset();
    CHECK_FALSE(watch.expired());
  }
  CHECK(watch.expired());
}

TEST_CASE("streams carry bytes both ways, small and referenced, in order") {
  Loop loop;
  Pair pair = connect_pair(loop);
  auto big = std::make_shared<const Bytes>(3u << 20, uint8_t{7});
  std::string got;
  size_t big_bytes = 0;
  pair.server->start({.on_data = [&](ByteView v) {
    for (uint8_t b : v) {
      if (b == 7) {
        ++big_bytes;
      } else {
        got.push_back(static_cast<char>(b));
      }
    }
    if (got == "headtail" && big_bytes == big->size()) pair.server->write(as_bytes("thanks"));
  }});
  pair.client->start({.on_data = [&](ByteView v) {
    CHECK(text_of(v) == "thanks");
    loop->stop();
  }});
  pair.client->write(as_bytes("head"));
  pair.client->write(big, ByteView(*big));
  pair.client->write(as_bytes("tail"));
  CHECK(pair.client->queued_bytes() <= big->size() + 8);
  CHECK(loop.run());
  CHECK(got == "headtail");
  CHECK(pair.client->queued_bytes() == 0);
  CHECK(pair.client->bytes_written() == big->size() + 8);
  CHECK(pair.server->bytes_read() == big->size() + 8);
}

TEST_CASE("a writer is told when a slow peer has drained its queue") {
  Loop loop;
  Pair pair = connect_pair(loop);
  Bytes chunk(1u << 20, 1);
  size_t sent = 0, read = 0;
  int drained = 0;
  auto fill = [&] {
    while (pair.client->queued_bytes() < (4u << 20) && sent < (64u << 20)) {
      pair.client->write(Bytes(chunk));
      sent += chunk.size();
    }
    CHECK(pair.client->queued_bytes() <= (5u << 20));
  };
  auto resume = loop->timer([&] { pair.server->resume_reading(); });
  pair.server->start({.on_data = [&](ByteView v) {
    read += v.size();
    pair.server->pause_reading();
    resume->start(0);
    if (read == (64u << 20)) loop->stop();
  }});
  pair.client->start({.on_drained = [&] {
    ++drained;
    fill();
  }});
  fill();
  CHECK(loop.run());
  CHECK(drained >= 10);
  CHECK(read == sent);
}

TEST_CASE("the end of a connection is told once, and finish() delivers what was queued") {
  Loop loop;
  Pair pair = connect_pair(loop);
  std::string got;
  int closed = 0;
  pair.client->start({.on_data = [&](ByteView v) { got += text_of(v); },
                      .on_closed =
                          [&](const Status& why) {
                            CHECK(why.ok());
                            ++closed;
                            loop->stop();
                          }});
  // Unread bytes at the closing side must not turn the end into a reset.
  pair.client->write(Bytes(300000, 1));
  pair.server->write(as_bytes("last words"));
  pair.server->finish();
  CHECK_FALSE(pair.server->is_open());
  pair.server.reset();
  CHECK(loop.run());
  CHECK(got == "last words");
  CHECK(closed == 1);
  CHECK_FALSE(pair.client->is_open());
  pair.client->write(as_bytes("nobody hears this"));
}

TEST_CASE("a stream may be destroyed in each of its callbacks") {
  Loop loop;
  SUBCASE("data") {
    Pair pair = connect_pair(loop);
    pair.server->start({.on_data = [&](ByteView) { pair.server.reset(); }});
    pair.client->start({.on_closed = [&](const Status&) {
      pair.client.reset();
      loop->stop();
    }});
    pair.client->write(as_bytes("x"));
    CHECK(loop.run());
  }
  SUBCASE("turn end and drained") {
    Pair pair = connect_pair(loop);
    pair.client->start({.on_turn_end = [&] { pair.client.reset(); }});
    pair.server->set_low_water(1);
    pair.server->start(
        {.on_closed = [&](const Status&) { loop->stop(); }, .on_drained = [&] { pair.client->at_turn_end(); }});
    pair.server->write(as_bytes("hello"));
    CHECK(loop.run());
    CHECK_FALSE(pair.client);
  }
}

TEST_CASE("writing to a peer that is gone is an error, not a signal") {
  LoopThread thread;
  std::promise<bool> failed;
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Stream> server, client;
  std::unique_ptr<Dial> dial;
  std::unique_ptr<Timer> timer;
  thread.call([&] {
    listener = thread.loop().listen("127.0.0.1:0", [&](std::unique_ptr<Stream> s) { s->close(); }).value();
    dial = thread.loop().connect(listener->address(), 5000, [&](Result<std::unique_ptr<Stream>> s) {
      client = std::move(s).value();
      // Not reading, so that only writing can notice.
      timer = thread.loop().timer([&] { client->write(as_bytes("x")); });
      client->start({.on_closed = [&](const Status& why) {
        timer.reset();
        failed.set_value(!why.ok());
      }});
      client->pause_reading();
      timer->start(1, 1);
    });
  });
  CHECK(failed.get_future().get());
  thread.call([&] {
    dial.reset();
    client.reset();
    listener.reset();
  });
}

TEST_CASE("a taken port is refused with a clear message, IPv6 and names work") {
  Loop loop;
  auto accept = [](std::unique_ptr<Stream>) {};
  auto first = loop->listen(":0", accept).value();
  CHECK(first->port() != 0);
  auto second = loop->listen(":" + std::to_string(first->port()), accept);
  REQUIRE_FALSE(second.ok());
  CHECK(second.error().code() == ErrorCode::kBusy);
  CHECK(second.error().message().find("another process has this port") != std::string::npos);
  CHECK(loop->listen("localhost:0", accept).ok());
  CHECK(loop->listen("192.0.2.1:0", accept).error().code() == ErrorCode::kInvalid);
  for (const char* bad : {"", "1234", "host", "host:", "host:70000", "host:12x", "::1:80", "[::1:80"}) {
    CHECK(loop->listen(bad, accept).error().code() == ErrorCode::kInvalid);
  }
  CHECK(parse_address("[::1]:80").value().text() == "[::1]:80");
}

TEST_CASE("dialling answers with the reason: refused, unknown name, too late, given up") {
  Loop loop;
  std::vector<Error> errors;
  uint16_t port;
  {
    auto listener = loop->listen("127.0.0.1:0", [](std::unique_ptr<Stream>) {}).value();
    port = listener->port();
  }
  auto expect_error = [&](Result<std::unique_ptr<Stream>> r) {
    REQUIRE_FALSE(r.ok());
    errors.push_back(r.error());
    if (errors.size() == 3) loop->stop();
  };
  auto refused = loop->connect("localhost:" + std::to_string(port), 5000, expect_error);
  auto malformed = loop->connect("nonsense", 5000, expect_error);
  // The address is reserved for documentation: no machine answers (or there is no route at all).
  auto late = loop->connect("192.0.2.1:9", 50, expect_error);
  auto given_up = loop->connect("localhost:" + std::to_string(port), 5000,
                                [&](Result<std::unique_ptr<Stream>>) { FAIL("was given up"); });
  given_up.reset();
  CHECK(errors.empty());
  CHECK(loop.run());
  REQUIRE(errors.size() == 3);
  std::set<ErrorCode> codes;
  for (const Error& e : errors) codes.insert(e.code());
  CHECK(codes.count(ErrorCode::kUnavailable));
  CHECK(codes.count(ErrorCode::kInvalid));
}

TEST_CASE(
    "unix-domain sockets: exchange, a second listener, a dead process's leftover, half-closed "
    "peers") {
  TempDir dir;
  Loop loop;
  std::string path = dir.file("status.sock");
  {
    // A leftover: bound and never listened on again.
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size());
    int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    ::close(fd);
  }
  std::vector<std::unique_ptr<Stream>> servers;
  std::unique_ptr<Stream> client;
  int exchanges = 0;
  auto exchanged = [&] {
    if (++exchanges == 2) loop->stop();
  };
  auto serve = [&](std::unique_ptr<Stream> accepted) {
    Stream& s = *servers.emplace_back(std::move(accepted));
    auto question = std::make_shared<std::string>();
    s.start({.on_data =
                 [&s, question](ByteView v) {
                   *question += text_of(v);
                   if (*question == "well") s.write(as_bytes("so"));
                 },
             .on_peer_end =
                 [&s, question] {
                   s.write(as_bytes(*question + "? yes"));
                   s.finish();
                 }});
  };
  auto listener = loop->listen_unix(path, serve).value();
  struct stat info;
  REQUIRE(::stat(path.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  CHECK(loop->listen_unix(path, nullptr).error().code() == ErrorCode::kBusy);
  CHECK(loop->listen_unix(std::string(200, 'x'), nullptr).error().code() == ErrorCode::kInvalid);

  auto dial = loop->connect_unix(path, 5000, [&](Result<std::unique_ptr<Stream>> s) {
    client = std::move(s).value();
    auto answer = std::make_shared<std::string>();
    client->start({.on_data = [&, answer](ByteView v) {
      *answer += text_of(v);
      if (*answer == "so") exchanged();
    }});
    client->write(as_bytes("well"));
  });
  std::thread half_closer([&] {
    // A blocking client that ends its direction after the question, as `litefs status` does.
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size());
    int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::write(fd, "ready", 5) == 5);
    ::shutdown(fd, SHUT_WR);
    char text[64];
    ssize_t n, all = 0;
    while ((n = ::read(fd, text + all, sizeof text - static_cast<size_t>(all))) > 0) all += n;
    ::close(fd);
    CHECK(std::string(text, static_cast<size_t>(all)) == "ready? yes");
    loop->post(exchanged);
  });
  CHECK(loop.run());
  half_closer.join();
  listener.reset();
  CHECK(::access(path.c_str(), F_OK) != 0);
}
