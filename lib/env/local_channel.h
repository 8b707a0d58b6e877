// Messages between processes of one machine and one user, over a stream socket with a name in the file system.
//
// A message is its length in bytes (u32, little-endian) and the bytes. All calls block; shut() ends those that are under
// way, from any thread. In a forked process all fail. Thread rule: one thread sends and one receives at a time; shut() by any.
#pragma once

#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "env/owned_descriptor.h"

namespace litefs {

class LocalChannel {
 public:
  // kNotFound: there is no such socket, or nobody listens on it (a killed process leaves its name).
  static Result<std::unique_ptr<LocalChannel>> connect(const std::string& path);
  LocalChannel(const LocalChannel&) = delete;
  LocalChannel& operator=(const LocalChannel&) = delete;

  // kUnavailable: the other side has gone, or shut() was called.
  Status send(ByteView message);
  // kUnavailable likewise; kCorrupt: longer than `bytes_max`.
  Result<Bytes> receive(size_t bytes_max);
  // Sends where there is room at once; false: there is none. For messages of a few bytes.
  Result<bool> try_send(ByteView message);
  void shut();

 private:
  friend class LocalListener;
  explicit LocalChannel(OwnedDescriptor fd) : fd_(std::move(fd)) {}
  Status receive_exactly(MutableByteView out);

  OwnedDescriptor fd_;
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
