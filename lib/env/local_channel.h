// Messages between processes of one machine and one user, over a stream socket with a name in the file system.
//
// A message is its length in bytes (u32, little-endian) and the bytes. Calls block, those of the side that has connected
// until a deadline where it says so, as the other process may be stopped and not gone; shut() ends those that are under
// way, from any thread. In a forked process all fail. Thread rule: one thread sends and one receives at a time; shut()
// by any.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "env/owned_descriptor.h"

namespace litefs {

class LocalChannel {
 public:
  // kNotFound: there is no such socket, or nobody listens on it (a killed process leaves its name).
  // kTimedOut: it has too many that wait. `send_max`: also for each send().
  static Result<std::unique_ptr<LocalChannel>> connect(const std::string& path, std::chrono::milliseconds send_max);
  LocalChannel(const LocalChannel&) = delete;
  LocalChannel& operator=(const LocalChannel&) = delete;

  // kUnavailable: the other side has gone, or shut() was called; kTimedOut: it takes nothing.
  Status send(ByteView message);
  // kUnavailable likewise; kCorrupt: longer than `bytes_max`; kTimedOut: after an error the channel is of no more use.
  using Deadline = std::optional<std::chrono::steady_clock::time_point>;
  // `awake`: for so long it does not sleep. To be woken takes 50 µs on some virtual machines.
  Result<Bytes> receive(size_t bytes_max, Deadline until = std::nullopt,
                        std::chrono::microseconds awake = std::chrono::microseconds(0));
  // The process at the other end, as it was when the channel was made.
  pid_t peer_process() const;
  // Sends where there is room at once; false: there is none. For messages of a few bytes.
  Result<bool> try_send(ByteView message);
  void shut();

 private:
  friend class LocalListener;
  explicit LocalChannel(OwnedDescriptor fd) : fd_(std::move(fd)) {}
  Status receive_more(Deadline until, std::chrono::steady_clock::time_point awake_until);

  OwnedDescriptor fd_;
  Bytes received_;  // and not taken
};

class LocalListener {
 public:
  // For this user alone (mode 0600). Takes the name from whoever has it: the caller knows that he is gone.
  static Result<std::unique_ptr<LocalListener>> listen(const std::string& path);
  // Removes the name.
  ~LocalListener();
  LocalListener(const LocalListener&) = delete;
  LocalListener& operator=(const LocalListener&) = delete;

  // kCancelled: after shut().
  Result<std::unique_ptr<LocalChannel>> accept();
  void shut();

 private:
  LocalListener(OwnedDescriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  OwnedDescriptor fd_;
  const std::string path_;
};

}  // namespace litefs
