// Logging: events, not steps. A line is a fixed message and key=value pairs:
//
//   log.info("replica connected").kv("node", id).kv("databases", n);
//
// The line is written when the expression ends. A Log is handed to whoever logs; a LogSink decides where
// lines go. Thread rule: any thread; a sink serialises its own writing.
#pragma once

#include <memory>
#include <sstream>
#include <string>
#include <string_view>

#include "base/result.h"

namespace litefs {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

class LogSink {
 public:
  virtual ~LogSink() = default;
  virtual void write(LogLevel level, std::string_view line) = 0;
};

class LogLine {
 public:
  LogLine(LogSink* sink, LogLevel level, std::string_view message);
  LogLine(LogLine&& other) noexcept : sink_(other.sink_), level_(other.level_), text_(std::move(other.text_)) {
    other.sink_ = nullptr;
  }
  LogLine(const LogLine&) = delete;
  LogLine& operator=(const LogLine&) = delete;
  ~LogLine();

  template <class T>
  LogLine&& kv(std::string_view key, const T& value) && {
    if (sink_) {
      std::ostringstream out;
      out << value;
      append(key, out.str());
    }
    return std::move(*this);
  }
  LogLine&& error(const Error& error) && {
    if (sink_) append("error", error.message());
    return std::move(*this);
  }

 private:
  void append(std::string_view key, std::string_view value);

  LogSink* sink_;  // nullptr: below the threshold
  LogLevel level_;
  std::string text_;
};

class Log {
 public:
  explicit Log(std::shared_ptr<LogSink> sink, LogLevel threshold = LogLevel::kInfo)
      : sink_(std::move(sink)), threshold_(threshold) {}

  LogLine debug(std::string_view message) const { return line(LogLevel::kDebug, message); }
  LogLine info(std::string_view message) const { return line(LogLevel::kInfo, message); }
  LogLine warning(std::string_view message) const { return line(LogLevel::kWarning, message); }
  LogLine error(std::string_view message) const { return line(LogLevel::kError, message); }

 private:
  LogLine line(LogLevel level, std::string_view message) const {
    return LogLine(level >= threshold_ ? sink_.get() : nullptr, level, message);
  }

  std::shared_ptr<LogSink> sink_;
  LogLevel threshold_;
};

const char* log_level_name(LogLevel level);

// A sink that drops everything.
std::shared_ptr<LogSink> null_log_sink();

}  // namespace litefs
