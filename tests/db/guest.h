// An application in another process, which uses a database while a node (the host) runs in this one, and asks it for
// what a guest of the VFS asks for: a drain before a checkpoint or a loss of the WAL takes effect, a capture before a
// rollback journal is made final. It can be stopped before any of its changes of files, be left waiting while one host
// dies and another takes over, or be killed there.
//
// This program, run again with `--guest`, is that process; SQLite's own unix VFS is below. Thread rule: one thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "db/node_fixture.h"

namespace litefs::test {

class Guest {
 public:
  // Answers what a guest asks; `what` is one of the words in guest.cc, `file` its path.
  using Host = std::function<Status(const std::string& what, const std::string& file)>;
  Guest(const std::string& path, Host host);
  ~Guest();  // kills it
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;

  // The result code's text, or the rows, one a line.
  std::string run(const std::string& sql);
  // Begins to run it. `step` > 0: until it is about to change a file for that time, or asks at that step; true: it
  // waits there, false: it has come to its end before.
  bool run_until(const std::string& sql, int step);
  // The change that it waits with: "write database", "sync journal", "ask journal", …
  const std::string& waits_with() const { return pending_; }
  bool waiting() const { return !pending_.empty(); }
  // Lets it go on, to the end; or `step` changes further.
  std::string go_on();
  bool step_on(int step);
  void kill_now();
  void close();

 private:
  void send(const std::string& line);
  std::string receive();
  bool follow(int step);
  bool answer(const std::string& question);

  Host host_;
  int pid_ = -1;
  int to_ = -1;
  int from_ = -1;
  std::string buffer_;
  std::string pending_;  // the question that is not answered yet
  std::string rows_;
};

// What the node does for a guest, on one of its databases.
Status serve_guest(Database& database, const std::string& what);

// Runs the guest where argv[1] is --guest; else answers -1.
int guest_main(int argc, char** argv);

}  // namespace litefs::test
