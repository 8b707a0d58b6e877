// The application that `exec` names, run as a child of litefs.
//
// It gets litefs's environment, working directory, standard streams and process group, no other descriptor of
// litefs, no blocked signal, and the default effect of each signal that litefs has changed. It is in the same
// process group so that it can read from the terminal; a signal that the terminal sends therefore reaches it by
// itself and is not forwarded. When litefs dies without having ended it (SIGKILL), the kernel sends it SIGTERM. Thread
// rule: the main thread, as that signal comes when the thread ends that started it.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "fuse/signals.h"
#include "node/options.h"

namespace litefs {

class ChildProcess {
 public:
  // Searches PATH for argv[0]. kNotFound, kReadOnly (no permission) or kIo when it cannot be run. `descriptors`: its
  // limit of open files, where that is not to be ours.
  static Result<std::unique_ptr<ChildProcess>> start(const std::vector<std::string>& argv,
                                                     const std::optional<rlimit>& descriptors = {});
  // A child that has not ended goes on by itself.
  ~ChildProcess() = default;
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  // Its exit code, or 128 and the number of the signal that killed it; nothing while it runs. Never waits.
  std::optional<int> exit_code();
  // No effect once exit_code() has told the end: the number may be another process's by then.
  void signal(int signal);

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}

  pid_t pid_;
  std::optional<int> exit_code_;
};

// How long an application may take to end after it was asked to; then it is killed.
inline constexpr std::chrono::seconds kChildStopMax{300};

struct Supervision {
  const std::vector<ExecCommand>& commands;
  bool candidate = false;  // of this node: commands with if_candidate run only then
  // Asked after each Signals::wake(): whether the node has failed, so that the application must stop.
  std::function<bool()> node_failed;
  std::chrono::milliseconds stop_max = kChildStopMax;
  std::optional<rlimit> descriptors = std::nullopt;  // of the application
};

// Runs the commands in order; each but the last must end with 0 before the next one starts. While one runs,
// signals are forwarded to it. SIGTERM and SIGINT also mean that nothing more is started; a second one of them,
// or stop_max, kills the application. Without a command (or with the last one skipped) it waits for
// a signal that stops.
//
// The value is litefs's exit code: that of the last command that ran; 0 when there was none and a signal came; 1 when
// the node has failed. An error: a command could not be started.
Result<int> supervise(const Supervision& supervision, Signals& signals, const Log& log);

}  // namespace litefs
