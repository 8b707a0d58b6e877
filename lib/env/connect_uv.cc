// Listening and connecting.

#include <netdb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "env/address.h"
#include "env/file.h"
#include "env/loop_uv.h"

namespace litefs {

std::string socket_address_text(const struct sockaddr* address) {
  char host[INET6_ADDRSTRLEN] = "?";
  uv_ip_name(address, host, sizeof host);
  uint16_t port = 0;
  if (address->sa_family == AF_INET) {
    port = reinterpret_cast<const sockaddr_in*>(address)->sin_port;
  } else if (address->sa_family == AF_INET6) {
    port = reinterpret_cast<const sockaddr_in6*>(address)->sin6_port;
  }
  return HostPort{.host = host, .port = ntohs(port)}.text();
}

namespace {

constexpr int kBacklog = 128;

// A host's addresses, copied out of the resolver's list.
std::vector<sockaddr_storage> copy_addresses(const addrinfo* list, uint16_t port) {
  std::vector<sockaddr_storage> out;
  for (const addrinfo* a = list; a; a = a->ai_next) {
    if (a->ai_family != AF_INET && a->ai_family != AF_INET6) continue;
    sockaddr_storage& to = out.emplace_back();
    std::memcpy(&to, a->ai_addr, a->ai_addrlen);
    if (a->ai_family == AF_INET) {
      reinterpret_cast<sockaddr_in&>(to).sin_port = htons(port);
    } else {
      reinterpret_cast<sockaddr_in6&>(to).sin6_port = htons(port);
    }
  }
  return out;
}

constexpr addrinfo tcp_hints() {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  return hints;
}

const sockaddr* as_sockaddr(const sockaddr_storage& address) { return reinterpret_cast<const sockaddr*>(&address); }

sockaddr_storage any_address(const char* number, uint16_t port) {
  sockaddr_storage out{};
  if (number[0] == ':') {
    uv_ip6_addr(number, port, reinterpret_cast<sockaddr_in6*>(&out));
  } else {
    uv_ip4_addr(number, port, reinterpret_cast<sockaddr_in*>(&out));
  }
  return out;
}

struct ListenHandle {
  union {
    uv_handle_t any;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
  } uv;
  UvLoop* loop = nullptr;
  UvSocket::Kind kind = UvSocket::Kind::kTcp;
  std::string address;
  std::shared_ptr<EventLoop::OnAccept> on_accept;

  void accept(int status) {
    if (status != 0) {
      loop->log().warning("accepting a connection failed").kv("address", address).kv("error", uv_strerror(status));
      return;
    }
    UvSocket* socket = new UvSocket(*loop, kind);
    const int accepted = open_handle(socket->handle(), [&] { return uv_accept(&uv.stream, socket->stream()); });
    if (accepted != 0) return socket->close();
    std::shared_ptr<EventLoop::OnAccept> call = on_accept;
    (*call)(socket->hand_out(address));
  }
};

class UvListener final : public Listener {
 public:
  UvListener(UvLoop& loop, UvSocket::Kind kind, EventLoop::OnAccept on_accept)
      : loop_(loop), handle_(new ListenHandle) {
    CHECK(loop.in_loop_thread());
    loop_.count_object(1);
    handle_->loop = &loop;
    handle_->kind = kind;
    handle_->on_accept = std::make_shared<EventLoop::OnAccept>(std::move(on_accept));
    if (kind == UvSocket::Kind::kTcp) {
      CHECK_EQ(uv_tcp_init(loop.uv(), &handle_->uv.tcp), 0);
    } else {
      CHECK_EQ(uv_pipe_init(loop.uv(), &handle_->uv.pipe, 0), 0);
    }
    handle_->uv.any.data = handle_;
  }
  ~UvListener() override {
    CHECK(loop_.in_loop_thread());
    loop_.count_object(-1);
    close_handle(&handle_->uv.any, [](uv_handle_t* h) { delete static_cast<ListenHandle*>(h->data); });
  }

  uint16_t port() const override { return port_; }
  const std::string& address() const override { return handle_->address; }

  // A libuv code.
  int listen_tcp(const sockaddr_storage& address) {
    int code = open_handle(&handle_->uv.any, [&] { return uv_tcp_bind(&handle_->uv.tcp, as_sockaddr(address), 0); });
    if (code == 0) code = listen();
    if (code != 0) return code;
    sockaddr_storage bound{};
    int length = sizeof bound;
    code = uv_tcp_getsockname(&handle_->uv.tcp, reinterpret_cast<sockaddr*>(&bound), &length);
    if (code != 0) return code;
    handle_->address = socket_address_text(as_sockaddr(bound));
    port_ = ntohs(bound.ss_family == AF_INET ? reinterpret_cast<sockaddr_in&>(bound).sin_port
                                             : reinterpret_cast<sockaddr_in6&>(bound).sin6_port);
    return 0;
  }
  int listen_pipe(const std::string& path) {
    handle_->address = path;
    int code = open_handle(&handle_->uv.any, [&] { return uv_pipe_bind(&handle_->uv.pipe, path.c_str()); });
    // Before listen(): nobody can connect to a socket that does not listen yet.
    if (code == 0 && ::chmod(path.c_str(), 0600) != 0) code = uv_translate_sys_error(errno);
    return code == 0 ? listen() : code;
  }

 private:
  int listen() {
    return uv_listen(&handle_->uv.stream, kBacklog,
                     [](uv_stream_t* h, int status) { static_cast<ListenHandle*>(h->data)->accept(status); });
  }

  UvLoop& loop_;
  ListenHandle* handle_;
  uint16_t port_ = 0;
};

// One attempt to connect. Requests under way keep it alive; once given up nothing is called.
class DialState : public std::enable_shared_from_this<DialState> {
 public:
  DialState(UvLoop& loop, std::string what, EventLoop::OnConnected done)
      : loop_(loop), what_(std::move(what)), done_(std::move(done)) {
    loop_.count_object(1);
  }
  DialState(const DialState&) = delete;
  DialState& operator=(const DialState&) = delete;

  void begin_tcp(const std::string& address, int64_t deadline_ms) {
    start_deadline(deadline_ms);
    Result<HostPort> target = parse_address(address);
    if (!target.ok()) return answer_later(target.error());
    if (target.value().host.empty()) target.value().host = "localhost";
    port_ = target.value().port;
    loop_.resolve([&loop = loop_, host = target.value().host, port = port_, weak = weak_from_this()] {
      if (weak.expired()) return;
      addrinfo hints = tcp_hints();
      addrinfo* list = nullptr;
      const int code = getaddrinfo(host.c_str(), nullptr, &hints, &list);
      std::vector<sockaddr_storage> found = copy_addresses(list, port);
      if (list) freeaddrinfo(list);
      loop.post([weak, code, found = std::move(found)] {
        if (auto self = weak.lock()) self->resolved(code, found);
      });
    });
  }

  void begin_unix(const std::string& path, int64_t deadline_ms) {
    path_ = path;
    start_deadline(deadline_ms);
    if (path.size() >= sizeof(sockaddr_un::sun_path)) {
      return answer_later(Error(ErrorCode::kInvalid, what_ + ": the path is too long"));
    }
    socket_ = new UvSocket(loop_, UvSocket::Kind::kPipe);
    connect_.data = new std::shared_ptr<DialState>(shared_from_this());
    open_handle(socket_->handle(), [&] {
      uv_pipe_connect(&connect_, socket_->pipe(), path.c_str(), connected);
      return 0;
    });
  }

  void give_up() {
    if (!done_) return;
    release();
  }

 private:
  static std::shared_ptr<DialState> take(void* data) {
    auto* holder = static_cast<std::shared_ptr<DialState>*>(data);
    std::shared_ptr<DialState> self = std::move(*holder);
    delete holder;
    return self;
  }

  void start_deadline(int64_t deadline_ms) {
    deadline_ = loop_.timer([this] {
      auto self = shared_from_this();
      answer(Error(ErrorCode::kTimedOut, what_ + ": no answer in time"));
    });
    deadline_->start(deadline_ms);
  }

  void resolved(int code, const std::vector<sockaddr_storage>& found) {
    if (!done_) return;
    addresses_ = found;
    if (code != 0) last_ = Error(ErrorCode::kUnavailable, what_ + ": " + gai_strerror(code));
    try_next();
  }

  void try_next() {
    while (next_ < addresses_.size()) {
      const sockaddr_storage& address = addresses_[next_++];
      socket_ = new UvSocket(loop_, UvSocket::Kind::kTcp);
      connect_.data = new std::shared_ptr<DialState>(shared_from_this());
      int code = open_handle(socket_->handle(), [&] {
        return uv_tcp_connect(&connect_, socket_->tcp(), as_sockaddr(address), connected);
      });
      if (code == 0) return;
      take(connect_.data);
      std::exchange(socket_, nullptr)->close();
      last_ = uv_error(code, what_);
    }
    answer(last_);
  }

  static void connected(uv_connect_t* request, int status) {
    std::shared_ptr<DialState> self = take(request->data);
    if (!self->done_) return;
    UvSocket* socket = std::exchange(self->socket_, nullptr);
    if (status == 0) return self->answer(socket->hand_out(self->path_));
    socket->close();
    self->last_ = uv_error(status, self->what_);
    self->try_next();
  }

  void answer_later(Error error) {
    loop_.post([self = shared_from_this(), error] { self->answer(error); });
  }

  void answer(Result<std::unique_ptr<Stream>> result) {
    if (!done_) return;
    EventLoop::OnConnected done = release();
    done(std::move(result));
  }

  EventLoop::OnConnected release() {
    EventLoop::OnConnected done = std::exchange(done_, nullptr);
    loop_.count_object(-1);
    deadline_.reset();
    if (socket_) std::exchange(socket_, nullptr)->close();
    return done;
  }

  UvLoop& loop_;
  std::string what_;
  EventLoop::OnConnected done_;  // null: answered or given up
  std::string path_;
  uint16_t port_ = 0;
  uv_connect_t connect_;
  std::vector<sockaddr_storage> addresses_;
  size_t next_ = 0;
  UvSocket* socket_ = nullptr;
  std::unique_ptr<Timer> deadline_;
  Error last_{ErrorCode::kUnavailable, what_ + ": the name has no address"};
};

class UvDial final : public Dial {
 public:
  explicit UvDial(std::shared_ptr<DialState> state) : state_(std::move(state)) {}
  ~UvDial() override { state_->give_up(); }

 private:
  std::shared_ptr<DialState> state_;
};

// Removes the socket of a dead process. kBusy: a living one listens.
Status clear_stale_socket(const std::string& path) {
  struct stat info;
  if (::lstat(path.c_str(), &info) != 0) return {};
  if (!S_ISSOCK(info.st_mode)) {
    return Error(ErrorCode::kExists, "listening on " + path + ": a file that is no socket is there");
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const OwnedDescriptor fd =
      OwnedDescriptor::from([] { return ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); });
  if (fd.get() < 0) return errno_error(errno, "making a socket");
  int code = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (code == 0 || errno != ECONNREFUSED) {
    return Error(ErrorCode::kBusy, "listening on " + path + ": another process listens there");
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return errno_error(errno, "removing the stale socket " + path);
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Listener>> UvLoop::listen(const std::string& address, OnAccept on_accept) {
  HostPort target = TRY(parse_address(address));
  std::string what = "listening on " + address;
  std::vector<sockaddr_storage> candidates;
  if (target.host.empty()) {
    // One IPv6 socket takes IPv4 too; a machine without IPv6 gets an IPv4 one.
    candidates = {any_address("::", target.port), any_address("0.0.0.0", target.port)};
  } else {
    uv_getaddrinfo_t request;
    addrinfo hints = tcp_hints();
    int code = uv_getaddrinfo(&loop_, &request, nullptr, target.host.c_str(), nullptr, &hints);
    if (code != 0) return Error(ErrorCode::kInvalid, what + ": " + uv_strerror(code));
    candidates = copy_addresses(request.addrinfo, target.port);
    uv_freeaddrinfo(request.addrinfo);
  }
  int code = UV_EADDRNOTAVAIL;
  for (const sockaddr_storage& candidate : candidates) {
    auto listener = std::make_unique<UvListener>(*this, UvSocket::Kind::kTcp, on_accept);
    code = listener->listen_tcp(candidate);
    if (code == 0) return std::unique_ptr<Listener>(std::move(listener));
    if (code != UV_EADDRNOTAVAIL && code != UV_EAFNOSUPPORT) break;
  }
  if (code == UV_EADDRINUSE) {
    return Error(ErrorCode::kBusy, what + ": another process has this port");
  }
  return uv_error(code, what);
}

Result<std::unique_ptr<Listener>> UvLoop::listen_unix(const std::string& path, OnAccept on_accept) {
  std::string what = "listening on " + path;
  if (path.empty() || path.size() >= sizeof(sockaddr_un::sun_path)) {
    return Error(ErrorCode::kInvalid, what + ": a socket's path has 1 to 107 bytes");
  }
  TRY(clear_stale_socket(path));
  auto listener = std::make_unique<UvListener>(*this, UvSocket::Kind::kPipe, std::move(on_accept));
  int code = listener->listen_pipe(path);
  if (code != 0) return uv_error(code, what);
  return std::unique_ptr<Listener>(std::move(listener));
}

std::unique_ptr<Dial> UvLoop::connect(const std::string& address, int64_t deadline_ms, OnConnected done) {
  CHECK(in_loop_thread());
  auto state = std::make_shared<DialState>(*this, "connecting to " + address, std::move(done));
  state->begin_tcp(address, deadline_ms);
  return std::make_unique<UvDial>(std::move(state));
}

std::unique_ptr<Dial> UvLoop::connect_unix(const std::string& path, int64_t deadline_ms, OnConnected done) {
  CHECK(in_loop_thread());
  auto state = std::make_shared<DialState>(*this, "connecting to " + path, std::move(done));
  state->begin_unix(path, deadline_ms);
  return std::make_unique<UvDial>(std::move(state));
}

}  // namespace litefs
