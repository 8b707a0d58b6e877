// The command line of the program `litefs`: subcommands, flags, help, exit codes.
//
//   litefs mount [-config FILE] [-no-expand-env] [-- COMMAND [ARG…]]
//   litefs status [-config FILE | -data DIR] [--json]
//   litefs lost [-config FILE | -data DIR] [--json]
//   litefs lost export NAME ID FILE [-config FILE | -data DIR]
//   litefs import [-config FILE | -data DIR] [-wait DURATION] FILE NAME
//   litefs export [-config FILE | -data DIR] [--force] NAME FILE
//   litefs version
//   litefs help [COMMAND]
//
// Flags have one dash or two, values follow as the next word or after "=". Exit codes: 0 success; 1 it could not be
// done, with one line "litefs: …" that says why; 2 the command line is wrong, with that line and the usage; 3 `litefs
// status` found a node that is still starting, whose mount does not serve yet; `litefs mount` ends with its
// application's exit code. Thread rule: the main thread.
#pragma once

#include <functional>
#include <ostream>

#include "base/log.h"
#include "base/result.h"
#include "fuse/signals.h"
#include "node/options.h"

namespace litefs {

// Starts the node, mounts, runs `exec`, stops again. The value is the exit code; an error is shown as
// "litefs: cannot start: …". Signals are blocked already.
using MountFunction = std::function<Result<int>(const Options& options, const Log& log, Signals& signals)>;

struct CliStreams {
  std::ostream& out;
  std::ostream& err;
  bool err_is_terminal = false;  // then progress is a bar
  // Where databases come from and go to that are named "-".
  int in_fd = 0;
  int out_fd = 1;
};

// What main() calls and whose value it returns.
int run_cli(int argc, const char* const* argv, const CliStreams& streams, const MountFunction& mount);

}  // namespace litefs
