#include "env/local_channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "env/file.h"

namespace litefs {
namespace {

constexpr int kBacklog = 64;
constexpr size_t kLengthBytes = 4;
constexpr size_t kReceiveBytes = 16u << 10;

// What connect() and bind() want. An address has room for 107 bytes; through /proc a directory of any length fits.
class Address {
 public:
  static Result<Address> of(const std::string& path) {
    Address address;
    address.directory_ = open(directory_of(path).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (address.directory_ < 0) return errno_error(errno, "open the directory of " + path);
    std::string text = path;
    if (text.size() >= sizeof address.address_.sun_path) {
      text = "/proc/self/fd/" + std::to_string(address.directory_) + path.substr(path.rfind('/'));
    }
    if (text.size() >= sizeof address.address_.sun_path) return errno_error(ENAMETOOLONG, path);
    address.address_.sun_family = AF_UNIX;
    std::memcpy(address.address_.sun_path, text.c_str(), text.size() + 1);
    return address;
  }
  Address(Address&& other) noexcept : address_(other.address_), directory_(other.directory_) { other.directory_ = -1; }
  Address(const Address&) = delete;
  Address& operator=(const Address&) = delete;
  ~Address() {
    if (directory_ >= 0) close(directory_);
  }
  const struct sockaddr* get() const { return reinterpret_cast<const struct sockaddr*>(&address_); }
  static constexpr socklen_t size() { return sizeof(struct sockaddr_un); }

 private:
  Address() = default;
  struct sockaddr_un address_ = {};
  int directory_ = -1;
};

Error timed_out() { return Error(ErrorCode::kTimedOut, "the other process does not answer"); }

Error gone() { return Error(ErrorCode::kUnavailable, "the other process has gone"); }

}  // namespace

Result<std::unique_ptr<LocalChannel>> LocalChannel::connect(const std::string& path,
                                                            std::chrono::milliseconds send_max) {
  const Address address = TRY(Address::of(path));
  OwnedDescriptor owned = OwnedDescriptor::from([] { return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); });
  const int fd = owned.get();
  if (fd < 0) return errno_error(errno, "create a socket");
  auto channel = std::unique_ptr<LocalChannel>(new LocalChannel(std::move(owned)));
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(send_max);
  const struct timeval wait = {seconds.count(), std::chrono::microseconds(send_max - seconds).count()};
  if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) != 0) return errno_error(errno, "set up a socket");
  while (::connect(fd, address.get(), Address::size()) != 0) {
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return timed_out();
    const std::string what = "connect to " + path;
    if (errno == ECONNREFUSED) return Error(ErrorCode::kNotFound, what + ": nobody listens");
    return errno_error(errno, what);
  }
  return channel;
}

Status LocalChannel::send(ByteView message) {
  Bytes whole;
  whole.reserve(kLengthBytes + message.size());
  ByteWriter writer(whole);
  writer.le32(static_cast<uint32_t>(message.size()));
  writer.bytes(message);
  ByteView rest(whole);
  while (!rest.empty()) {
    const ssize_t n = ::send(fd_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
    if (n >= 0) {
      rest = rest.subspan(static_cast<size_t>(n));
    } else if (errno == EAGAIN) {
      return timed_out();
    } else if (errno != EINTR) {
      return gone();
    }
  }
  return {};
}

Result<bool> LocalChannel::try_send(ByteView message) {
  Bytes whole;
  ByteWriter writer(whole);
  writer.le32(static_cast<uint32_t>(message.size()));
  writer.bytes(message);
  const ssize_t n = ::send(fd_.get(), whole.data(), whole.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  // Few bytes go as a whole or not at all: they share one buffer of the socket.
  if (n == static_cast<ssize_t>(whole.size())) return true;
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  return gone();
}

Status LocalChannel::receive_more(Deadline until, std::chrono::steady_clock::time_point awake_until) {
  uint8_t bytes[kReceiveBytes];
  for (;;) {
    const bool awake = std::chrono::steady_clock::now() < awake_until;
    if (until && !awake) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until - std::chrono::steady_clock::now());
      struct pollfd waits = {fd_.get(), POLLIN, 0};
      const int ready = poll(&waits, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
      if (ready == 0) return timed_out();
      if (ready < 0) {
        if (errno != EINTR) return gone();
        continue;
      }
    }
    const ssize_t n = recv(fd_.get(), bytes, sizeof bytes, awake ? MSG_DONTWAIT : 0);
    if (n > 0) {
      received_.insert(received_.end(), bytes, bytes + n);
      return {};
    }
    if (n < 0 && awake && errno == EAGAIN) {
      sched_yield();
    } else if (n == 0 || errno != EINTR) {
      return gone();
    }
  }
}

Result<Bytes> LocalChannel::receive(size_t bytes_max, Deadline until, std::chrono::microseconds awake) {
  const auto awake_until = std::chrono::steady_clock::now() + awake;
  while (received_.size() < kLengthBytes) TRY(receive_more(until, awake_until));
  const uint32_t size = load_le32(received_.data());
  if (size > bytes_max) return Error(ErrorCode::kCorrupt, "a local message of " + std::to_string(size) + " bytes");
  while (received_.size() < kLengthBytes + size) TRY(receive_more(until, awake_until));
  const auto begin = received_.begin() + kLengthBytes;
  Bytes message(begin, begin + size);
  received_.erase(received_.begin(), begin + size);
  return message;
}

pid_t LocalChannel::peer_process() const {
  struct ucred peer = {};
  socklen_t size = sizeof peer;
  return getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : 0;
}

void LocalChannel::shut() { shutdown(fd_.get(), SHUT_RDWR); }

Result<std::unique_ptr<LocalListener>> LocalListener::listen(const std::string& path) {
  const Address address = TRY(Address::of(path));
  OwnedDescriptor owned =
      OwnedDescriptor::from([] { return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); });
  const int fd = owned.get();
  if (fd < 0) return errno_error(errno, "create a socket");
  auto listener = std::unique_ptr<LocalListener>(new LocalListener(std::move(owned), path));
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return errno_error(errno, "replace " + path);
  // Before it has its name, so that nobody else can use it in between.
  if (fchmod(fd, S_IRUSR | S_IWUSR) != 0) return errno_error(errno, "set the mode of " + path);
  if (bind(fd, address.get(), Address::size()) != 0) return errno_error(errno, "listen on " + path);
  if (::listen(fd, kBacklog) != 0) return errno_error(errno, "listen on " + path);
  return listener;
}

LocalListener::~LocalListener() {
  if (fd_.get() >= 0) unlink(path_.c_str());
}

Result<std::unique_ptr<LocalChannel>> LocalListener::accept() {
  for (;;) {
    // Waited for outside: a fork waits for what is being opened.
    struct pollfd waits = {fd_.get(), POLLIN, 0};
    poll(&waits, 1, -1);
    // accept4 on a socket that does not block says EAGAIN of one that was shut down.
    if (waits.revents & POLLHUP) return Error(ErrorCode::kCancelled, path_ + " listens no more");
    OwnedDescriptor accepted =
        OwnedDescriptor::from([&] { return accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC); });
    if (accepted.get() >= 0) return std::unique_ptr<LocalChannel>(new LocalChannel(std::move(accepted)));
    if (errno == EINTR || errno == ECONNABORTED || errno == EAGAIN) continue;
    return errno_error(errno, "accept a connection on " + path_);
  }
}

void LocalListener::shut() { shutdown(fd_.get(), SHUT_RDWR); }

}  // namespace litefs
