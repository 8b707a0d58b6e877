#include "fuse/exec.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "env/file.h"
#include "fuse/descriptor.h"

namespace litefs {
namespace {

constexpr std::chrono::seconds kKilledMax{10};

// What the new process does before it becomes the application. After fork() in a process with threads, only
// async-signal-safe calls: everything is prepared.
struct ChildStart {
  pid_t parent;
  int report_fd;  // gets the errno of a failure; closed by exec
  char* const* argv;
  const rlimit* descriptors;

  int run() const {
    // The order closes the race: a parent that has died until now is no longer ours.
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0) return errno;
    if (getppid() != parent) return ECANCELED;
    struct sigaction defaults = {};
    defaults.sa_handler = SIG_DFL;
    for (int signal : {SIGPIPE, SIGCHLD, SIGTERM, SIGINT, SIGUSR1, SIGUSR2}) {
      if (sigaction(signal, &defaults, nullptr) != 0) return errno;
    }
    sigset_t none;
    sigemptyset(&none);
    if (sigprocmask(SIG_SETMASK, &none, nullptr) != 0) return errno;
    // All of ours are close-on-exec; this is for those of libraries. An application that kept the FUSE device
    // open would keep a dead mount from ever answering.
    if (close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) != 0) return errno;
    if (descriptors && setrlimit(RLIMIT_NOFILE, descriptors) != 0) return errno;
    execvp(argv[0], argv);
    return errno;
  }
};

class Supervisor {
 public:
  Supervisor(const Supervision& supervision, Signals& signals, const Log& log)
      : supervision_(supervision), signals_(signals), log_(log) {}

  Result<int> run() {
    const std::vector<ExecCommand>& commands = supervision_.commands;
    for (size_t i = 0; i < commands.size(); ++i) {
      const std::string& program = commands[i].argv.front();
      if (commands[i].if_candidate && !supervision_.candidate) {
        log_.info("exec skipped, this node is not a candidate").kv("program", program);
        continue;
      }
      child_ = TRY(ChildProcess::start(commands[i].argv, supervision_.descriptors));
      log_.info("exec started").kv("program", program).kv("pid", child_->pid());
      int code = wait_for_child();
      log_.info("exec ended").kv("program", program).kv("exit_code", code);
      child_.reset();
      bool last = i + 1 == commands.size();
      if (node_failed_) return 1;
      if (stop_asked_ || last || code != 0) return code;
    }
    while (!stop_asked_ && !node_failed_) handle(signals_.wait(std::nullopt));
    return node_failed_ ? 1 : 0;
  }

 private:
  int wait_for_child() {
    for (;;) {
      // SIGCHLDs are merged, and other children (fusermount3) send them too: only this tells.
      if (std::optional<int> code = child_->exit_code()) return *code;
      if (abandoned_) return 128 + SIGKILL;
      handle(signals_.wait(act_at_));
    }
  }

  void handle(const Signals::Event& event) {
    switch (event.kind) {
      case Signals::Event::Kind::kTimedOut: escalate("exec did not end in time, killed"); break;
      case Signals::Event::Kind::kWoken: on_wake(); break;
      case Signals::Event::Kind::kSignal: on_signal(event); break;
    }
  }

  void on_wake() {
    if (node_failed_ || !supervision_.node_failed || !supervision_.node_failed()) return;
    node_failed_ = true;
    if (!child_) return;
    log_.warning("the node has failed, exec is stopped").kv("pid", child_->pid());
    child_->signal(SIGTERM);
    begin_stop();
  }

  void on_signal(const Signals::Event& event) {
    if (event.signal == SIGCHLD) return;
    bool stops = event.signal == SIGTERM || event.signal == SIGINT;
    if (!child_) {
      stop_asked_ = stop_asked_ || stops || event.signal == SIGHUP;
      return;
    }
    if (stops && stop_asked_) {
      escalate("a second signal to stop, exec is killed");
      return;
    }
    if (!event.from_terminal) child_->signal(event.signal);
    if (!stops) return;
    log_.info("stopping, waiting for exec to end").kv("signal", event.signal);
    stop_asked_ = true;
    begin_stop();
  }

  void begin_stop() {
    if (!act_at_) act_at_ = std::chrono::steady_clock::now() + supervision_.stop_max;
  }

  // Kills the child; when even that has not ended it (it hangs in the kernel), goes on without it.
  void escalate(const char* why) {
    if (killed_) {
      log_.error("exec cannot be killed, left behind").kv("pid", child_->pid());
      abandoned_ = true;
      return;
    }
    killed_ = true;
    log_.warning(why).kv("pid", child_->pid());
    child_->signal(SIGKILL);
    act_at_ = std::chrono::steady_clock::now() + kKilledMax;
  }

  const Supervision& supervision_;
  Signals& signals_;
  const Log& log_;
  std::unique_ptr<ChildProcess> child_;
  bool stop_asked_ = false;
  bool node_failed_ = false;
  bool killed_ = false;
  bool abandoned_ = false;
  std::optional<std::chrono::steady_clock::time_point> act_at_;  // set when the child is to end
};

}  // namespace

Result<std::unique_ptr<ChildProcess>> ChildProcess::start(const std::vector<std::string>& argv,
                                                          const std::optional<rlimit>& descriptors) {
  CHECK(!argv.empty());
  std::vector<char*> pointers;
  for (const std::string& word : argv) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return errno_error(errno, "exec: run '" + argv[0] + "'");
  Descriptor from(report[0]), to(report[1]);
  const ChildStart start{getpid(), to.get(), pointers.data(), descriptors ? &*descriptors : nullptr};
  const pid_t pid = fork();
  if (pid < 0) return errno_error(errno, "exec: run '" + argv[0] + "'");
  if (pid == 0) {
    const int failed = start.run();
    const ssize_t said = write(start.report_fd, &failed, sizeof failed);
    _exit(said == sizeof failed ? 127 : 126);
  }
  to.reset();
  int error = 0;
  ssize_t n;
  do n = read(from.get(), &error, sizeof error);
  while (n < 0 && errno == EINTR);
  if (n == 0) return std::unique_ptr<ChildProcess>(new ChildProcess(pid));  // exec has closed the pipe
  waitpid(pid, nullptr, 0);
  return errno_error(n < 0 ? errno : error, "exec: run '" + argv[0] + "'");
}

std::optional<int> ChildProcess::exit_code() {
  int status;
  if (!exit_code_ && waitpid(pid_, &status, WNOHANG) == pid_) {
    if (WIFEXITED(status))
      exit_code_ = WEXITSTATUS(status);
    else if (WIFSIGNALED(status))
      exit_code_ = 128 + WTERMSIG(status);
  }
  return exit_code_;
}

void ChildProcess::signal(int signal) {
  if (!exit_code_) kill(pid_, signal);
}

Result<int> supervise(const Supervision& supervision, Signals& signals, const Log& log) {
  return Supervisor(supervision, signals, log).run();
}

}  // namespace litefs
