// A child process of a test: spawned with pipes or a log file, waited for with a deadline, never
// left behind.
//
// Children die with the thread that spawned them (PR_SET_PDEATHSIG) and with their Process object.
// No call here blocks without a deadline, so a child in D state fails a test instead of hanging it.
// Failures are thrown as std::runtime_error: a test framework or a benchmark's main reports them.
// Thread rule: a Process is used by one thread; spawn from a thread that outlives the child.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace litefs::test {

using Millis = std::chrono::milliseconds;

class Deadline {
 public:
  explicit Deadline(Millis from_now) : at_(std::chrono::steady_clock::now() + from_now) {}
  bool passed() const { return std::chrono::steady_clock::now() >= at_; }
  // For poll(2): never negative.
  int remaining_ms() const;

 private:
  std::chrono::steady_clock::time_point at_;
};

struct ExitStatus {
  int code = -1;   // of exit(); -1 when a signal ended it
  int signal = 0;  // 0: none
  bool ok() const { return code == 0; }
  std::string text() const;
};

struct SpawnOptions {
  std::vector<std::string> argv;
  std::vector<std::string> environment;  // "NAME=value", added to ours
  std::string output_path;               // stdout and stderr are appended here; empty: stdout is a pipe
  std::string error_path;                // with a piped stdout: where stderr goes; empty: ours
};

class Process {
 public:
  static std::unique_ptr<Process> spawn(const SpawnOptions& options);
  // SIGKILL, and a bounded wait.
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  bool running();
  void signal(int number);

  // Nothing when it is still running at the deadline.
  std::optional<ExitStatus> wait(Millis timeout);
  // wait() that throws, with the process's kernel state, when it has not ended in time.
  ExitStatus join(Millis timeout);

  // One line without its end. Nothing at the end of the output; throws at the deadline.
  std::optional<std::string> read_line(Millis timeout);
  // Everything up to the end of the output.
  std::string read_all(Millis timeout);
  void write_line(const std::string& line);
  void close_input();

  // Name, state and kernel function from /proc: what a hanging process hangs in.
  std::string kernel_state() const;

 private:
  Process(pid_t pid, int pidfd, int input, int output) : pid_(pid), pidfd_(pidfd), input_(input), output_(output) {}
  bool fill(const Deadline& deadline);

  pid_t pid_;
  int pidfd_;
  int input_;   // our end of its stdin
  int output_;  // our end of its stdout, or -1
  std::string buffer_;
  std::optional<ExitStatus> ended_;
};

// Runs a command to its end and returns its standard output; throws unless it exits with 0 in time.
std::string run_command(const std::vector<std::string>& argv, Millis timeout);

// A whole file as text; empty when it cannot be read.
std::string read_text_file(const std::string& path);

}  // namespace litefs::test
