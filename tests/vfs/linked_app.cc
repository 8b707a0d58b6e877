// An application with a node of its own: it opens one by a configuration file, and its databases by the VFS, which is
// the default here. For a test it does what it is told by lines of its standard input, and answers each by "row …"
// lines, then "ok" or "error CODE MESSAGE":
//
//   sql CONNECTION DB SCRIPT   runs SQL on a connection, which its first use opens
//   close CONNECTION
//   start init DB PAGE_SIZE MODE
//   start write DB WRITER SEED SECONDS PROFILE COMMITTED
//   start read DB SEED SECONDS
//   start visit DB SEED SECONDS
//                              begins this part of the workload (system/workload.h) in a thread of its own
//   join                       waits for all threads
//   end                        tells them to end, and waits
//   position DB                "EPOCH TXID CHECKSUM"
//   wait DB EPOCH TXID CHECKSUM MS
//   rows DB FILE, pages DB FILE
//                              writes the database's content, for comparing
//   log                        what SQLite has logged since this was asked last
//   fork CONNECTION            what a forked process gets for using that connection, opening one, and using the node
//   leave-child                forks a process that lives on by itself, up to a minute: "PID"
//   end-child                  forks a process that only calls exit()
//   child-node CONFIG CONNECTION SQL
//                              forks a process that closes the connection, opens a node of its own and runs SQL there
//                              on "db": what registering the VFS answers with the connection open and closed, rows, the
//                              TXID
//   role                       "ROLE PRIMARY"
//
// It ends at the end of its input: with 0 where the node could be closed, and no snapshot was wrong.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <thread>
#include <vector>

#include "litefs/litefs.hpp"
#include "system/content.h"
#include "system/workload.h"

namespace litefs::test {
namespace {

std::mutex log_mutex;
std::vector<std::string> log_lines;

void on_sqlite_log(void*, int code, const char* text) {
  std::lock_guard lock(log_mutex);
  log_lines.push_back(std::to_string(code) + " " + one_line(text));
}

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

class LinkedApp {
 public:
  explicit LinkedApp(OpenNode& node) : node_(node) {}

  void answer(const std::string& line) {
    try {
      run(line);
      std::cout << "ok" << std::endl;
    } catch (const SqlError& error) {
      std::cout << "error " << error.code() << " " << one_line(error.what()) << std::endl;
    } catch (const NodeError& error) {
      std::cout << "error " << error.result() << " " << one_line(error.what()) << std::endl;
    } catch (const std::exception& error) {
      std::cout << "error -1 " << one_line(error.what()) << std::endl;
    }
  }

  void join() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    std::lock_guard lock(mutex_);
    for (const std::string& report : reports_) std::cout << "row " << report << "\n";
    reports_.clear();
    if (!failures_.empty()) throw std::runtime_error(failures_);
  }

 private:
  void run(const std::string& line) {
    const std::vector<std::string> words = words_of(line);
    const std::string verb = words.at(0);
    if (verb == "sql") return sql(words, line);
    if (verb == "close") return static_cast<void>(connections_.erase(words.at(1)));
    if (verb == "start") return start(words);
    if (verb == "join") return join();
    if (verb == "end") {
      stop_workloads();
      join();
      return resume_workloads();
    }
    if (verb == "position") {
      const litefs_position position = node_.position(words.at(1));
      std::cout << "row " << position.epoch << " " << position.txid << " " << position.checksum << "\n";
    } else if (verb == "wait") {
      const litefs_position position{std::stoull(words.at(2)), std::stoull(words.at(3)), std::stoull(words.at(4))};
      if (!node_.wait(words.at(1), position, std::chrono::milliseconds(std::stoi(words.at(5))))) {
        throw NodeError(LITEFS_TIMED_OUT, litefs_message(node_.handle()));
      }
    } else if (verb == "rows") {
      dump_rows(words.at(1), words.at(2));
    } else if (verb == "pages") {
      dump_pages(words.at(1), words.at(2));
    } else if (verb == "log") {
      std::lock_guard lock(log_mutex);
      for (const std::string& text : log_lines) std::cout << "row " << text << "\n";
      log_lines.clear();
    } else if (verb == "fork") {
      use_after_fork(words.at(1));
    } else if (verb == "leave-child") {
      leave_child();
    } else if (verb == "end-child") {
      end_child();
    } else if (verb == "child-node") {
      use_node_of_child(words);
    } else if (verb == "role") {
      std::cout << "row " << node_.role() << " " << node_.primary() << "\n";
    } else {
      throw std::runtime_error("no such command: " + verb);
    }
  }

  void sql(const std::vector<std::string>& words, const std::string& line) {
    std::unique_ptr<Sql>& connection = connections_[words.at(1)];
    if (!connection) {
      try {
        connection = std::make_unique<Sql>(words.at(2), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI);
      } catch (...) {
        connections_.erase(words.at(1));
        throw;
      }
    }
    const size_t script = line.find(words.at(2)) + words.at(2).size();
    run_script(*connection, line.substr(script), std::cout);
  }

  void start(const std::vector<std::string>& words) {
    threads_.emplace_back([this, words] {
      std::string report, failure;
      try {
        report = work(words);
      } catch (const std::exception& error) {
        failure = words.at(1) + ": " + error.what() + "; ";
      }
      std::lock_guard lock(mutex_);
      if (failure.empty()) reports_.push_back(report);
      failures_ += failure;
    });
  }

  static std::string work(const std::vector<std::string>& words) {
    const std::string& verb = words.at(1);
    if (verb == "init") {
      create_workload(words.at(2), std::stoi(words.at(3)), words.at(4));
      return verb;
    }
    if (verb == "write") {
      WriterOptions options;
      options.writer = std::stoll(words.at(3));
      options.seed = std::stoull(words.at(4));
      options.seconds = std::stod(words.at(5));
      options.profile = words.at(6);
      options.committed_path = words.at(7);
      return "write " + std::to_string(write_workload(words.at(2), options).transactions);
    }
    ReaderOptions options;
    options.seed = std::stoull(words.at(3));
    options.seconds = std::stod(words.at(4));
    options.visits = verb == "visit";
    return verb + " " + std::to_string(read_workload(words.at(2), options).snapshots);
  }

  void use_after_fork(const std::string& connection) {
    std::cout.flush();
    const pid_t child = fork();
    if (child == 0) {
      alarm(10);
      sqlite3* db = connections_.at(connection)->handle();
      const int used = sqlite3_exec(db, "INSERT INTO t(v) VALUES('forked')", nullptr, nullptr, nullptr);
      const int read = sqlite3_exec(db, "SELECT * FROM t", nullptr, nullptr, nullptr);
      sqlite3* another = nullptr;
      const int opened = sqlite3_open("db", &another);
      int role;
      const int asked = litefs_role(node_.handle(), &role);
      std::cout << "row " << (used & 0xff) << " " << (read & 0xff) << " " << opened << " " << asked << std::endl;
      // As a forked process that cleans up.
      sqlite3_close(another);
      sqlite3_close(db);
      _exit(0);
    }
    join_child(child);
  }

  static void leave_child() {
    std::cout.flush();
    int told[2];
    if (pipe(told) != 0) throw std::runtime_error("no pipe");
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      close(STDIN_FILENO);
      close(STDOUT_FILENO);
      close(told[0]);
      if (write(told[1], "x", 1) != 1) _exit(1);
      for (;;) pause();
    }
    close(told[1]);
    char byte;
    const bool runs = read(told[0], &byte, 1) == 1;
    close(told[0]);
    if (!runs) throw std::runtime_error("the child does not run");
    std::cout << "row " << child << "\n";
  }

  void use_node_of_child(const std::vector<std::string>& words) {
    std::string script;
    for (size_t i = 3; i < words.size(); ++i) script += words[i] + " ";
    std::cout.flush();
    const pid_t child = fork();
    if (child == 0) {
      alarm(30);
      try {
        run_node_of_child(words, script);
        std::cout.flush();
        // With all that exit() frees.
        exit(0);
      } catch (const std::exception& error) {
        std::cerr << "in the child: " << error.what() << std::endl;
        _exit(1);
      }
    }
    join_child(child);
  }

  static void end_child() {
    std::cout.flush();
    const pid_t child = fork();
    if (child == 0) {
      alarm(10);
      exit(0);
    }
    join_child(child);
  }

  static void join_child(pid_t child) {
    int status = -1;
    waitpid(child, &status, 0);
    if (status != 0) throw std::runtime_error("the forked process ended with " + std::to_string(status));
  }

  void run_node_of_child(const std::vector<std::string>& words, const std::string& script) {
    litefs_options options = LITEFS_OPTIONS_INIT;
    options.config_path = words.at(1).c_str();
    // Freed by exit().
    static std::unique_ptr<OpenNode> node;
    node = std::make_unique<OpenNode>(options);
    const int had_open = sqlite3_litefs_register(node->handle(), 1);
    sqlite3_close(connections_.at(words.at(2))->handle());
    static_cast<void>(connections_.at(words.at(2)).release());
    connections_.erase(words.at(2));
    std::cout << "row " << had_open << " " << sqlite3_litefs_register(node->handle(), 1) << "\n";
    Sql db("db", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI);
    run_script(db, script, std::cout);
    std::cout << "row " << node->position("db").txid << "\n";
  }

  OpenNode& node_;
  std::map<std::string, std::unique_ptr<Sql>> connections_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::vector<std::string> reports_;
  std::string failures_;
};

int run(const char* config) {
  sqlite3_config(SQLITE_CONFIG_LOG, on_sqlite_log, nullptr);
  litefs_options options = LITEFS_OPTIONS_INIT;
  options.config_path = config;
  options.log = [](void*, int level, const char* line) {
    static const char* const kNames[] = {"", "DEBUG", "INFO", "WARN", "ERROR"};
    std::cerr << std::string(kNames[level]) + " " + line + "\n";
  };
  OpenNode node(options);
  node.register_vfs(true);
  std::cout << "up " << node.address() << std::endl;
  bool failed = false;
  {
    LinkedApp app(node);
    for (std::string line; std::getline(std::cin, line);) app.answer(line);
    try {
      stop_workloads();
      app.join();
    } catch (const std::exception& error) {
      std::cerr << error.what() << "\n";
      failed = true;
    }
  }
  node.close();
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace litefs::test

namespace {
const pid_t kFirstProcess = getpid();
}  // namespace

// Asked by the leak sanitizer at the end of a process. A forked one has none of the threads whose stacks lead to what
// the parent has allocated.
extern "C" int __lsan_is_turned_off();
extern "C" int __lsan_is_turned_off() { return getpid() != kFirstProcess; }

int main(int argc, char** argv) {
  const char* seconds = getenv("LITEFS_APP_SECONDS_MAX");
  alarm(seconds ? static_cast<unsigned>(atoi(seconds)) : 120);
  if (argc != 2) return 2;
  try {
    return litefs::test::run(argv[1]);
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << std::endl;
    return 3;
  }
}
