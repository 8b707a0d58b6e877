// litefs-bench: measures SQLite on native files, on a bare pass-through and on the litefs mount,
// and what replication costs. JSON lines on stdout, a table on stderr; see usage(). Needs root and
// FUSE.
#include <signal.h>
#include <sqlite3.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <stdexcept>

#include "bench/bench.h"

namespace litefs::bench {

namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

std::vector<std::string> all_names() {
  std::vector<std::string> names = local_names();
  for (const auto& more : {replication_names(), restart_names()}) {
    names.insert(names.end(), more.begin(), more.end());
  }
  return names;
}

void usage() {
  std::cerr << "usage: litefs-bench [--only NAME[,NAME]…] [--replica no|yes|both] [--rounds N] "
               "[--slice-ms N]\n"
               "                    [--quick] [--litefs PATH] [--passthrough PATH] [--directory DIR]\n"
               "Without --litefs and --passthrough the programs of the same build are taken.\n"
               "names: "
            << joined(all_names()) << "\n";
}

// A program of the build that this one is of: BUILD/NAME, where this is
// BUILD/tests/bench/litefs-bench.
std::string of_this_build(const std::string& name) {
  std::filesystem::path own = std::filesystem::read_symlink("/proc/self/exe");
  std::filesystem::path path = own.parent_path().parent_path().parent_path() / name;
  return access(path.c_str(), X_OK) == 0 ? path.string() : "";
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream in(text);
  std::string word;
  while (std::getline(in, word, ',')) words.push_back(word);
  return words;
}

Options parse(const std::vector<std::string>& words) {
  Options options;
  options.litefs = of_this_build("fuse/litefs");
  options.passthrough = of_this_build("fuse/litefs-passthrough");
  for (size_t i = 0; i < words.size(); i++) {
    const std::string& word = words[i];
    if (word == "--quick") {
      options.quick = true;
      options.rounds = 3;
      options.slice_ms = 100;
      continue;
    }
    if (i + 1 == words.size()) throw std::invalid_argument(word + " is unknown or needs a value");
    const std::string& value = words[++i];
    if (word == "--only")
      options.only = split(value);
    else if (word == "--replica")
      options.replica = value;
    else if (word == "--rounds")
      options.rounds = std::stoi(value);
    else if (word == "--slice-ms")
      options.slice_ms = std::stoi(value);
    else if (word == "--litefs")
      options.litefs = value;
    else if (word == "--passthrough")
      options.passthrough = value;
    else if (word == "--directory")
      options.directory = value;
    else
      throw std::invalid_argument(word + " is unknown");
  }
  std::vector<std::string> names = all_names();
  for (const std::string& name : options.only) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      throw std::invalid_argument("there is no benchmark " + name);
    }
  }
  return options;
}

bool wants_any(const Options& options, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& n) { return options.wants(n); });
}

void run(const Options& options) {
  utsname system{};
  uname(&system);
  Record("machine")
      .text("kernel", system.release)
      .text("sqlite", sqlite3_libversion())
      .number("cpus", static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN)))
      .number("rounds", options.rounds)
      .number("slice_ms", options.slice_ms)
      .print(std::string("Linux ") + system.release + ", SQLite " + sqlite3_libversion());
  if (wants_any(options, local_names())) {
    if (options.replica != "yes") run_local(options, false);
    if (options.replica != "no" && !options.litefs.empty()) run_local(options, true);
  }
  if (options.litefs.empty()) {
    std::cerr << "no litefs program: only native files and the pass-through were measured\n";
    return;
  }
  if (wants_any(options, replication_names())) run_replication(options);
  if (wants_any(options, restart_names())) run_restart(options);
}

}  // namespace

bool Options::wants(const std::string& name) const {
  return only.empty() || std::find(only.begin(), only.end(), name) != only.end();
}

test::ClusterOptions Options::cluster(size_t nodes) const {
  test::ClusterOptions cluster;
  cluster.nodes = nodes;
  cluster.litefs = litefs;
  cluster.application = of_this_build("tests/system/app");
  cluster.parent = directory;
  int exceptions = std::uncaught_exceptions();
  cluster.failed = [exceptions] { return std::uncaught_exceptions() > exceptions; };
  return cluster;
}

}  // namespace litefs::bench

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  if (!words.empty() && words[0] == "worker") {
    return litefs::bench::run_worker({words.begin() + 1, words.end()});
  }
  signal(SIGPIPE, SIG_IGN);
  try {
    litefs::bench::run(litefs::bench::parse(words));
    return 0;
  } catch (const std::invalid_argument& error) {
    std::cerr << "litefs-bench: " << error.what() << "\n";
    litefs::bench::usage();
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "litefs-bench: " << error.what() << std::endl;
    return 1;
  }
}
