// A mount in a process of its own, under the control of a test: the daemon of these tests.
//
// The daemon is a forked child with Mount and hooks that count, refuse, hold and hide as they are
// told, one line of text at a time. The test is its application. Nothing can outlast a test: the
// destructor kills the daemon and force-unmounts, the daemon dies with the test, and a third
// process does both to a test that hangs.
//
//   count HOOK NAME        how often the hook was called: open opened closed write resize
//                          sync synced unlink unlinked rename renamed mkdir rmdir; all super-journals of a database go
//                          by NAME-mj
//   refuse HOOK NAME CODE  from now on with this ErrorCode's name, until "allow"
//   hold HOOK NAME         calls wait (open: is undecided) until "let"; "held N" awaits N
//   hide NAME, show NAME   is_visible of a database
//   virtual NAME TEXT      a virtual file; without TEXT there is none
//   notify WHAT NAME MS    entry, attributes or data
//   door NAME              the lock door of a database; "close" closes it, "opening NAME"
//                          opens one that nobody waits for
//   lock FILE START LENGTH KIND
//                          database or shm; shared, exclusive or none
//   threads, nodes, fds    numbers
//   stop                   Mount::stop()
//
// Answers are "ok", a number, or the name of an ErrorCode and its message.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>

#include "test.h"

namespace litefs::test {

struct MountProcessOptions {
  bool allow_other = false;
  int open_max_ms = 10'000;
  int client_call_max_ms = 10'000;
  int stop_max_ms = 3'000;
};

class MountProcess {
 public:
  explicit MountProcess(MountProcessOptions options = {});
  ~MountProcess();
  MountProcess(const MountProcess&) = delete;
  MountProcess& operator=(const MountProcess&) = delete;

  // A name in the mount, and the same in the data directory.
  std::string at(const std::string& name) const { return mount_dir() + "/" + name; }
  std::string real(const std::string& name) const { return backing_dir() + "/" + name; }
  std::string mount_dir() const { return directory_.file("mount"); }
  std::string backing_dir() const { return directory_.file("db"); }
  pid_t pid() const { return pid_; }

  // "ready", or why the mount has not started.
  std::string start();
  std::string ask(const std::string& line);
  // The answer comes with receive().
  void send(const std::string& line);
  std::string receive();
  int count(const std::string& hook, const std::string& name);

  // SIGKILL; false: the process has not ended after that time.
  bool kill_and_wait(std::chrono::milliseconds time_max);
  bool is_mounted() const;

 private:
  TempDir directory_;
  MountProcessOptions options_;
  pid_t pid_ = 0;
  int socket_ = -1;
  pid_t watcher_ = 0;
  int lifeline_ = -1;  // closed: the watcher ends
};

// Runs in a forked process, and answers its exit code; 255 when it does not end in time (it is
// killed then).
int in_process(const std::function<int()>& body);
// The same without waiting for it.
pid_t fork_process(const std::function<int()>& body);
int wait_process(pid_t pid, std::chrono::milliseconds time_max = std::chrono::milliseconds(20'000));

// Waits for what another process does, with a deadline.
bool eventually(const std::function<bool()>& condition,
                std::chrono::milliseconds time_max = std::chrono::milliseconds(5'000));

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& text);
// errno of the call, 0 for success.
int try_open(const std::string& path, int flags, mode_t mode = 0644);

// Whether this machine and this user can mount; else why not.
std::string why_no_mount();

}  // namespace litefs::test
