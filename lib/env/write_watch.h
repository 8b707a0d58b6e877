// Sleeping until somebody writes to a file: inotify's IN_MODIFY, which FUSE passthrough raises on the real file too
// (measured: an armed watch costs the writer 10–15 %, so it is for idle files).
//
// Thread rule: one thread waits, adds and removes; wake() from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "env/owned_descriptor.h"

namespace litefs {

class WriteWatch {
 public:
  static Result<std::unique_ptr<WriteWatch>> create();
  WriteWatch(const WriteWatch&) = delete;
  WriteWatch& operator=(const WriteWatch&) = delete;

  // Watches the file that the descriptor has open; the answer names the watch. Two descriptors of one file share
  // one watch.
  Result<int> add(int fd);
  void remove(int watch);
  // Sleeps until a watched file is written, wake() is called, or timeout_ms have passed (negative: for ever).
  // Answers the watches that saw a write.
  std::vector<int> wait(int timeout_ms);
  void wake();

 private:
  void read_writes(std::vector<int>& written);

  WriteWatch(OwnedDescriptor inotify_fd, OwnedDescriptor wake_fd)
      : inotify_fd_(std::move(inotify_fd)), wake_fd_(std::move(wake_fd)) {}

  OwnedDescriptor inotify_fd_;
  OwnedDescriptor wake_fd_;
};

// Sleeps for about this long; the thread that calls it should have called precise_sleeps() once.
void sleep_us(int64_t us);
// The calling thread's sleeps end when they are due, not up to 50 µs later.
void precise_sleeps();

}  // namespace litefs
