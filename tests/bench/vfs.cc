// litefs-vfs-bench: SQLite by the VFS "litefs", in the process that runs the node and in a second one beside it,
// against SQLite's own "unix" on the same file system. JSON lines on stdout, a table on stderr; see usage(). Needs
// neither root nor FUSE.
//
// Slices of the two alternate, and begin with the other one in each round, so that what the machine does meanwhile hits
// both alike. "burst" is what the writer sees in a slice, after which the replica catches up unmeasured; for
// "sustained" the time until the replica has the slice's last transaction counts, too.
//
// "node": the process that is measured runs the node. "second": an idle child of it does, and it is a guest. Each of
// these with a replica and without is measured in a process of its own.
//
// CPUs: the node's threads are a part of the cost, in whichever process they are. Alone nobody is kept anywhere, so
// that they run where the scheduler puts them: on two CPUs beside the writer, whose slices then show what it waits for;
// under `taskset -c 0` they show the whole work. With a replica, the measured process keeps to the first CPU, and so
// does the child that runs its node, as they are one machine; the replica, another machine, keeps to the last.
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <iostream>
#include <random>
#include <sstream>

#include "bench/report.h"
#include "litefs/litefs.hpp"
#include "system/process.h"
#include "system/sql.h"

namespace litefs::bench {
namespace {

using test::Sql;
using test::Statement;

constexpr int kRows = 20000;
constexpr test::Millis kSettle{60000};
constexpr std::chrono::seconds kRunMax{1200};

enum class Work { kRead, kScan, kWrite };

struct VfsBench {
  const char* name;
  const char* journal_mode;
  const char* synchronous;
  Work work;
  int rows;  // of a transaction, or reads of an operation
};

constexpr VfsBench kBenches[] = {
    {"vfs_point_read", "WAL", "NORMAL", Work::kRead, 1},
    {"vfs_point_read_delete", "DELETE", "FULL", Work::kRead, 1},
    {"vfs_scan", "WAL", "NORMAL", Work::kScan, 1},
    {"vfs_one_row_normal", "WAL", "NORMAL", Work::kWrite, 1},
    {"vfs_one_row_full", "WAL", "FULL", Work::kWrite, 1},
    {"vfs_one_row_delete_full", "DELETE", "FULL", Work::kWrite, 1},
    {"vfs_update_200", "WAL", "NORMAL", Work::kWrite, 200},
};

struct Options {
  bool help = false;
  std::string only;  // empty: all
  std::string process = "both";
  std::string replica = "both";
  std::string directory;
  int rounds = 9;
  int slice_ms = 300;
};

void keep_to_cpu(long cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) throw std::runtime_error("cannot keep to one CPU");
}

OpenNode open_node(const std::string& data, const std::string& primary) {
  const std::string url = "http://" + primary;
  litefs_options options = LITEFS_OPTIONS_INIT;
  options.data_dir = data.c_str();
  options.listen = "127.0.0.1:0";
  options.candidate = primary.empty();
  if (!primary.empty()) options.primary_url = url.c_str();
  return OpenNode(options);
}

class ScratchDirectory {
 public:
  explicit ScratchDirectory(const std::string& parent)
      : path_((parent.empty() ? std::filesystem::temp_directory_path().string() : parent) +
              "/litefs-vfs-bench-XXXXXX") {
    if (!mkdtemp(path_.data())) throw std::runtime_error("cannot make " + path_);
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// One connection, and what a slice does with it.
class Target {
 public:
  Target(const VfsBench& bench, const std::string& uri)
      : bench_(bench), db_(uri, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI) {
    db_.exec(std::string("PRAGMA journal_mode=") + bench.journal_mode + "; PRAGMA synchronous=" + bench.synchronous +
             "; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    db_.exec("WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < " + std::to_string(kRows) +
             ") INSERT INTO t(v) SELECT randomblob(100) FROM c");
    // A WAL of its full size, begun anew: syncing one that still grows costs the file system's journal a commit, too.
    db_.exec("UPDATE t SET v = randomblob(100); PRAGMA wal_checkpoint");
    const char* text = bench.work == Work::kScan   ? "SELECT sum(length(v)) FROM t"
                       : bench.work == Work::kRead ? "SELECT v FROM t WHERE id = ?1"
                                                   : "UPDATE t SET v = randomblob(100) WHERE id = ?1";
    statement_ = std::make_unique<Statement>(db_, text);
  }

  // Operations in a time; `end` is waited for within the time that counts.
  double rate(int milliseconds, const std::function<void()>& end) {
    const int64_t start = now_ns(), until = start + milliseconds * int64_t{1'000'000};
    double operations = 0;
    do {
      operate();
      ++operations;
    } while (now_ns() < until);
    end();
    return operations / (static_cast<double>(now_ns() - start) / 1e9);
  }

 private:
  void operate() {
    if (bench_.rows > 1) db_.exec("BEGIN");
    for (int i = 0; i < bench_.rows; ++i) {
      if (bench_.work != Work::kScan) statement_->bind(1, static_cast<int64_t>(1 + random_() % kRows));
      while (statement_->step()) {
      }
      statement_->reset();
    }
    if (bench_.rows > 1) db_.exec("COMMIT");
  }

  const VfsBench& bench_;
  Sql db_;
  std::unique_ptr<Statement> statement_;
  std::mt19937_64 random_{1};
};

// A child with a node: this program in another role (run_child). It is made before this process uses SQLite or litefs,
// as a fork comes before its exec.
class ChildNode {
 public:
  explicit ChildNode(const std::string& role) : role_(role) {
    test::SpawnOptions spawn;
    spawn.argv = {"/proc/self/exe", role};
    process_ = test::Process::spawn(spawn);
  }
  // Answers the node's address. `primary`: of a replica.
  std::string open(const std::string& data, const std::string& primary) {
    process_->write_line(data);
    process_->write_line(primary);
    const std::string address = process_->read_line(kSettle).value_or("");
    if (address.empty()) throw std::runtime_error("the " + role_ + " does not start");
    return address;
  }
  void check_running() {
    if (!process_->running()) throw std::runtime_error("the " + role_ + " has ended");
  }
  bool wait(const std::string& name, const litefs_position& position) {
    std::ostringstream line;
    line << name << " " << position.epoch << " " << position.txid << " " << position.checksum;
    process_->write_line(line.str());
    return process_->read_line(kSettle) == "there";
  }

 private:
  const std::string role_;
  std::unique_ptr<test::Process> process_;
};

class VfsRun {
 public:
  VfsRun(const Options& options, const std::string& directory) : options_(options), directory_(directory) {
    const bool with_replica = options.replica == "yes";
    if (with_replica) keep_to_cpu(0);
    if (options.process == "second") host_ = std::make_unique<ChildNode>("host");
    if (with_replica) replica_ = std::make_unique<ChildNode>("replica");
    std::filesystem::create_directories(directory + "/native");
    const std::string data = directory + "/primary";
    const std::string address = host_ ? host_->open(data, "") : "";
    node_ = std::make_unique<OpenNode>(open_node(data, ""));
    if (host_ && node_->address() != address) throw std::runtime_error("this process is not the host's guest");
    node_->register_vfs();
    if (replica_) replica_->open(directory + "/replica", node_->address());
  }

  void run(const VfsBench& bench) {
    const std::string name = bench.name;
    Target native(bench, "file:" + directory_ + "/native/" + name), ours(bench, "file:" + name + "?vfs=litefs");
    measure(bench, native, ours, replica_ ? "burst" : "alone");
    if (replica_ && bench.work == Work::kWrite) measure(bench, native, ours, "sustained");
    // This process would run the node on, and have measured that.
    if (host_) host_->check_running();
  }

 private:
  void measure(const VfsBench& bench, Target& native, Target& ours, const std::string& how) {
    const auto nothing = [] {};
    const auto caught_up = [&] { catch_up(bench.name); };
    std::vector<double> rates[2], paired;
    for (int round = -1; round < options_.rounds; ++round) {
      double rate[2] = {};
      for (int i = 0; i < 2; ++i) {
        const int which = (i + round + 1) % 2;
        rate[which] = (which ? ours : native)
                          .rate(options_.slice_ms, which && how == "sustained" ? std::function(caught_up) : nothing);
        // A replica that still applies would take time from the next slice.
        if (which) catch_up(bench.name);
      }
      if (round < 0) continue;  // warms caches
      for (int which : {0, 1}) rates[which].push_back(rate[which]);
      paired.push_back(rate[1] / rate[0]);
    }
    const char* process = host_ ? "second" : "node";
    char summary[160];
    std::snprintf(summary, sizeof summary, "%-24s %-7s %-10s native %9s/s  vfs %9s/s  paired ratio %.2f (%.2f to %.2f)",
                  bench.name, process, how.c_str(), short_number(median(rates[0])).c_str(),
                  short_number(median(rates[1])).c_str(), median(paired), percentile(paired, 0), percentile(paired, 1));
    Record(bench.name)
        .text("process", process)
        .text("how", how)
        .text("unit", "1/s")
        .number("native", median(rates[0]))
        .number("vfs", median(rates[1]))
        .number("ratio", median(rates[1]) / median(rates[0]))
        .number("ratio_paired", median(paired))
        .numbers("native_rounds", rates[0])
        .numbers("vfs_rounds", rates[1])
        .print(summary);
  }

  void catch_up(const std::string& name) {
    if (!replica_) return;
    if (!replica_->wait(name, node_->position(name))) throw std::runtime_error("the replica does not catch up");
  }

  const Options& options_;
  std::string directory_;
  std::unique_ptr<ChildNode> host_;  // null: this process is it. Ends after the guest
  std::unique_ptr<ChildNode> replica_;
  std::unique_ptr<OpenNode> node_;
};

// Told where to open a node, answers its address; then each position that is to be waited for, until the input ends.
int run_child(const std::string& role) {
  if (role == "replica") keep_to_cpu(sysconf(_SC_NPROCESSORS_ONLN) - 1);
  std::string data, primary;
  std::getline(std::cin, data);
  std::getline(std::cin, primary);
  OpenNode node = open_node(data, primary);
  std::cout << node.address() << std::endl;
  std::string name;
  litefs_position position;
  while (std::cin >> name >> position.epoch >> position.txid >> position.checksum) {
    std::cout << (node.wait(name, position, kSettle) ? "there" : "late") << std::endl;
  }
  return 0;
}

void usage(std::ostream& out) {
  out << "usage: litefs-vfs-bench [--only NAME] [--process node|second|both] [--replica no|yes|both] [--rounds N]\n"
         "                        [--slice-ms N] [--directory DIR] [--help]\n"
         "--process: whether the process that is measured runs the node, or uses the data directory beside it\n"
         "--replica: without one, and with one on this machine\n"
         "Both are \"both\". Each figure is a median of N rounds ("
      << Options().rounds << ") of slices of N ms (" << Options().slice_ms << ") of either VFS.\nnames:";
  for (const VfsBench& bench : kBenches) out << " " << bench.name;
  out << "\n";
}

std::string one_of(const std::string& word, const std::string& value, const std::vector<std::string>& all) {
  if (std::find(all.begin(), all.end(), value) != all.end()) return value;
  throw std::invalid_argument(word + " cannot be " + value);
}

Options parse(const std::vector<std::string>& words) {
  std::vector<std::string> names;
  for (const VfsBench& bench : kBenches) names.push_back(bench.name);
  Options options;
  for (size_t i = 0; i < words.size(); i += 2) {
    if (words[i] == "--help") {
      options.help = true;
      return options;
    }
    if (i + 1 == words.size()) throw std::invalid_argument(words[i] + " is unknown or needs a value");
    const std::string& value = words[i + 1];
    if (words[i] == "--only")
      options.only = one_of(words[i], value, names);
    else if (words[i] == "--process")
      options.process = one_of(words[i], value, {"node", "second", "both"});
    else if (words[i] == "--replica")
      options.replica = one_of(words[i], value, {"no", "yes", "both"});
    else if (words[i] == "--rounds")
      options.rounds = std::stoi(value);
    else if (words[i] == "--slice-ms")
      options.slice_ms = std::stoi(value);
    else if (words[i] == "--directory")
      options.directory = value;
    else
      throw std::invalid_argument(words[i] + " is unknown");
  }
  return options;
}

void run_benches(const Options& options) {
  ScratchDirectory directory(options.directory);
  VfsRun run(options, directory.path());
  for (const VfsBench& bench : kBenches) {
    if (options.only.empty() || options.only == bench.name) run.run(bench);
  }
}

// In a process of its own.
void run_apart(const std::vector<std::string>& words, const std::string& process, const std::string& replica) {
  test::SpawnOptions spawn;
  spawn.argv = {"/proc/self/exe"};
  spawn.argv.insert(spawn.argv.end(), words.begin(), words.end());
  spawn.argv.insert(spawn.argv.end(), {"--process", process, "--replica", replica});
  alarm(static_cast<unsigned>(kRunMax.count()));  // each of them has this time
  auto child = test::Process::spawn(spawn);
  while (std::optional<std::string> line = child->read_line(kRunMax)) std::cout << *line << std::endl;
  const test::ExitStatus status = child->join(kSettle);
  if (!status.ok()) throw std::runtime_error("a measuring process ended with " + status.text());
}

void run_all(const std::vector<std::string>& words) {
  const Options options = parse(words);
  if (options.help) return usage(std::cout);
  if (options.process != "both" && options.replica != "both") return run_benches(options);
  for (const char* replica : {"no", "yes"}) {
    for (const char* process : {"node", "second"}) {
      const bool wanted = (options.process == "both" || options.process == process) &&
                          (options.replica == "both" || options.replica == replica);
      if (wanted) run_apart(words, process, replica);
    }
  }
}

}  // namespace
}  // namespace litefs::bench

int main(int argc, char** argv) {
  using namespace litefs::bench;
  const std::vector<std::string> words(argv + 1, argv + argc);
  signal(SIGPIPE, SIG_IGN);
  alarm(static_cast<unsigned>(kRunMax.count()));
  try {
    if (words.size() == 1 && (words[0] == "host" || words[0] == "replica")) return run_child(words[0]);
    run_all(words);
    return 0;
  } catch (const std::invalid_argument& error) {
    std::cerr << "litefs-vfs-bench: " << error.what() << "\n";
    usage(std::cerr);
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "litefs-vfs-bench: " << error.what() << std::endl;
    return 1;
  }
}
