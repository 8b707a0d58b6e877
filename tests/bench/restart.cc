// What a node needs: time to come back, memory, CPU at rest.
#include <signal.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/proc.h"

namespace litefs::bench {

namespace {

constexpr test::Millis kConvergence{120000};
constexpr int64_t kTransactionsBeforeKill = 500;

std::string megabytes(double bytes) { return short_number(bytes / 1e6) + " MB"; }

// Kills a node under which a writer had just been killed, so that the WAL holds what no checkpoint
// has moved and nobody holds the files; measures from exec to the first successful read.
void restart(const Options& options, const std::string& name, int64_t bytes, bool with_replica) {
  test::Cluster cluster(options.cluster(with_replica ? 2 : 1));
  cluster.start_primary();
  if (with_replica) cluster.start_replica(1);
  std::string path = cluster.node(0).path("big");
  run_builder("build_big", path, bytes);
  if (with_replica) cluster.wait_for_equal(kConvergence);
  std::vector<double> times;
  int tries = options.quick ? 3 : 9;
  for (int i = 0; i < tries; i++) {
    {
      Worker writer("update", path);
      writer.command("update " + std::to_string(kTransactionsBeforeKill) + " 0");
      writer.times_answer();
      writer.process().signal(SIGKILL);
      writer.process().join(test::Millis(10000));
    }
    cluster.kill9(0);
    int64_t start = now_ns();
    cluster.launch(0);
    Worker reader("first_read", path);
    times.push_back(static_cast<double>(reader.times_answer().at(0) - start));
    reader.process().join(test::Millis(10000));
    cluster.wait_until_up(0, test::Millis(10000));
    if (with_replica) cluster.wait_for_equal(kConvergence);
  }
  Record(name)
      .text("unit", "ns")
      .number("replica", with_replica)
      .number("database_bytes", static_cast<double>(bytes))
      .number("median", median(times))
      .number("max", percentile(times, 1))
      .numbers("tries", times)
      .print(name + "       median " + short_number(median(times) / 1e6) + " ms, at most " +
             short_number(percentile(times, 1) / 1e6) + " ms" + (with_replica ? "  with a replica" : ""));
}

// After a load, with an application that has the database open and does nothing.
void rest(const Options& options, bool with_replica) {
  test::Cluster cluster(options.cluster(with_replica ? 2 : 1));
  cluster.start_primary();
  if (with_replica) cluster.start_replica(1);
  std::string path = cluster.node(0).path("big");
  run_builder("build_big", path, options.big_bytes());
  if (with_replica) cluster.wait_for_equal(kConvergence);
  Worker writer("update_200", path);
  writer.command("run " + std::to_string(options.quick ? 500 : 5000));
  writer.slice_answer();
  if (with_replica) cluster.wait_for_equal(kConvergence);

  for (size_t i = 0; i < cluster.size(); i++) {
    std::vector<pid_t> processes = process_tree(cluster.node(i).process()->pid());
    std::string who = i == 0 ? "primary" : "replica";
    if (options.wants("memory")) {
      Memory memory = memory_of(processes);
      Record("memory")
          .text("unit", "bytes")
          .text("node", who)
          .number("replica", with_replica)
          .number("processes", static_cast<double>(processes.size()))
          .number("resident", static_cast<double>(memory.resident_bytes))
          .number("proportional", static_cast<double>(memory.proportional_bytes))
          .print("memory           " + who + " " + megabytes(static_cast<double>(memory.resident_bytes)) +
                 " resident, " + megabytes(static_cast<double>(memory.proportional_bytes)) + " proportional" +
                 (with_replica ? "  with a replica" : ""));
    }
    if (options.wants("idle")) {
      int64_t before = cpu_ns(processes);
      int64_t start = now_ns();
      sleep(options.quick ? 2 : 10);
      double share = static_cast<double>(cpu_ns(processes) - before) / static_cast<double>(now_ns() - start);
      Record("idle")
          .text("unit", "share of a core")
          .text("node", who)
          .number("replica", with_replica)
          .number("share", share)
          .print("idle             " + who + " " + short_number(share * 100) + " % of a core" +
                 (with_replica ? "  with a replica" : ""));
    }
  }
}

}  // namespace

std::vector<std::string> restart_names() { return {"restart_200mb", "restart_2gb", "memory", "idle"}; }

void run_restart(const Options& options) {
  for (bool with_replica : {false, true}) {
    if (options.replica == (with_replica ? "no" : "yes")) continue;
    if (options.wants("restart_200mb")) restart(options, "restart_200mb", options.big_bytes(), with_replica);
    if (options.wants("restart_2gb")) restart(options, "restart_2gb", options.huge_bytes(), with_replica);
    if (options.wants("memory") || options.wants("idle")) rest(options, with_replica);
  }
}

}  // namespace litefs::bench
