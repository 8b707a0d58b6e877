#include "env/local_channel.h"

#include <thread>

#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

struct Ends {
  Ends() {
    std::thread accepting([&] { there = std::move(listener->accept()).value(); });
    here = std::move(LocalChannel::connect(dir.file("socket"), std::chrono::seconds(5))).value();
    accepting.join();
  }

  TempDir dir;
  std::unique_ptr<LocalListener> listener = std::move(LocalListener::listen(dir.file("socket"))).value();
  std::unique_ptr<LocalChannel> here, there;
};

Bytes message_of(size_t size, uint8_t first) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(first + i * 7);
  return bytes;
}

auto soon() { return std::chrono::steady_clock::now() + std::chrono::milliseconds(50); }

}  // namespace

TEST_CASE("messages that arrive together are received one by one, whole") {
  for (const int awake_us : {0, 2000}) {
    CAPTURE(awake_us);
    Ends ends;
    const size_t sizes[] = {0, 1, 5, 16380, 16384, 70000, 3, 200000, 0, 9};
    std::thread sending([&] {
      for (size_t size : sizes) CHECK(ends.here->send(message_of(size, static_cast<uint8_t>(size))).ok());
    });
    for (size_t size : sizes) {
      CAPTURE(size);
      Result<Bytes> message = ends.there->receive(200000, std::nullopt, std::chrono::microseconds(awake_us));
      REQUIRE(message.ok());
      CHECK(message.value() == message_of(size, static_cast<uint8_t>(size)));
    }
    sending.join();
    CHECK(ends.there->receive(100, soon()).error().code() == ErrorCode::kTimedOut);
  }
}

TEST_CASE("who waits awake is not kept from his deadline, nor from the other's end") {
  Ends ends;
  const auto awake = std::chrono::milliseconds(2);
  CHECK(ends.here->receive(100, soon(), awake).error().code() == ErrorCode::kTimedOut);
  std::thread late([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK(ends.there->send(message_of(3, 1)).ok());
  });
  CHECK(ends.here->receive(100, std::nullopt, awake).value() == message_of(3, 1));
  late.join();
  ends.there.reset();
  CHECK(ends.here->receive(100, std::nullopt, awake).error().code() == ErrorCode::kUnavailable);
}

TEST_CASE("a message that is too long is refused, and half of one is none") {
  Ends ends;
  REQUIRE(ends.here->send(message_of(101, 0)).ok());
  CHECK(ends.there->receive(100).error().code() == ErrorCode::kCorrupt);
  Ends others;
  REQUIRE(others.here->send(message_of(60, 0)).ok());
  others.here->shut();
  CHECK(others.there->receive(100).ok());
  CHECK(others.there->receive(100).error().code() == ErrorCode::kUnavailable);
}
