#include "mount_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <thread>

#include "fuse/mount_point.h"
#include "test.h"
#include "test_daemon.h"

namespace litefs::test {

namespace {

constexpr int kTestMaxSeconds = 60;

// Frees a test that hangs, which may be in a system call on the mount where no signal reaches it:
// ending the connection does. Lives until `lifeline` is closed.
[[noreturn]] void watch(int lifeline, const std::string& mount_dir, pid_t test) {
  pollfd wait = {lifeline, POLLIN, 0};
  if (poll(&wait, 1, kTestMaxSeconds * 1000) == 0) {
    const char text[] = "\nthe tests of the mount hang: killed\n";
    (void)!write(2, text, sizeof text - 1);
    umount2(mount_dir.c_str(), MNT_FORCE | MNT_DETACH);
    kill(test, SIGKILL);
  }
  _exit(0);
}

// Children die with the test, also when that is killed.
void begin_child() { prctl(PR_SET_PDEATHSIG, SIGKILL); }

}  // namespace

MountProcess::MountProcess(MountProcessOptions options) : options_(options) {
  std::filesystem::create_directory(mount_dir());
  std::filesystem::create_directory(backing_dir());
  // So that other users get through to the mount.
  chmod(directory_.path().c_str(), 0755);
  int pipes[2];
  REQUIRE(pipe2(pipes, O_CLOEXEC) == 0);
  pid_t test = getpid();
  watcher_ = fork();
  if (watcher_ == 0) {
    dup2(pipes[0], 3);
    close_range(4, ~0U, 0);
    watch(3, mount_dir(), test);
  }
  close(pipes[0]);
  lifeline_ = pipes[1];
  std::string started = start();
  REQUIRE_MESSAGE(started == "ready", started);
}

MountProcess::~MountProcess() {
  bool ended = kill_and_wait(std::chrono::milliseconds(5'000));
  while (umount2(mount_dir().c_str(), MNT_FORCE | MNT_DETACH) == 0) {
  }
  // One that waits for its own mount goes now.
  if (!ended) kill_and_wait(std::chrono::milliseconds(5'000));
  if (socket_ >= 0) close(socket_);
  close(lifeline_);
  waitpid(watcher_, nullptr, 0);
}

std::string MountProcess::start() {
  if (socket_ >= 0) close(socket_);
  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
  socket_ = pair[0];
  MountOptions mount_options;
  mount_options.mount_dir = mount_dir();
  mount_options.backing_dir = backing_dir();
  mount_options.allow_other = options_.allow_other;
  mount_options.open_max = std::chrono::milliseconds(options_.open_max_ms);
  mount_options.client_call_max = std::chrono::milliseconds(options_.client_call_max_ms);
  mount_options.stop_max = std::chrono::milliseconds(options_.stop_max_ms);
  pid_ = fork();
  if (pid_ == 0) {
    begin_child();
    // Nothing that the test has open may live on in here, least of all files on a mount.
    int socket = dup2(pair[1], 3);
    close_range(4, ~0U, 0);
    run_test_daemon(socket, mount_options);
  }
  close(pair[1]);
  return receive();
}

void MountProcess::send(const std::string& line) {
  REQUIRE(::send(socket_, line.data(), line.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(line.size()));
}

std::string MountProcess::receive() {
  pollfd wait = {socket_, POLLIN, 0};
  if (poll(&wait, 1, 20'000) != 1) return "no answer";
  char answer[4096];
  ssize_t n = recv(socket_, answer, sizeof answer, 0);
  return n > 0 ? std::string(answer, static_cast<size_t>(n)) : "ended";
}

std::string MountProcess::ask(const std::string& line) {
  send(line);
  return receive();
}

int MountProcess::count(const std::string& hook, const std::string& name) {
  return std::stoi(ask("count " + hook + " " + name));
}

bool MountProcess::kill_and_wait(std::chrono::milliseconds time_max) {
  if (pid_ == 0) return true;
  kill(pid_, SIGKILL);
  bool ended = eventually([&] { return waitpid(pid_, nullptr, WNOHANG) == pid_; }, time_max);
  if (ended) pid_ = 0;
  return ended;
}

bool MountProcess::is_mounted() const {
  auto mounted = mounted_on(std::filesystem::canonical(directory_.path()).string() + "/mount");
  return mounted.ok() && mounted.value().has_value();
}

pid_t fork_process(const std::function<int()>& body) {
  pid_t pid = fork();
  if (pid == 0) {
    begin_child();
    _exit(body());
  }
  return pid;
}

int wait_process(pid_t pid, std::chrono::milliseconds time_max) {
  int status = 0;
  if (!eventually([&] { return waitpid(pid, &status, WNOHANG) == pid; }, time_max)) {
    kill(pid, SIGKILL);
    eventually([&] { return waitpid(pid, &status, WNOHANG) == pid; });
    return 255;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 254;
}

int in_process(const std::function<int()>& body) { return wait_process(fork_process(body)); }

bool eventually(const std::function<bool()>& condition, std::chrono::milliseconds time_max) {
  auto deadline = std::chrono::steady_clock::now() + time_max;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
}

int try_open(const std::string& path, int flags, mode_t mode) {
  int fd = open(path.c_str(), flags | O_CLOEXEC, mode);
  if (fd < 0) return errno;
  close(fd);
  return 0;
}

std::string why_no_mount() {
  if (geteuid() != 0) return "not root";
  if (access("/dev/fuse", R_OK | W_OK) != 0) return "no /dev/fuse";
  TempDir directory;
  std::filesystem::create_directory(directory.file("mount"));
  std::filesystem::create_directory(directory.file("db"));
  MountOptions options;
  options.mount_dir = directory.file("mount");
  options.backing_dir = directory.file("db");
  auto mount = Mount::start(options, no_hooks(), Log(null_log_sink()));
  // Any other error is a bug for the tests to find.
  bool impossible = !mount && mount.error().code() == ErrorCode::kUnavailable;
  return impossible ? mount.error().message() : "";
}

}  // namespace litefs::test
