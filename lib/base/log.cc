#include "base/log.h"

namespace litefs {

LogLine::LogLine(LogSink* sink, LogLevel level, std::string_view message) : sink_(sink), level_(level) {
  if (sink_) text_.assign(message);
}

LogLine::~LogLine() {
  if (sink_) sink_->write(level_, text_);
}

void LogLine::append(std::string_view key, std::string_view value) {
  text_.append(1, ' ').append(key).append(1, '=');
  if (value.find_first_of(" \"\n") == std::string_view::npos && !value.empty()) {
    text_.append(value);
    return;
  }
  text_.push_back('"');
  for (char c : value) {
    if (c == '"' || c == '\\') text_.push_back('\\');
    text_.push_back(c == '\n' ? ' ' : c);
  }
  text_.push_back('"');
}

const char* log_level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return "debug";
    case LogLevel::kInfo: return "info";
    case LogLevel::kWarning: return "warning";
    case LogLevel::kError: return "error";
  }
  return "?";
}

namespace {
class NullLogSink final : public LogSink {
 public:
  void write(LogLevel, std::string_view) override {}
};
}  // namespace

std::shared_ptr<LogSink> null_log_sink() { return std::make_shared<NullLogSink>(); }

}  // namespace litefs
