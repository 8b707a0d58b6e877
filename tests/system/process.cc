#include "system/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace litefs::test {

namespace {

constexpr Millis kReapTimeout{5000};

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what + ": " + std::strerror(errno)); }

struct Pipe {
  int read_end = -1;
  int write_end = -1;

  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) fail("cannot make a pipe");
    read_end = ends[0];
    write_end = ends[1];
  }
};

void close_if_open(int& fd) {
  if (fd >= 0) close(fd);
  fd = -1;
}

// Runs in the child: async-signal-safe calls only.
[[noreturn]] void become(const std::vector<char*>& argv, const std::vector<char*>& environment, int input, int output,
                         int error, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The parent may have died before the line above.
  if (getppid() != parent) _exit(127);
  dup2(input, 0);
  dup2(output, 1);
  if (error >= 0) dup2(error, 2);
  signal(SIGPIPE, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execve(argv[0], argv.data(), environment.data());
  _exit(127);
}

int open_append(const std::string& path) {
  int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) fail("cannot open " + path);
  return fd;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

}  // namespace

int Deadline::remaining_ms() const {
  auto left = std::chrono::duration_cast<Millis>(at_ - std::chrono::steady_clock::now()).count();
  return left < 0 ? 0 : static_cast<int>(left);
}

std::string ExitStatus::text() const {
  if (signal) return "signal " + std::to_string(signal);
  return "exit code " + std::to_string(code);
}

std::unique_ptr<Process> Process::spawn(const SpawnOptions& options) {
  std::vector<std::string> environment = options.environment;
  for (char** e = environ; *e; e++) environment.push_back(*e);
  std::vector<char*> argv = pointers(options.argv);
  std::vector<char*> envp = pointers(environment);

  Pipe input;
  Pipe output;
  int error = -1;
  if (!options.output_path.empty()) {
    close_if_open(output.write_end);
    close_if_open(output.read_end);
    output.write_end = open_append(options.output_path);
    error = dup(output.write_end);
  } else if (!options.error_path.empty()) {
    error = open_append(options.error_path);
  }

  pid_t parent = getpid();
  pid_t pid = fork();
  if (pid < 0) fail("cannot fork");
  if (pid == 0) become(argv, envp, input.read_end, output.write_end, error, parent);

  close_if_open(input.read_end);
  close_if_open(output.write_end);
  close_if_open(error);
  int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (pidfd < 0) {
    kill(pid, SIGKILL);
    fail("cannot open a pidfd");
  }
  return std::unique_ptr<Process>(new Process(pid, pidfd, input.write_end, output.read_end));
}

Process::~Process() {
  if (!ended_) {
    signal(SIGKILL);
    wait(kReapTimeout);
  }
  close_if_open(input_);
  close_if_open(output_);
  close_if_open(pidfd_);
}

bool Process::running() { return !wait(Millis(0)).has_value(); }

void Process::signal(int number) {
  if (!ended_) kill(pid_, number);
}

std::optional<ExitStatus> Process::wait(Millis timeout) {
  if (ended_) return ended_;
  Deadline deadline(timeout);
  pollfd waiting{pidfd_, POLLIN, 0};
  int ready;
  do ready = poll(&waiting, 1, deadline.remaining_ms());
  while (ready < 0 && errno == EINTR);
  if (ready <= 0) return std::nullopt;
  int status = 0;
  if (waitpid(pid_, &status, 0) != pid_) return std::nullopt;
  ended_ = WIFEXITED(status) ? ExitStatus{WEXITSTATUS(status), 0} : ExitStatus{-1, WTERMSIG(status)};
  return ended_;
}

ExitStatus Process::join(Millis timeout) {
  std::optional<ExitStatus> status = wait(timeout);
  if (!status) throw std::runtime_error("a process hangs: " + kernel_state());
  return *status;
}

bool Process::fill(const Deadline& deadline) {
  pollfd waiting{output_, POLLIN, 0};
  int ready;
  do ready = poll(&waiting, 1, deadline.remaining_ms());
  while (ready < 0 && errno == EINTR);
  if (ready <= 0) throw std::runtime_error("a process does not answer: " + kernel_state());
  char chunk[65536];
  ssize_t got = read(output_, chunk, sizeof chunk);
  if (got <= 0) return false;
  buffer_.append(chunk, static_cast<size_t>(got));
  return true;
}

std::optional<std::string> Process::read_line(Millis timeout) {
  Deadline deadline(timeout);
  size_t end;
  while ((end = buffer_.find('\n')) == std::string::npos) {
    if (!fill(deadline)) return std::nullopt;
  }
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  return line;
}

std::string Process::read_all(Millis timeout) {
  Deadline deadline(timeout);
  while (fill(deadline)) {
  }
  return std::move(buffer_);
}

void Process::write_line(const std::string& line) {
  std::string text = line + "\n";
  const char* at = text.data();
  size_t left = text.size();
  while (left > 0) {
    // Lines are shorter than a pipe's buffer, so a child that does not read cannot block us.
    ssize_t wrote = write(input_, at, left);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) fail("cannot write to a process (" + kernel_state() + ")");
    at += wrote;
    left -= static_cast<size_t>(wrote);
  }
}

void Process::close_input() { close_if_open(input_); }

std::string Process::kernel_state() const {
  std::string directory = "/proc/" + std::to_string(pid_) + "/";
  std::string stat = read_text_file(directory + "stat");
  return "pid " + std::to_string(pid_) + " stat '" + stat.substr(0, 40) + "' wchan '" +
         read_text_file(directory + "wchan") + "'";
}

std::string run_command(const std::vector<std::string>& argv, Millis timeout) {
  Deadline deadline(timeout);
  SpawnOptions options;
  options.argv = argv;
  std::unique_ptr<Process> process = Process::spawn(options);
  process->close_input();
  std::string output = process->read_all(timeout);
  ExitStatus status = process->join(Millis(deadline.remaining_ms() + 1000));
  if (!status.ok()) {
    std::string command;
    for (const std::string& word : argv) command += word + " ";
    throw std::runtime_error(command + "ended with " + status.text() + ": " + output);
  }
  return output;
}

std::string read_text_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

}  // namespace litefs::test
