// A primary and a replica on loopback: how long, how many bytes.
#include <unistd.h>

#include <stdexcept>

#include "bench/bench.h"
#include "bench/proc.h"
#include "system/sql.h"

namespace litefs::bench {

namespace {

constexpr test::Millis kConvergence{120000};
constexpr unsigned kRetentionS = 4;  // until what is too much for the log is gone
constexpr int64_t kLatencyPauseUs = 1000;
constexpr int64_t kCatchUpPollUs = 500;
constexpr int64_t kPacedPauseUs = 2000;
constexpr int kResyncRows = 100;

std::string ms(double ns) { return short_number(ns / 1e6) + " ms"; }

// Has the watcher on the replica wait for rows `last - count + 1` to `last` while the writer
// commits them.
struct Observed {
  std::vector<int64_t> committed;
  std::vector<int64_t> visible;
};
Observed write_and_watch(Worker& writer, Worker& watcher, int64_t last, int64_t count, int64_t pause_us,
                         int64_t poll_us) {
  watcher.command("watch " + std::to_string(last) + " " + std::to_string(poll_us));
  watcher.process().read_line(test::Millis(10000));
  writer.command("insert " + std::to_string(count) + " " + std::to_string(pause_us));
  Observed observed;
  observed.committed = writer.times_answer();
  observed.visible = watcher.times_answer();
  if (observed.committed.size() != observed.visible.size()) {
    throw std::runtime_error("the replica was not equal before the benchmark");
  }
  return observed;
}

void latency(const Options& options, test::Cluster& cluster) {
  int64_t count = options.quick ? 200 : 3000;
  Worker writer("insert", cluster.node(0).path("latency"));
  Worker watcher("watch", cluster.node(1).path("latency"));
  Observed observed = write_and_watch(writer, watcher, kSmallRows + count, count, kLatencyPauseUs, 0);
  std::vector<double> latencies;
  for (size_t i = 0; i < observed.committed.size(); i++) {
    latencies.push_back(static_cast<double>(observed.visible[i] - observed.committed[i]));
  }
  Record("latency")
      .text("unit", "ns")
      .number("median", median(latencies))
      .number("p90", percentile(latencies, 0.9))
      .number("p99", percentile(latencies, 0.99))
      .number("max", percentile(latencies, 1))
      .number("samples", static_cast<double>(latencies.size()))
      .print("latency          commit to visible: median " + ms(median(latencies)) + ", p99 " +
             ms(percentile(latencies, 0.99)));
}

void catch_up(const Options& options, test::Cluster& cluster) {
  int64_t count = options.quick ? 2000 : 20000;
  int tries = options.quick ? 1 : 3;
  Worker writer("insert", cluster.node(0).path("catch_up"));
  Worker watcher("watch", cluster.node(1).path("catch_up"));
  std::vector<double> times;
  for (int i = 1; i <= tries; i++) {
    Observed observed = write_and_watch(writer, watcher, kSmallRows + count * i, count, 0, kCatchUpPollUs);
    times.push_back(static_cast<double>(observed.visible.back() - observed.committed.back()));
    double seconds = static_cast<double>(observed.committed.back() - observed.committed.front()) / 1e9;
    cluster.wait_for_equal(kConvergence);
    Record("catch_up")
        .text("unit", "ns")
        .number("transactions", static_cast<double>(count))
        .number("time", times.back())
        .number("writer_rate", static_cast<double>(count) / seconds)
        .print("catch_up         " + ms(times.back()) + " after " + std::to_string(count) + " transactions at " +
               short_number(static_cast<double>(count) / seconds) + "/s");
  }
}

void wire_bytes(const Options& options, test::Cluster& cluster, const std::string& kind, int64_t pause_us) {
  int64_t count = options.quick ? 500 : (pause_us ? 1000 : 5000);
  test::Node& primary = cluster.node(0);
  Worker writer(kind, primary.path("wire_" + kind));
  cluster.wait_for_equal(kConvergence);
  int64_t before = tcp_payload_sent(primary.process()->pid(), primary.port());
  writer.command(kind + " " + std::to_string(count) + " " + std::to_string(pause_us));
  writer.times_answer();
  cluster.wait_for_equal(kConvergence);
  int64_t after = tcp_payload_sent(primary.process()->pid(), primary.port());
  double bytes = static_cast<double>(after - before) / static_cast<double>(count);
  Record("wire_" + kind)
      .text("unit", "bytes per transaction")
      .number("pause_us", static_cast<double>(pause_us))
      .number("bytes", bytes)
      .print("wire_" + kind + "      " + short_number(bytes) + " bytes a transaction" +
             (pause_us ? ", paced" : ", at full speed"));
}

// How long a new node takes to have all of a database: from the change log, where that still goes back to the
// beginning, or as a copy of the pages.
void first_load(const Options& options, bool copy) {
  test::ClusterOptions settings = options.cluster(1);
  if (copy) settings.data_settings = {"retention-size: 1MB", "retention-monitor-interval: 1s"};
  test::Cluster cluster(settings);
  cluster.start_primary();
  run_builder("build_big", cluster.node(0).path("big"), options.big_bytes());
  if (copy) sleep(kRetentionS);
  int tries = options.quick ? 1 : 5;
  for (int i = 0; i < tries; i++) {
    size_t index = cluster.add_node().index();
    int64_t start = now_ns();
    cluster.launch(index);
    Worker reader("first_read", cluster.node(index).path("big"));
    double time = static_cast<double>(reader.times_answer().at(0) - start);
    cluster.wait_for_equal(kConvergence);
    if (copy != cluster.log_contains(index, "copy from the primary complete"))
      throw std::runtime_error("not loaded as intended");
    Record("first_load")
        .text("unit", "ns")
        .text("from", copy ? "copy" : "log")
        .number("database_bytes", static_cast<double>(options.big_bytes()))
        .number("time", time)
        .print("first_load       " + ms(time) + " from exec to reading all of " +
               short_number(static_cast<double>(options.big_bytes()) / 1e6) + " MB, " +
               (copy ? "as a copy" : "from the log"));
    cluster.stop(index);
  }
}

// What moves, and how long it takes, when a replica comes back that has changed kResyncRows rows, each on a page of its
// own, while it was away.
void resync(const Options& options) {
  test::Cluster cluster(options.cluster(2));
  cluster.start_primary();
  cluster.start_replica(1);
  run_builder("build_big", cluster.node(0).path("big"), options.resync_bytes());
  cluster.wait_for_equal(kConvergence);
  test::Node& primary = cluster.node(0);
  const int tries = options.quick ? 1 : 3;
  for (int i = 1; i <= tries; i++) {
    cluster.stop(1);
    {
      test::Sql db(cluster.node(1).data() + "/db/big", SQLITE_OPEN_READWRITE);
      const int64_t step = db.integer("PRAGMA user_version") / kResyncRows;
      db.exec("UPDATE t SET n = " + std::to_string(-i) + " WHERE id % " + std::to_string(step) + " = 1");
    }
    int64_t start = now_ns();
    cluster.launch(1);
    cluster.wait_until_up(1, kConvergence);
    cluster.wait_for_equal(kConvergence);
    double time = static_cast<double>(now_ns() - start);
    if (!cluster.log_contains(1, "loading the difference")) throw std::runtime_error("not compared as intended");
    double sent = static_cast<double>(tcp_payload_sent(primary.process()->pid(), primary.port()));
    double received = static_cast<double>(tcp_payload_received(primary.process()->pid(), primary.port()));
    Record("resync")
        .text("unit", "bytes")
        .number("database_bytes", static_cast<double>(options.resync_bytes()))
        .number("rows", kResyncRows)
        .number("sent", sent)
        .number("received", received)
        .number("time_ns", time)
        .print("resync           " + short_number((sent + received) / 1e6) + " MB in both directions, " + ms(time) +
               " from exec to equal, " + short_number(static_cast<double>(options.resync_bytes()) / 1e6) + " MB with " +
               std::to_string(kResyncRows) + " rows changed");
  }
}

// How long an application in DELETE mode waits for a transaction while a replica joins with a copy,
// beside how long it waits without one.
void join_delete(const Options& options, const std::string& kind) {
  test::ClusterOptions settings = options.cluster(1);
  settings.data_settings = {"retention-size: 1MB", "retention-monitor-interval: 1s"};
  test::Cluster cluster(settings);
  cluster.start_primary();
  run_builder("build_big_delete", cluster.node(0).path("join"), options.quick ? 20'000'000 : 50'000'000);
  sleep(kRetentionS);
  Worker writer(kind, cluster.node(0).path("join"));
  const std::string batch = kind + (kind == "update" ? " 100 0" : " 10 0");
  // Of one batch, in which the first transaction has no one before it.
  auto add_waits = [&](std::vector<double>& waits) {
    writer.command(batch);
    const std::vector<int64_t> times = writer.times_answer();
    for (size_t i = 1; i < times.size(); i++) {
      waits.push_back(static_cast<double>(times[i] - times[i - 1]));
    }
  };
  std::vector<double> alone, joining;
  add_waits(alone);
  alone.clear();
  const int joins = options.quick ? 1 : 5;
  for (int i = 0; i < joins; i++) {
    const size_t index = cluster.add_node().index();
    const int64_t start = now_ns();
    cluster.launch(index);
    while (!cluster.log_contains(index, "copy from the primary complete")) {
      add_waits(joining);
      if (now_ns() - start > kConvergence.count() * 1000000) throw std::runtime_error("no copy");
    }
    const int64_t end = now_ns();
    // For as long without one.
    cluster.stop(index);
    while (now_ns() - end < end - start) add_waits(alone);
  }
  Record("join_delete")
      .text("unit", "ns")
      .text("writer", kind)
      .number("joins", joins)
      .number("alone_median", median(alone))
      .number("alone_max", percentile(alone, 1))
      .number("alone_samples", static_cast<double>(alone.size()))
      .number("joining_median", median(joining))
      .number("joining_max", percentile(joining, 1))
      .number("joining_samples", static_cast<double>(joining.size()))
      .print("join_delete      " + kind + ": longest " + ms(percentile(joining, 1)) + ", median " +
             ms(median(joining)) + " during a join; " + ms(percentile(alone, 1)) + " and " + ms(median(alone)) +
             " without");
}

}  // namespace

std::vector<std::string> replication_names() {
  return {"latency", "catch_up", "wire_insert", "wire_update", "first_load", "resync", "join_delete"};
}

void run_replication(const Options& options) {
  bool pair = options.wants("latency") || options.wants("catch_up") || options.wants("wire_insert") ||
              options.wants("wire_update");
  if (pair) {
    test::Cluster cluster(options.cluster(2));
    cluster.start_primary();
    cluster.start_replica(1);
    auto build = [&](const std::string& kind, const std::string& database) {
      run_builder(kind, cluster.node(0).path(database));
      cluster.wait_for_equal(kConvergence);
    };
    if (options.wants("latency")) {
      build("build_small", "latency");
      latency(options, cluster);
    }
    if (options.wants("catch_up")) {
      build("build_small", "catch_up");
      catch_up(options, cluster);
    }
    for (const std::string kind : {"insert", "update"}) {
      if (!options.wants("wire_" + kind)) continue;
      build(kind == "insert" ? "build_small" : "build_many", "wire_" + kind);
      wire_bytes(options, cluster, kind, 0);
      wire_bytes(options, cluster, kind, kPacedPauseUs);
    }
  }
  if (options.wants("first_load")) {
    first_load(options, false);
    first_load(options, true);
  }
  if (options.wants("resync")) resync(options);
  if (options.wants("join_delete")) {
    for (const std::string kind : {"update", "update_200"}) join_delete(options, kind);
  }
}

}  // namespace litefs::bench
