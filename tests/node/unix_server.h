// A listening local socket whose one connection a test answers by hand.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <string>
#include <thread>

#include "test.h"

namespace litefs::test {

class UnixServer {
 public:
  // `serve` gets the accepted connection on a thread of its own and does not close it. Without it nobody accepts.
  UnixServer(const std::string& directory, const std::string& name, std::function<void(int fd)> serve) {
    listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    // Relative to the directory, whose path may be longer than an address.
    REQUIRE(chdir(directory.c_str()) == 0);
    std::strncpy(address.sun_path, name.c_str(), sizeof address.sun_path - 1);
    REQUIRE(bind(listener_, reinterpret_cast<struct sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(listen(listener_, 1) == 0);
    REQUIRE(chdir("/") == 0);
    if (!serve) return;
    thread_ = std::thread([this, serve] {
      int fd = accept(listener_, nullptr, nullptr);
      // Whoever comes again finds nobody.
      close(listener_);
      serve(fd);
      close(fd);
    });
  }
  ~UnixServer() {
    if (thread_.joinable()) {
      thread_.join();
    } else {
      close(listener_);
    }
  }
  UnixServer(const UnixServer&) = delete;
  UnixServer& operator=(const UnixServer&) = delete;

  // Everything until the other side ends its direction.
  static std::string read_request(int fd) {
    std::string request;
    char buffer[256];
    for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) request.append(buffer, static_cast<size_t>(n));
    return request;
  }
  static void write_all(int fd, const std::string& text) {
    size_t done = 0;
    while (done < text.size()) {
      ssize_t n = send(fd, text.data() + done, text.size() - done, MSG_NOSIGNAL);
      if (n <= 0) return;
      done += static_cast<size_t>(n);
    }
  }

 private:
  int listener_;
  std::thread thread_;
};

}  // namespace litefs::test
