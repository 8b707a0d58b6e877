// What the commands that work for a while share: where they print, and when they are to end early.
// Thread rule: the main thread.
#pragma once

#include <chrono>
#include <ostream>

#include "base/result.h"
#include "fuse/node_client.h"
#include "fuse/progress.h"
#include "fuse/signals.h"

namespace litefs {

struct CommandContext {
  std::ostream& err;
  bool err_is_terminal = false;
  int in_fd = 0;  // for the file "-"
  int out_fd = 1;
  Signals& signals;
  NodeClient& node;

  // kCancelled once a signal has asked this program to end.
  Status check_interrupted() { return wait(std::chrono::milliseconds(0)); }
  // The same, after at most this long.
  Status wait(std::chrono::milliseconds time_max);
};

}  // namespace litefs
