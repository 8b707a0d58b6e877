// A TCP server on 127.0.0.1 that answers lines by lines, each client in a thread of its own. It knows nothing of
// litefs; kv.cc is the example. Thread rule: made and destroyed by one thread.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>

class Descriptor {
 public:
  Descriptor(int fd, const char* what) : fd_(fd) {
    if (fd < 0) throw std::system_error(errno, std::generic_category(), what);
  }
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return fd_; }

 private:
  const int fd_;
};

class LineServer {
 public:
  // Answers one line, without line ends. Each client has one of its own, which only its thread calls.
  using Answer = std::function<std::string(const std::string& line)>;

  // Port 0 is any free one. `make_answer` is called by the client's thread, and must not throw; nor may the Answer.
  LineServer(uint16_t port, std::function<Answer()> make_answer)
      : make_answer_(std::move(make_answer)), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket") {
    const int on = 1;
    setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    socklen_t size = sizeof address;
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* any = reinterpret_cast<sockaddr*>(&address);
    if (bind(listener_, any, size) != 0 || listen(listener_, SOMAXCONN) != 0 ||
        getsockname(listener_, any, &size) != 0) {
      throw std::system_error(errno, std::generic_category(), "port " + std::to_string(port));
    }
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_clients(); });
  }
  // Ends the connections, each after the answers to what it has sent.
  ~LineServer() {
    eventfd_write(stop_, 1);
    acceptor_.join();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return clients_ == 0; });
  }

  uint16_t port() const { return port_; }

 private:
  static constexpr size_t kLineBytesMax = 1 << 20;
  static constexpr int kClientsMax = 100;  // more are accepted when one has gone

  // Sleeps until there is something on `fd`. False: the server is being destroyed.
  bool wait_for_input(int fd) {
    pollfd wanted[] = {{stop_, POLLIN, 0}, {fd, POLLIN, 0}};
    while (poll(wanted, 2, -1) < 0 && errno == EINTR) {
    }
    return wanted[0].revents == 0;
  }

  void accept_clients() {
    while (wait_for_input(listener_)) {
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      std::unique_lock lock(mutex_);
      ++clients_;
      std::thread([this, fd] { run(fd); }).detach();
      changed_.wait(lock, [this] { return clients_ < kClientsMax; });
    }
  }

  void run(int fd) {
    serve(fd);
    std::lock_guard lock(mutex_);
    --clients_;
    changed_.notify_all();
  }

  void serve(int fd) {
    const Descriptor client(fd, "client");
    const Answer answer = make_answer_();
    std::string input;
    char bytes[4096];
    while (wait_for_input(client)) {
      const ssize_t size = recv(client, bytes, sizeof bytes, 0);
      if (size <= 0) return;
      input.append(bytes, static_cast<size_t>(size));
      size_t begin = 0;
      for (size_t end; (end = input.find('\n', begin)) != std::string::npos; begin = end + 1) {
        const size_t size_bytes = end - begin - (end > begin && input[end - 1] == '\r');
        if (!send_all(client, answer(input.substr(begin, size_bytes)) + "\n")) return;
      }
      input.erase(0, begin);
      if (input.size() > kLineBytesMax) return;
    }
  }

  static bool send_all(int fd, const std::string& text) {
    for (size_t sent = 0; sent < text.size();) {
      const ssize_t size = send(fd, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (size < 0) return false;
      sent += static_cast<size_t>(size);
    }
    return true;
  }

  const std::function<Answer()> make_answer_;
  const Descriptor listener_;
  const Descriptor stop_{eventfd(0, EFD_CLOEXEC), "eventfd"};
  uint16_t port_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  int clients_ = 0;  // threads; guarded by mutex_
  std::thread acceptor_;
};
