#include "env/unix_client.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "env/file.h"
#include "env/owned_descriptor.h"

namespace litefs {
namespace {

using SteadyClock = std::chrono::steady_clock;

class Exchange {
 public:
  explicit Exchange(const UnixExchange& exchange)
      : exchange_(exchange),
        deadline_(SteadyClock::now() + std::chrono::milliseconds(exchange.timeout_ms)),
        socket_(OwnedDescriptor::from([] { return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); })) {}

  Status run(const std::function<Status(ByteView)>& take) {
    if (socket_.get() < 0) return errno_error(errno, "create a socket");
    TRY(connect_to_path());
    TRY(send_request());
    return read_reply(take);
  }

  // From here on nothing has to come for timeout_ms.
  void restart_deadline() { deadline_ = SteadyClock::now() + std::chrono::milliseconds(exchange_.timeout_ms); }

 private:
  Error failed(int error, const char* verb) const {
    std::string what = std::string(verb) + " " + exchange_.path;
    if (error == ECONNREFUSED) return Error(ErrorCode::kNotFound, what + ": nobody listens");
    return errno_error(error, what);
  }

  // An address has room for 107 bytes; through /proc a directory of any length fits.
  Status connect_to_path() {
    const OwnedDescriptor directory = OwnedDescriptor::from(
        [&] { return open(directory_of(exchange_.path).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC); });
    if (directory.get() < 0) return failed(errno, "connect to");
    std::string name = exchange_.path.substr(exchange_.path.rfind('/') + 1);
    struct sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::string path = exchange_.path;
    if (path.size() >= sizeof address.sun_path) {
      path = "/proc/self/fd/" + std::to_string(directory.get()) + "/" + name;
    }
    if (path.size() >= sizeof address.sun_path) return failed(ENAMETOOLONG, "connect to");
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    for (;;) {
      const struct sockaddr* generic = reinterpret_cast<const struct sockaddr*>(&address);
      if (connect(socket_.get(), generic, sizeof address) == 0) return {};
      // EAGAIN: the listener's queue is full, and a Unix socket cannot be polled for room in it.
      if (errno != EAGAIN && errno != EINTR) return failed(errno, "connect to");
      if (SteadyClock::now() >= deadline_) return timed_out();
      poll(nullptr, 0, kRetryMs);
    }
  }

  Status send_request() {
    std::string_view rest = exchange_.request;
    while (!rest.empty()) {
      ssize_t n = send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
      if (n >= 0)
        rest.remove_prefix(static_cast<size_t>(n));
      else if (errno == EAGAIN)
        TRY(wait_for(POLLOUT));
      else if (errno == EPIPE)
        return {};  // closed already: what it sent before can be read
      else if (errno != EINTR)
        return failed(errno, "write to");
    }
    if (shutdown(socket_.get(), SHUT_WR) != 0 && errno != ENOTCONN) return failed(errno, "write to");
    return {};
  }

  Status read_reply(const std::function<Status(ByteView)>& take) {
    Bytes buffer(kReadBytes);
    bool any = false;
    for (;;) {
      ssize_t n = recv(socket_.get(), buffer.data(), buffer.size(), 0);
      // A reset comes from a side that closed without reading the request; it has nothing to say.
      if (n == 0 || (n < 0 && errno == ECONNRESET && !any)) return {};
      if (n > 0) {
        any = true;
        TRY(take(ByteView(buffer.data(), static_cast<size_t>(n))));
      } else if (errno == EAGAIN) {
        TRY(wait_for(POLLIN));
      } else if (errno != EINTR) {
        return failed(errno, "read from");
      }
    }
  }

  Status wait_for(short events) {
    auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - SteadyClock::now());
    if (left.count() <= 0) return timed_out();
    struct pollfd p = {socket_.get(), events, 0};
    // Whatever woke us, the call that follows tells.
    poll(&p, 1, static_cast<int>(std::min<int64_t>(left.count(), exchange_.check ? kCheckMs : left.count())));
    return exchange_.check ? exchange_.check() : Status();
  }

  Error timed_out() const {
    return Error(ErrorCode::kTimedOut,
                 "no answer from " + exchange_.path + " within " + std::to_string(exchange_.timeout_ms) + " ms");
  }

  static constexpr int kRetryMs = 10;
  static constexpr int64_t kCheckMs = 200;
  static constexpr size_t kReadBytes = 64u << 10;

  const UnixExchange& exchange_;
  SteadyClock::time_point deadline_;
  OwnedDescriptor socket_;
};

}  // namespace

Result<std::string> unix_exchange(const UnixExchange& exchange) {
  std::string reply;
  TRY(Exchange(exchange).run([&](ByteView bytes) -> Status {
    reply.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (reply.size() <= exchange.reply_bytes_max) return {};
    return Error(ErrorCode::kNoSpace, "the answer of " + exchange.path + " is too long");
  }));
  return reply;
}

Status unix_receive(const UnixExchange& exchange, const std::function<Status(ByteView)>& take) {
  Exchange running(exchange);
  return running.run([&](ByteView bytes) -> Status {
    TRY(take(bytes));
    running.restart_deadline();
    return {};
  });
}

}  // namespace litefs
