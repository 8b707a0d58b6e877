#include "fuse/progress.h"

#include <algorithm>

#include "node/status.h"

namespace litefs {
namespace {

constexpr std::chrono::milliseconds kFirst{1000};
constexpr std::chrono::milliseconds kEachOnTerminal{200};
constexpr std::chrono::milliseconds kEachLine{5000};
constexpr int kBarWidth = 20;

}  // namespace

std::string progress_text(const std::string& what, uint64_t bytes, uint64_t total_bytes, int64_t elapsed_ms,
                          int width) {
  std::string text = what + "  ";
  const uint64_t rate = elapsed_ms > 0 ? bytes * 1000 / static_cast<uint64_t>(elapsed_ms) : 0;
  if (total_bytes == 0) {
    text += size_text(bytes);
  } else {
    bytes = std::min(bytes, total_bytes);
    const double part = static_cast<double>(bytes) / static_cast<double>(total_bytes);
    if (width > 0) {
      const int full = static_cast<int>(part * width);
      text += "[" + std::string(static_cast<size_t>(full), '#') + std::string(static_cast<size_t>(width - full), '.') +
              "]  ";
    }
    text += std::to_string(static_cast<int>(part * 100)) + "%  " + size_text(bytes) + " of " + size_text(total_bytes);
  }
  if (rate == 0) return text;
  text += "  " + size_text(rate) + "/s";
  if (total_bytes != 0)
    text += "  " + duration_text(static_cast<int64_t>((total_bytes - bytes) * 1000 / rate)) + " left";
  return text;
}

Progress::Progress(std::ostream& out, bool terminal, std::string what)
    : out_(out), terminal_(terminal), what_(std::move(what)), start_(Clock::now()), next_(start_ + kFirst) {}

Progress::~Progress() {
  if (shown_ > 0) out_ << '\r' << std::string(shown_, ' ') << '\r' << std::flush;
}

void Progress::update(uint64_t bytes, uint64_t total_bytes) {
  const Clock::time_point now = Clock::now();
  if (now < next_) return;
  next_ = now + (terminal_ ? kEachOnTerminal : kEachLine);
  const int64_t elapsed_ms = std::chrono::duration_cast<std::chrono::milliseconds>(now - start_).count();
  std::string text = progress_text(what_, bytes, total_bytes, elapsed_ms, terminal_ ? kBarWidth : 0);
  if (!terminal_) {
    out_ << text << std::endl;
    return;
  }
  const size_t columns = text.size();
  if (columns < shown_) text.append(shown_ - columns, ' ');
  out_ << '\r' << text << std::flush;
  shown_ = columns;
}

}  // namespace litefs
