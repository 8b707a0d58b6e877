// litefs-vfs-bench: SQLite by the VFS "litefs", with the node in the same process, against SQLite's own "unix" on the
// same file system. JSON lines on stdout, a table on stderr; see usage(). Needs neither root nor FUSE.
//
// Slices of the two alternate, and begin with the other one in each round, so that what the machine does meanwhile hits
// both alike. With a replica, this process keeps to the first CPU and the replica's to the last. "burst" is what the
// writer sees in a slice, after which the replica catches up unmeasured; for "sustained" the time until the replica has
// the slice's last transaction counts, too.
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <unistd.h>

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
constexpr unsigned kSecondsMax = 1200;

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
  std::string only;  // empty: all
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

class VfsRun {
 public:
  VfsRun(const Options& options, const std::string& directory, bool with_replica)
      : options_(options), directory_(directory), node_(open_node(directory + "/primary", "")) {
    std::filesystem::create_directories(directory + "/native");
    node_.register_vfs();
    if (!with_replica) return;
    test::SpawnOptions spawn;
    spawn.argv = {"/proc/self/exe", "replica", directory + "/replica", node_.address()};
    replica_ = test::Process::spawn(spawn);
    if (replica_->read_line(kSettle) != "ready") throw std::runtime_error("the replica does not start");
  }

  void run(const VfsBench& bench) {
    const std::string name = bench.name;
    Target native(bench, "file:" + directory_ + "/native/" + name), ours(bench, "file:" + name + "?vfs=litefs");
    measure(bench, native, ours, replica_ ? "burst" : "alone");
    if (replica_ && bench.work == Work::kWrite) measure(bench, native, ours, "sustained");
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
    char summary[160];
    std::snprintf(summary, sizeof summary, "%-24s %-10s native %9s/s  vfs %9s/s  paired ratio %.2f (%.2f to %.2f)",
                  bench.name, how.c_str(), short_number(median(rates[0])).c_str(),
                  short_number(median(rates[1])).c_str(), median(paired), percentile(paired, 0), percentile(paired, 1));
    Record(bench.name)
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
    const litefs_position position = node_.position(name);
    std::ostringstream line;
    line << name << " " << position.epoch << " " << position.txid << " " << position.checksum;
    replica_->write_line(line.str());
    if (replica_->read_line(kSettle) != "there") throw std::runtime_error("the replica does not catch up");
  }

  const Options& options_;
  std::string directory_;
  OpenNode node_;
  std::unique_ptr<test::Process> replica_;
};

int run_replica(const std::string& data, const std::string& primary) {
  keep_to_cpu(sysconf(_SC_NPROCESSORS_ONLN) - 1);
  OpenNode node = open_node(data, primary);
  std::cout << "ready" << std::endl;
  std::string name;
  litefs_position position;
  while (std::cin >> name >> position.epoch >> position.txid >> position.checksum) {
    std::cout << (node.wait(name, position, kSettle) ? "there" : "late") << std::endl;
  }
  return 0;
}

void usage() {
  std::cerr << "usage: litefs-vfs-bench [--only NAME] [--replica no|yes|both] [--rounds N] [--slice-ms N] "
               "[--directory DIR]\nnames:";
  for (const VfsBench& bench : kBenches) std::cerr << " " << bench.name;
  std::cerr << "\n";
}

Options parse(const std::vector<std::string>& words) {
  Options options;
  for (size_t i = 0; i < words.size(); i += 2) {
    if (i + 1 == words.size()) throw std::invalid_argument(words[i] + " is unknown or needs a value");
    const std::string& value = words[i + 1];
    if (words[i] == "--only")
      options.only = value;
    else if (words[i] == "--replica")
      options.replica = value;
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

void run_all(const Options& options, bool with_replica) {
  ScratchDirectory directory(options.directory);
  VfsRun run(options, directory.path(), with_replica);
  for (const VfsBench& bench : kBenches) {
    if (options.only.empty() || options.only == bench.name) run.run(bench);
  }
}

}  // namespace
}  // namespace litefs::bench

int main(int argc, char** argv) {
  using namespace litefs::bench;
  const std::vector<std::string> words(argv + 1, argv + argc);
  signal(SIGPIPE, SIG_IGN);
  alarm(kSecondsMax);
  try {
    if (words.size() == 3 && words[0] == "replica") return run_replica(words[1], words[2]);
    const Options options = parse(words);
    if (options.replica != "yes") run_all(options, false);
    if (options.replica != "no") {
      keep_to_cpu(0);
      run_all(options, true);
    }
    return 0;
  } catch (const std::invalid_argument& error) {
    std::cerr << "litefs-vfs-bench: " << error.what() << "\n";
    usage();
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "litefs-vfs-bench: " << error.what() << std::endl;
    return 1;
  }
}
