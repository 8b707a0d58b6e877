// Slices of a few hundred milliseconds, one target after another, many rounds: what the machine
// does meanwhile hits all targets alike, and each figure is a ratio to native SQLite in the same
// run.
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <map>
#include <stdexcept>

#include "bench/bench.h"
#include "system/janitor.h"

namespace litefs::bench {

namespace {

constexpr test::Millis kSettle{60000};

struct LocalBench {
  const char* name;
  const char* worker;    // its kind
  const char* database;  // small, big, small_delete or big_delete
  int processes;
  // SQLite asks for the database file's size in each read transaction while its WAL holds no frame;
  // on a mount each such question after a passed-through read is a request (the kernel takes the
  // access time to be stale).
  bool empty_wal;
};

constexpr LocalBench kBenches[] = {
    {"point_read", "point_read", "small", 1, false},
    {"point_read_empty_wal", "point_read", "small", 1, true},
    {"one_row_normal", "one_row_normal", "small", 1, false},
    {"one_row_full", "one_row_full", "small", 1, false},
    {"insert_row", "insert_row", "small", 1, false},
    {"rows_1000", "rows_1000", "small", 1, false},
    {"update_200", "update_200", "big", 1, false},
    {"writers_4", "one_row_normal", "small", 4, false},
    {"mix_90_10", "mix_90_10", "small", 1, false},
    // In a rollback mode there is no WAL to hold frames.
    {"point_read_delete", "point_read", "small_delete", 1, true},
    {"one_row_delete_full", "one_row_full", "small_delete", 1, true},
    {"update_200_delete", "update_200_full", "big_delete", 1, true},
};

struct Target {
  std::string name;
  std::string directory;
};

// The bare pass-through: its process and its directories.
class Passthrough {
 public:
  Passthrough(const std::string& program, const std::string& directory) {
    for (const char* name : {"/backing", "/mount"}) std::filesystem::create_directories(directory + name);
    test::SpawnOptions options;
    options.argv = {program, directory + "/backing", directory + "/mount"};
    process_ = test::Process::spawn(options);
    std::optional<std::string> line = process_->read_line(test::Millis(10000));
    if (!line || *line != "ready") throw std::runtime_error("the pass-through does not start");
  }
  ~Passthrough() {
    process_->signal(SIGTERM);
    process_->wait(test::Millis(5000));
  }

 private:
  std::unique_ptr<test::Process> process_;
};

class LocalRun {
 public:
  LocalRun(const Options& options, bool with_replica)
      : options_(options), with_replica_(with_replica), cluster_(options.cluster(with_replica ? 2 : 1)) {
    targets_.push_back({"native", cluster_.scratch("native")});
    std::filesystem::create_directories(targets_[0].directory);
    if (!options.passthrough.empty()) {
      std::string directory = cluster_.directory() + "/passthrough";
      passthrough_ = std::make_unique<Passthrough>(options.passthrough, directory);
      targets_.push_back({"passthrough", directory + "/mount"});
    }
    if (!options.litefs.empty()) {
      cluster_.start_primary();
      if (with_replica) cluster_.start_replica(1);
      targets_.push_back({"mount", cluster_.node(0).mount()});
    }
  }

  void run(const LocalBench& bench) {
    build(bench.database);
    // Opened now, so that the mount passes the files of a database in WAL through.
    std::vector<std::vector<Worker>> workers;
    std::vector<Worker> idle;  // each has committed something, so that the WAL is there and holds frames
    for (const Target& target : targets_) {
      if (!bench.empty_wal) {
        idle.emplace_back("update", target.directory + "/" + bench.database);
        idle.back().command("update 1 0");
        idle.back().times_answer();
      }
      workers.emplace_back();
      for (int i = 0; i < bench.processes; i++) {
        workers.back().emplace_back(bench.worker, target.directory + "/" + bench.database);
      }
    }
    std::map<std::string, std::vector<double>> rates;
    for (int round = -1; round < options_.rounds; round++) {
      // Each round begins with another target, so that none always follows the same.
      for (size_t i = 0; i < targets_.size(); i++) {
        size_t t = (i + static_cast<size_t>(round + 1)) % targets_.size();
        double rate = slice(workers[t]);
        settle();
        // The first round warms caches.
        if (round >= 0) rates[targets_[t].name].push_back(rate);
      }
    }
    report(bench.name, rates);
  }

  // The disk's own noise, by the same rounds.
  void run_fsync() {
    Worker worker("fsync", targets_[0].directory + "/disk");
    std::vector<double> rates;
    for (int round = 0; round < options_.rounds; round++) {
      worker.command("run " + std::to_string(options_.slice_ms));
      rates.push_back(worker.slice_answer().rate());
    }
    Record("fsync")
        .number("replica", with_replica_)
        .text("target", "native")
        .text("unit", "1/s")
        .number("median", median(rates))
        .number("min", percentile(rates, 0))
        .number("max", percentile(rates, 1))
        .numbers("rounds", rates)
        .print("fsync                native       " + short_number(median(rates)) + "/s, from " +
               short_number(percentile(rates, 0)) + " to " + short_number(percentile(rates, 1)));
  }

 private:
  void build(const std::string& database) {
    for (const Target& target : targets_) {
      std::string path = target.directory + "/" + database;
      if (!built_[path]) {
        run_builder("build_" + database, path, options_.big_bytes());
        built_[path] = true;
      }
    }
    settle();
  }

  // A replica that still applies would take CPU from the next target's slice.
  void settle() {
    if (with_replica_) cluster_.wait_for_equal(kSettle);
  }

  double slice(std::vector<Worker>& workers) {
    for (Worker& worker : workers) worker.command("run " + std::to_string(options_.slice_ms));
    double rate = 0;
    for (Worker& worker : workers) rate += worker.slice_answer().rate();
    return rate;
  }

  void report(const std::string& name, const std::map<std::string, std::vector<double>>& rates) {
    const std::vector<double>& native = rates.at("native");
    for (const Target& target : targets_) {
      const std::vector<double>& own = rates.at(target.name);
      std::vector<double> paired;
      for (size_t i = 0; i < own.size(); i++) paired.push_back(own[i] / native[i]);
      double ratio = median(own) / median(native);
      char summary[160];
      snprintf(summary, sizeof summary, "%-20s %-12s %10s/s  ratio %.2f  (paired %.2f, %.2f to %.2f)%s", name.c_str(),
               target.name.c_str(), short_number(median(own)).c_str(), ratio, median(paired), percentile(paired, 0),
               percentile(paired, 1), with_replica_ ? "  with a replica" : "");
      Record(name)
          .number("replica", with_replica_)
          .text("target", target.name)
          .text("unit", "1/s")
          .number("median", median(own))
          .number("ratio", ratio)
          .number("ratio_paired", median(paired))
          .numbers("rounds", own)
          .print(summary);
    }
  }

  Options options_;
  bool with_replica_;
  test::Cluster cluster_;
  std::unique_ptr<Passthrough> passthrough_;
  std::vector<Target> targets_;
  std::map<std::string, bool> built_;  // by path
};

}  // namespace

std::vector<std::string> local_names() {
  std::vector<std::string> names = {"fsync"};
  for (const LocalBench& bench : kBenches) names.push_back(bench.name);
  return names;
}

void run_local(const Options& options, bool with_replica) {
  LocalRun run(options, with_replica);
  if (options.wants("fsync")) run.run_fsync();
  for (const LocalBench& bench : kBenches) {
    if (options.wants(bench.name)) run.run(bench);
  }
}

}  // namespace litefs::bench
