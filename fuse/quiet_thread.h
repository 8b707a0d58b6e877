// A thread that takes no signals (they belong to main) and whose end can be awaited with a
// deadline.
//
// Every thread of the mount is one: any of them can sit in a kernel call or a hook that does not
// come back, and Mount::stop() must come back all the same. Thread rule: the owner's thread; the
// body runs on its own.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/result.h"

namespace litefs {

using Deadline = std::chrono::steady_clock::time_point;

inline Deadline deadline_in(std::chrono::milliseconds time) { return std::chrono::steady_clock::now() + time; }

// Gives the calling thread a descriptor table of its own that holds standard input, output and
// error and, where `keep` is a descriptor (-1: none), that one under the number that is returned
// (-1: none). Other threads' tables do not change.
Result<int> take_own_descriptors(int keep);

class QuietThread {
 public:
  QuietThread(const std::string& name, std::function<void()> body);
  // Waits for the body, unless the thread has been abandoned.
  ~QuietThread();
  QuietThread(const QuietThread&) = delete;
  QuietThread& operator=(const QuietThread&) = delete;

  // False when the body is still running at the deadline.
  bool join_until(Deadline deadline);
  // Lets the body run on by itself. Whatever it refers to must live as long as the process.
  void abandon();

 private:
  struct End;

  std::shared_ptr<End> end_;
  std::thread thread_;
};

}  // namespace litefs
