#include "fuse/cli_log.h"

#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace litefs {
namespace {

class TerminalLogSink final : public LogSink {
 public:
  TerminalLogSink(Clock& clock, const LogSettings& settings)
      : clock_(clock), settings_(settings), colours_(isatty(settings.fd) == 1 && std::getenv("NO_COLOR") == nullptr) {}

  void write(LogLevel level, std::string_view line) override {
    std::string text;
    if (settings_.timestamps) text = timestamp(clock_.wall_ms()) + " ";
    text += coloured(level);
    text.push_back(' ');
    for (char c : line) {
      // Names come from users and peers, and must not end the line or steer the terminal.
      bool control = static_cast<unsigned char>(c) < ' ' || c == 127;
      text.push_back(control ? '?' : c);
    }
    text.push_back('\n');
    std::string_view rest = text;
    while (!rest.empty()) {
      ssize_t n = ::write(settings_.fd, rest.data(), rest.size());
      if (n > 0)
        rest.remove_prefix(static_cast<size_t>(n));
      else if (errno != EINTR)
        return;
    }
  }

 private:
  static std::string timestamp(int64_t wall_ms) {
    time_t seconds = static_cast<time_t>(wall_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    char date[32], text[48];
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    std::snprintf(text, sizeof text, "%s.%03dZ", date, static_cast<int>(wall_ms % 1000));
    return text;
  }

  std::string coloured(LogLevel level) const {
    const char* name = "INFO";
    const char* colour = "";
    switch (level) {
      case LogLevel::kDebug: name = "DEBUG", colour = "\x1b[2m"; break;
      case LogLevel::kInfo: break;
      case LogLevel::kWarning: name = "WARN", colour = "\x1b[33m"; break;
      case LogLevel::kError: name = "ERROR", colour = "\x1b[31m"; break;
    }
    if (!colours_ || *colour == '\0') return name;
    return std::string(colour) + name + "\x1b[0m";
  }

  Clock& clock_;
  const LogSettings settings_;
  const bool colours_;
};

}  // namespace

std::shared_ptr<LogSink> terminal_log_sink(Clock& clock, const LogSettings& settings) {
  return std::make_shared<TerminalLogSink>(clock, settings);
}

}  // namespace litefs
