// Log lines on standard error:
//
//   2026-01-02T03:04:05.678Z INFO replica connected node=b
//
// One write a line, so that lines of several threads and processes do not mix. Levels are coloured on a terminal,
// unless NO_COLOR is set. Thread rule: any thread.
#pragma once

#include <memory>

#include "base/log.h"
#include "env/clock.h"

namespace litefs {

struct LogSettings {
  int fd = 2;
  bool timestamps = true;
};

// The clock must outlive the sink. A line that cannot be written is dropped.
std::shared_ptr<LogSink> terminal_log_sink(Clock& clock, const LogSettings& settings);

}  // namespace litefs
