// Other processes for the tests of this room: this program, run again with `--child VERB
// ARGUMENTS`.
//
// A test never opens SQLite on files whose descriptors it holds itself: closing any of them would
// drop the connection's POSIX locks, and locks within one process would not be what is tested.
#pragma once

#include <string>
#include <vector>

namespace litefs::test {

// A child of this program; its end of a pipe is its standard input and output. Killed by the
// destructor.
class Child {
 public:
  explicit Child(const std::vector<std::string>& arguments);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void send(const std::string& line);
  // The next line without its end; nothing more: throws.
  std::string receive();
  // Up to `count` bytes as they come; fewer only at the end.
  size_t receive_bytes(size_t count);
  void kill_now();  // SIGKILL, and waits for the end; what it has written can still be received
  // Closes its input and waits for its end. Throws when it ended otherwise than well.
  void finish();

 private:
  int pid_ = -1;
  int to_ = -1;
  int from_ = -1;
  std::string buffer_;
};

struct Answer {
  int code = 0;  // SQLite's extended result code
  std::string message;
  std::vector<std::string> rows;  // values joined by |
};

// A process with one SQLite connection.
class SqliteProcess {
 public:
  SqliteProcess() : child_({"shell"}) {}
  explicit SqliteProcess(const std::string& path) : SqliteProcess() { open(path); }

  // A path or a file: URI.
  void open(const std::string& path);
  void close();
  Answer run(const std::string& sql);
  // Throws unless the statements succeed.
  void exec(const std::string& sql);
  // The only value of the only row.
  std::string value(const std::string& sql);
  void kill_now() { child_.kill_now(); }

 private:
  Answer answer();

  Child child_;
};

// Runs the child verb of argv[2] when argv[1] is --child; else answers -1.
int child_main(int argc, char** argv);

// The verbs' bodies; their arguments begin behind the verb.
int shell_main(const std::vector<std::string>& arguments);
int reader_main(const std::vector<std::string>& arguments);
int writer_main(const std::vector<std::string>& arguments);

}  // namespace litefs::test
