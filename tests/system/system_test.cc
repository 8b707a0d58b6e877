#define DOCTEST_CONFIG_IMPLEMENT
#include "system/system_test.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <random>

namespace litefs::test {

namespace {

constexpr int kExitSkipped = 77;  // as meson counts it
constexpr unsigned kProgramSecondsMax = 600;

// Whether an assertion of the running test case has failed; doctest itself keeps that to itself.
std::atomic<bool> case_failed{false};

class FailureListener : public doctest::IReporter {
 public:
  explicit FailureListener(const doctest::ContextOptions&) {}
  void log_assert(const doctest::AssertData& data) override {
    if (data.m_failed) case_failed = true;
  }
  void test_case_start(const doctest::TestCaseData&) override { case_failed = false; }
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};

REGISTER_LISTENER("failure", 1, FailureListener);

std::vector<int64_t> read_numbers(const std::string& path) {
  std::string bytes = read_text_file(path);
  std::vector<int64_t> numbers(bytes.size() / sizeof(int64_t));
  std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(int64_t));
  return numbers;
}

}  // namespace

ClusterOptions cluster_options(size_t nodes) {
  ClusterOptions options;
  options.nodes = nodes;
  int exceptions = std::uncaught_exceptions();
  options.failed = [exceptions] { return case_failed || std::uncaught_exceptions() > exceptions; };
  return options;
}

void start_pair(Cluster& cluster) {
  cluster.start_primary();
  cluster.start_replica(1);
  App app = cluster.open(0, "db");
  app.sql("PRAGMA journal_mode=WAL");
  app.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  app.close();
  cluster.wait_for_equal(Millis(10000));
}

uint64_t test_seed() {
  static const uint64_t seed = [] {
    const char* given = getenv("LITEFS_TEST_SEED");
    uint64_t value = given ? std::stoull(given) : std::random_device()();
    std::cerr << "LITEFS_TEST_SEED=" << value << std::endl;
    return value;
  }();
  return seed;
}

int64_t environment_number(const char* name, int64_t otherwise) {
  const char* given = getenv(name);
  return given ? std::stoll(given) : otherwise;
}

std::unique_ptr<Process> Ledger::spawn_writer(double seconds, const std::string& profile, uint64_t seed) {
  int64_t writer = static_cast<int64_t>(committed_paths_.size()) + 1;
  std::string name = database_ + ".writer" + std::to_string(writer);
  committed_paths_[writer] = cluster_.scratch(name + ".committed");
  error_path_ = cluster_.scratch(name + ".errors");
  return cluster_.spawn_app({"write", cluster_.node(0).path(database_), std::to_string(writer), std::to_string(seed),
                             std::to_string(seconds), profile, committed_paths_[writer]},
                            error_path_);
}

void Ledger::check(size_t node) {
  std::map<int64_t, int64_t> owners;  // committed number → writer
  for (const auto& [writer, path] : committed_paths_) {
    for (int64_t n : read_numbers(path)) {
      auto [at, fresh] = owners.emplace(n, writer);
      if (!fresh) {
        throw std::runtime_error("transaction " + std::to_string(n) + " was committed by writers " +
                                 std::to_string(at->second) + " and " + std::to_string(writer));
      }
    }
  }
  if (owners.empty()) return;
  int64_t counter = std::stoll(cluster_.run_app({"check", cluster_.node(node).path(database_)}));
  if (counter < owners.rbegin()->first) {
    throw std::runtime_error("committed up to " + std::to_string(owners.rbegin()->first) + ", but node " +
                             std::to_string(node) + " has " + std::to_string(counter));
  }
  App app = cluster_.open(node, database_);
  for (const std::string& row : app.sql("SELECT n, writer FROM entry")) {
    size_t bar = row.find('|');
    int64_t n = std::stoll(row);
    auto owner = owners.find(n);
    // A number nobody reported was committed by a writer that died before it could.
    if (owner != owners.end() && owner->second != std::stoll(row.substr(bar + 1))) {
      throw std::runtime_error("transaction " + std::to_string(n) + " is another one's now");
    }
  }
  app.close();
}

}  // namespace litefs::test

int main(int argc, char** argv) {
  std::string reason = litefs::test::why_no_cluster();
  if (!reason.empty()) {
    std::cout << "skipped: " << reason << "\n";
    return litefs::test::kExitSkipped;
  }
  // A child that is gone shows as an error of the write, not as our end.
  signal(SIGPIPE, SIG_IGN);
  alarm(
      static_cast<unsigned>(litefs::test::environment_number("LITEFS_TEST_ALARM_S", litefs::test::kProgramSecondsMax)));
  doctest::Context context(argc, argv);
  return context.run();
}
