#include "fuse/command.h"

namespace litefs {

Status CommandContext::wait(std::chrono::milliseconds time_max) {
  const auto until = std::chrono::steady_clock::now() + time_max;
  for (;;) {
    Signals::Event event = signals.wait(until);
    if (event.kind == Signals::Event::Kind::kTimedOut) return {};
    if (event.kind != Signals::Event::Kind::kSignal) continue;
    if (event.signal != SIGTERM && event.signal != SIGINT && event.signal != SIGHUP) continue;
    // Whoever does not want to wait for the end in order sends another.
    signals.release();
    return Error(ErrorCode::kCancelled, "interrupted");
  }
}

}  // namespace litefs
