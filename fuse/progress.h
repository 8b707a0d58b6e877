// How far a long command is: a bar on a terminal, a line every few seconds otherwise, on standard
// error.
//
//   importing app.db  [##########..........]  50%  512 MB of 1.0 GB  102 MB/s  5.0 s left
//
// Of an unknown total only bytes and rate are shown. Work of less than a second is silent. Thread
// rule: one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <ostream>
#include <string>

namespace litefs {

// The line for this state, without a line end; `width` of the bar, 0 for none.
std::string progress_text(const std::string& what, uint64_t bytes, uint64_t total_bytes, int64_t elapsed_ms, int width);

class Progress {
 public:
  Progress(std::ostream& out, bool terminal, std::string what);
  // Clears the bar.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // total_bytes 0: not known. Cheap to call often.
  void update(uint64_t bytes, uint64_t total_bytes);

 private:
  using Clock = std::chrono::steady_clock;
  std::ostream& out_;
  const bool terminal_;
  const std::string what_;
  const Clock::time_point start_;
  Clock::time_point next_;
  size_t shown_ = 0;  // columns of the bar that stands on the terminal
};

}  // namespace litefs
