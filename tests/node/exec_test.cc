#include "fuse/exec.h"

#include <fcntl.h>
#include <pty.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <sstream>
#include <thread>

#include "env/process.h"
#include "test.h"

namespace litefs {
namespace {

using namespace std::chrono_literals;

// A named pipe through which a command says that it is ready: `echo > PATH`. It stays open here for reading and
// writing, so that no word is lost and no open waits.
class ReadyPipe {
 public:
  explicit ReadyPipe(const std::string& path) : path_(path) {
    REQUIRE(mkfifo(path.c_str(), 0600) == 0);
    fd_ = open(path.c_str(), O_RDWR | O_CLOEXEC);
    REQUIRE(fd_ >= 0);
  }
  ~ReadyPipe() { close(fd_); }
  ReadyPipe(const ReadyPipe&) = delete;
  ReadyPipe& operator=(const ReadyPipe&) = delete;

  const std::string& path() const { return path_; }
  void wait() const {
    char newline;
    while (read(fd_, &newline, 1) != 1) {
    }
  }
  void say() const {
    while (write(fd_, "\n", 1) != 1) {
    }
  }

 private:
  std::string path_;
  int fd_;
};

// One supervised run: signals as in the program, and a directory for what the commands leave behind.
class Run {
 public:
  Run() : ready_(dir_.file("ready")), signals_(Signals::create().value()) {}
  ~Run() {
    // Where a command ended before it said that it is ready, the helper still waits for that.
    ended_ = true;
    ready_.say();
    if (helper_.joinable()) helper_.join();
    while (signals_->wait(std::chrono::steady_clock::now()).kind != Signals::Event::Kind::kTimedOut) {
    }
    signals_->release();
  }

  const std::string& ready() const { return ready_.path(); }
  std::string file(const std::string& name) const { return dir_.file(name); }
  std::string contents(const std::string& name) const {
    std::ifstream in(dir_.file(name));
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }

  void add_shell(const std::string& script, bool if_candidate = false) {
    commands_.push_back({{"sh", "-c", script}, if_candidate});
  }
  // A command that installs `traps`, says that it is ready and goes on until a trap ends it.
  void add_waiting(const std::string& traps) {
    add_shell(traps + "; echo > " + ready() + "; while :; do sleep 0.01; done");
  }
  void add(const ExecCommand& command) { commands_.push_back(command); }

  // Does `then` each time that a command has said it is ready, in this order.
  void when_ready(std::vector<std::function<void()>> steps) {
    helper_ = std::thread([this, steps] {
      for (const std::function<void()>& step : steps) {
        ready_.wait();
        if (ended_) return;
        step();
      }
    });
  }

  void candidate(bool is) { candidate_ = is; }
  void fail_node() {
    node_failed_ = true;
    signals_->wake();
  }
  Signals& signals() { return *signals_; }

  Result<int> result(std::chrono::milliseconds stop_max = 60s) {
    return supervise({.commands = commands_,
                      .candidate = candidate_,
                      .node_failed = [this] { return node_failed_.load(); },
                      .stop_max = stop_max},
                     *signals_, Log(null_log_sink()));
  }

 private:
  test::TempDir dir_;
  ReadyPipe ready_;
  std::unique_ptr<Signals> signals_;
  std::vector<ExecCommand> commands_;
  std::thread helper_;
  bool candidate_ = true;
  std::atomic<bool> node_failed_ = false;
  std::atomic<bool> ended_ = false;
};

// A command, run by a process of its own that is then killed.
void run_in_killed_litefs(const std::string& script, const ReadyPipe& ready) {
  pid_t litefs = fork();
  REQUIRE(litefs >= 0);
  if (litefs == 0) {
    if (!ChildProcess::start({"sh", "-c", script}).ok()) _exit(1);
    for (;;) pause();
  }
  ready.wait();
  CHECK(kill(litefs, SIGKILL) == 0);
  CHECK(waitpid(litefs, nullptr, 0) == litefs);
}

void send(int signal) { REQUIRE(kill(getpid(), signal) == 0); }

TEST_CASE("a command gets SIGTERM when litefs is killed") {
  test::TempDir dir;
  ReadyPipe ready(dir.file("ready"));
  ReadyPipe ended(dir.file("ended"));
  run_in_killed_litefs(
      "trap 'echo > " + ended.path() + "; exit' TERM; echo > " + ready.path() + "; while :; do sleep 0.01; done",
      ready);
  ended.wait();
}

TEST_CASE("a command has the limit of open files that litefs was started with") {
  rlimit before = open_files_limit().value();
  rlimit lower{77, before.rlim_max};
  test::TempDir dir;
  auto child = ChildProcess::start({"sh", "-c", "ulimit -n > " + dir.file("limit")}, lower).value();
  CHECK(waitpid(child->pid(), nullptr, 0) == child->pid());
  std::ifstream in(dir.file("limit"));
  std::string limit;
  in >> limit;
  CHECK(limit == "77");
}

TEST_CASE("litefs ends with its application's exit code") {
  Run ended;
  ended.add_shell("exit 42");
  CHECK(ended.result().value() == 42);
}

TEST_CASE("an application that a signal kills gives 128 and the signal") {
  Run killed;
  killed.add_shell("kill -KILL $$");
  CHECK(killed.result().value() == 128 + SIGKILL);
}

TEST_CASE("a program that cannot be run is an error that names it") {
  Run run;
  run.add({{"no-such-program-anywhere"}, false});
  Result<int> result = run.result();
  REQUIRE_FALSE(result.ok());
  CHECK(result.error().code() == ErrorCode::kNotFound);
  CHECK(result.error().message().find("no-such-program-anywhere") != std::string::npos);
}

TEST_CASE("commands run in order, and one that fails ends it") {
  Run run;
  run.add_shell("echo one >> " + run.file("out"));
  run.add_shell("echo two >> " + run.file("out") + "; exit 3");
  run.add_shell("echo three >> " + run.file("out"));
  CHECK(run.result().value() == 3);
  CHECK(run.contents("out") == "one\ntwo\n");
}

TEST_CASE("a command for candidates is skipped elsewhere") {
  Run run;
  run.candidate(false);
  run.add_shell("echo migrate >> " + run.file("out"), true);
  run.add_shell("echo serve >> " + run.file("out"));
  CHECK(run.result().value() == 0);
  CHECK(run.contents("out") == "serve\n");
}

TEST_CASE("with the last command skipped the node runs until a signal") {
  Run run;
  run.candidate(false);
  run.add_shell("exit 9", true);
  send(SIGTERM);
  CHECK(run.result().value() == 0);
}

TEST_CASE("without a command SIGTERM, SIGINT and SIGHUP stop, SIGUSR1 does not") {
  for (int signal : {SIGTERM, SIGINT, SIGHUP}) {
    Run run;
    send(SIGUSR1);
    send(signal);
    CHECK(run.result().value() == 0);
  }
}

TEST_CASE("SIGTERM is forwarded and the application's own exit code kept") {
  Run run;
  run.add_waiting("trap 'exit 7' TERM");
  run.add_shell("echo never >> " + run.file("out"));
  run.when_ready({[] { send(SIGTERM); }});
  CHECK(run.result().value() == 7);
  CHECK(run.contents("out").empty());
}

TEST_CASE("a stop between two commands starts no further one") {
  Run run;
  run.add_waiting("trap 'exit 0' TERM");
  run.add_shell("echo never >> " + run.file("out"));
  run.when_ready({[] { send(SIGTERM); }});
  CHECK(run.result().value() == 0);
  CHECK(run.contents("out").empty());
}

TEST_CASE("SIGHUP and SIGUSR1 reach the application, which goes on") {
  Run run;
  run.add_waiting("trap 'echo hup >> " + run.file("out") + "; echo > " + run.ready() + "' HUP; trap 'echo usr1 >> " +
                  run.file("out") + "; echo > " + run.ready() + "' USR1; trap 'exit 5' INT");
  run.when_ready({[] { send(SIGHUP); }, [] { send(SIGUSR1); }, [] { send(SIGINT); }});
  CHECK(run.result().value() == 5);
  CHECK(run.contents("out") == "hup\nusr1\n");
}

TEST_CASE("a second signal kills an application that ignores the first") {
  Run run;
  run.add_waiting("trap 'echo > " + run.ready() + "' TERM");
  run.when_ready({[] { send(SIGTERM); }, [] { send(SIGTERM); }});
  CHECK(run.result().value() == 128 + SIGKILL);
}

TEST_CASE("an application that takes too long to end is killed") {
  Run run;
  run.add_waiting("trap '' TERM");
  run.when_ready({[] { send(SIGTERM); }});
  CHECK(run.result(1ms).value() == 128 + SIGKILL);
}

TEST_CASE("when the node fails the application is asked to end, and litefs fails") {
  Run run;
  run.add_waiting("trap 'echo term >> " + run.file("out") + "; exit 0' TERM");
  run.when_ready({[&run] {
    run.signals().wake();
    run.fail_node();
  }});
  CHECK(run.result().value() == 1);
  CHECK(run.contents("out") == "term\n");
}

TEST_CASE("the application gets no descriptor, no blocked and no ignored signal") {
  Run run;
  int leak = open("/dev/null", O_RDONLY);  // as a library might: without O_CLOEXEC
  // The shell's own builtins for the signals, as it blocks some around the programs that it runs.
  run.add_shell("while read line; do echo \"$line\"; done < /proc/$$/status > " + run.file("status") +
                "; ls -l /proc/$$/fd > " + run.file("fds"));
  CHECK(run.result().value() == 0);
  close(leak);
  std::string fds = run.contents("fds"), status = run.contents("status");
  CHECK_MESSAGE(fds.find("signalfd") == std::string::npos, fds);
  CHECK_MESSAGE(fds.find("eventfd") == std::string::npos, fds);
  CHECK_MESSAGE(fds.find(" " + std::to_string(leak) + " -> /dev/null") == std::string::npos, fds);
  CHECK_MESSAGE(status.find("SigBlk:\t0000000000000000") != std::string::npos, status);
  // glibc's posix_spawn leaves its own two signals (32 and 33) ignored, which is nobody's business.
  size_t ignored = status.find("SigIgn:\t");
  REQUIRE(ignored != std::string::npos);
  CHECK_MESSAGE((std::stoull(status.substr(ignored + 8, 16), nullptr, 16) & 0x7fffffff) == 0, status);
}

// What a forked copy of this process ended with; nothing of doctest runs in it.
int fork_and_run(const std::function<void()>& body) {
  pid_t pid = fork();
  if (pid == 0) {
    body();
    _exit(99);
  }
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  return status;
}

TEST_CASE("after release a signal ends the process at once") {
  int status = fork_and_run([] {
    std::unique_ptr<Signals> signals = Signals::create().value();
    signals->release();
    kill(getpid(), SIGINT);
  });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGINT);
}

TEST_CASE("a parent's ignored SIGINT is heard, its ignored SIGHUP stays ignored") {
  int status = fork_and_run([] {
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    std::unique_ptr<Signals> signals = Signals::create().value();
    kill(getpid(), SIGHUP);
    kill(getpid(), SIGINT);
    _exit(signals->wait(std::chrono::steady_clock::now() + 60s).signal);
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == SIGINT);
}

TEST_CASE("wait ends at its deadline, and once for many wakes") {
  Run run;
  using Kind = Signals::Event::Kind;
  auto now = std::chrono::steady_clock::now();
  CHECK(run.signals().wait(now - 1s).kind == Kind::kTimedOut);
  CHECK(run.signals().wait(now + 1ms).kind == Kind::kTimedOut);
  run.signals().wake();
  run.signals().wake();
  CHECK(run.signals().wait(std::nullopt).kind == Kind::kWoken);
  CHECK(run.signals().wait(now).kind == Kind::kTimedOut);
}

TEST_CASE("a key at the terminal reaches the application once, not twice") {
  test::TempDir dir;
  const std::string out = dir.file("out");
  ReadyPipe ready(dir.file("ready"));
  int terminal = -1;
  pid_t litefs = forkpty(&terminal, nullptr, nullptr, nullptr);
  REQUIRE(litefs >= 0);
  if (litefs == 0) {
    std::unique_ptr<Signals> signals = Signals::create().value();
    std::vector<ExecCommand> commands = {
        {{"sh", "-c",
          "trap 'echo int >> " + out + "; echo > " + ready.path() + "' INT; trap 'exit 3' USR1; echo > " +
              ready.path() + "; while :; do sleep 0.01; done"},
         false}};
    Result<int> code =
        supervise({.commands = commands, .candidate = true, .node_failed = nullptr}, *signals, Log(null_log_sink()));
    _exit(code.ok() ? code.value() : 98);
  }
  ready.wait();
  REQUIRE(write(terminal, "\x03", 1) == 1);
  ready.wait();
  // Forwarded after whatever came before it, and a shell runs the trap of the lower number first.
  REQUIRE(kill(litefs, SIGUSR1) == 0);
  int status = 0;
  REQUIRE(waitpid(litefs, &status, 0) == litefs);
  close(terminal);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 3);
  std::ifstream in(out);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  CHECK(text == "int\n");
}

}  // namespace
}  // namespace litefs
