#include "env/unix_client.h"

#include "unix_server.h"

namespace litefs {
namespace {

using test::UnixServer;

Result<std::string> ask(const std::string& path, size_t reply_bytes_max = 1 << 20, int timeout_ms = 60'000) {
  return unix_exchange(
      {.path = path, .request = "json\n", .reply_bytes_max = reply_bytes_max, .timeout_ms = timeout_ms});
}

TEST_CASE("a question is sent whole and the answer read to its end") {
  test::TempDir dir;
  const std::string answer(300'000, 'x');
  std::string question;
  {
    UnixServer server(dir.path(), "s", [&](int fd) {
      question = UnixServer::read_request(fd);
      UnixServer::write_all(fd, answer);
    });
    CHECK(ask(dir.file("s")).value() == answer);
  }
  CHECK(question == "json\n");
}

TEST_CASE("a long answer is handed over as it comes, until its end or an error of who takes it") {
  test::TempDir dir;
  const std::string answer(3'000'000, 'x');
  for (size_t take_max : {answer.size(), size_t{100'000}}) {
    std::filesystem::remove(dir.file("s"));
    UnixServer server(dir.path(), "s", [&](int fd) {
      UnixServer::read_request(fd);
      UnixServer::write_all(fd, answer);
    });
    size_t taken = 0;
    Status received =
        unix_receive({.path = dir.file("s"), .request = "q\n", .timeout_ms = 60'000}, [&](ByteView bytes) -> Status {
          taken += bytes.size();
          if (taken > take_max) return Error(ErrorCode::kCancelled, "enough");
          return {};
        });
    CHECK(received.ok() == (take_max == answer.size()));
    if (received.ok()) CHECK(taken == answer.size());
    if (!received.ok()) CHECK(received.error().code() == ErrorCode::kCancelled);
  }
}

TEST_CASE("a socket deeper than an address can say is reached") {
  test::TempDir dir;
  std::string deep = dir.path() + "/" + std::string(120, 'd');
  std::filesystem::create_directory(deep);
  UnixServer server(deep, "s", [](int fd) {
    UnixServer::read_request(fd);
    UnixServer::write_all(fd, "ok");
  });
  CHECK(ask(deep + "/s").value() == "ok");
}

TEST_CASE("no socket, no directory and nobody listening are all not found") {
  test::TempDir dir;
  CHECK(ask(dir.file("none")).error().code() == ErrorCode::kNotFound);
  CHECK(ask(dir.file("no/none")).error().code() == ErrorCode::kNotFound);
  { UnixServer left_behind(dir.path(), "s", nullptr); }
  REQUIRE(std::filesystem::exists(dir.file("s")));
  CHECK(ask(dir.file("s")).error().code() == ErrorCode::kNotFound);
}

TEST_CASE("a side that closes without a word gives an empty answer") {
  test::TempDir dir;
  UnixServer server(dir.path(), "s", [](int) {});
  CHECK(ask(dir.file("s")).value().empty());
}

TEST_CASE("a node that does not answer is given up at the deadline") {
  test::TempDir dir;
  UnixServer silent(dir.path(), "s", nullptr);
  CHECK(ask(dir.file("s"), 10, 20).error().code() == ErrorCode::kTimedOut);
}

TEST_CASE("an answer over the bound is refused") {
  test::TempDir dir;
  UnixServer server(dir.path(), "s", [](int fd) {
    UnixServer::read_request(fd);
    UnixServer::write_all(fd, std::string(100'000, 'x'));
  });
  CHECK(ask(dir.file("s"), 99'999).error().code() == ErrorCode::kNoSpace);
}

}  // namespace
}  // namespace litefs
