// A cluster of real litefs nodes on loopback, with real mounts, for tests and benchmarks.
//
//   Cluster cluster(options);
//   cluster.start_primary();
//   cluster.start_replica(1);
//   cluster.node(0).path("db")      a database's path on the primary's mount
//   cluster.wait_for_equal(Millis(5000));
//
// Node 0 is the primary. Everything lies in one temporary directory. This process never touches a
// mount itself: applications do (class App, run_app), so that a hanging mount fails a test and does
// not hang it. A separate process, the janitor, cleans up when this one is gone, however it ended:
// it waits for the children to die (PR_SET_PDEATHSIG), unmounts what is mounted below the
// directory, prints the nodes' logs when the end was no clean one, and removes the directory.
// Failures are thrown as std::runtime_error. Thread rule: the thread that made it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "system/process.h"

namespace litefs::test {

struct DatabaseStatus {
  std::string name;
  std::string position;  // TXID/CHECKSUM
  std::string state;
  uint64_t epoch = 0;
  uint64_t page_size = 0;
};

struct NodeStatus {
  std::string role;
  std::vector<DatabaseStatus> databases;
  std::string json;

  // nullptr when there is none.
  const DatabaseStatus* find(const std::string& database) const;
};

struct ClusterOptions {
  size_t nodes = 2;
  std::string litefs;                      // the program; empty: environment LITEFS_BIN
  std::string application;                 // the helper `app`; empty: environment LITEFS_APP
  std::string parent;                      // where the directory is made; empty: the system's temporary directory
  std::vector<std::string> data_settings;  // lines for the section `data`, as "retention-size: 1MB"
  // Whether the nodes' logs are to be printed when the cluster is destroyed.
  std::function<bool()> failed;
};

class Node {
 public:
  size_t index() const { return index_; }
  const std::string& directory() const { return directory_; }
  std::string mount() const { return directory_ + "/mount"; }
  std::string data() const { return directory_ + "/data"; }
  std::string log_path() const { return directory_ + "/log"; }
  std::string path(const std::string& database) const { return mount() + "/" + database; }
  uint16_t port() const { return port_; }
  // nullptr when it was not started or has been stopped.
  Process* process() const { return process_.get(); }

 private:
  friend class Cluster;
  size_t index_ = 0;
  std::string directory_;
  uint16_t port_ = 0;
  std::unique_ptr<Process> process_;
};

// A conversation with an `app sql` process: a connection of an application that stays open.
class App {
 public:
  struct Answer {
    std::vector<std::string> rows;
    int error = 0;  // SQLite's extended code; 0: success
    std::string message;
  };

  explicit App(std::unique_ptr<Process> process) : process_(std::move(process)) {}
  Answer try_sql(const std::string& text, Millis timeout = Millis(30000));
  // Rows; throws on an error.
  std::vector<std::string> sql(const std::string& text);
  // The first column of the first row.
  std::string value(const std::string& text);
  // Closes the connection and waits for the process.
  void close();
  Process& process() { return *process_; }

 private:
  std::unique_ptr<Process> process_;
};

class Cluster {
 public:
  explicit Cluster(const ClusterOptions& options);
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  Node& node(size_t index) { return *nodes_[index]; }
  size_t size() const { return nodes_.size(); }
  const std::string& directory() const { return directory_; }
  // A fresh path outside the mounts.
  std::string scratch(const std::string& name);
  // A node more, with the next index; not started.
  Node& add_node();

  // Each returns when the node's mount is up and its status answers. `environment`: "NAME=value".
  void start_primary(const std::vector<std::string>& environment = {}) { start(0, environment); }
  void start_replica(size_t index) { start(index); }
  void start(size_t index, const std::vector<std::string>& environment = {});
  // Starts the process and returns at once.
  void launch(size_t index, const std::vector<std::string>& environment = {});
  void wait_until_up(size_t index, Millis timeout);
  // SIGTERM; the process must end with 0 in time.
  void stop(size_t index);
  // SIGKILL; the mount stays, dead.
  void kill9(size_t index);
  void restart(size_t index) {
    if (node(index).process()) stop(index);
    start(index);
  }

  // Throws when the node does not answer.
  NodeStatus status(size_t index);
  // Sleeps until every running node shows the same databases, all ready, at the same positions, not
  // before what the primary's NAME-pos files say now. Throws with the positions at the deadline.
  void wait_for_equal(Millis timeout);
  // Sleeps until a database is in the given state.
  void wait_for_state(size_t index, const std::string& database, const std::string& state, Millis timeout);
  // The line in NAME-pos, read by an application.
  std::string position(size_t index, const std::string& database);
  bool log_contains(size_t index, const std::string& text) const;

  // Applications. `words` as app.cc's head lists them.
  std::unique_ptr<Process> spawn_app(const std::vector<std::string>& words, const std::string& error_path = "");
  std::string run_app(const std::vector<std::string>& words);
  App open(size_t index, const std::string& database);

  // Waits until equal, then compares the database on all running nodes: integrity_check, sha256 of
  // its content, page checksum by our own reckoning and as status has it. Throws where any differs.
  void check_same(const std::string& database, Millis timeout = Millis(30000));

 private:
  void write_config(const Node& node);
  ClusterOptions options_;
  std::string directory_;
  int janitor_ = -1;  // pipe to the janitor; its end tells it that we are gone
  pid_t janitor_pid_ = -1;
  std::vector<std::unique_ptr<Node>> nodes_;
};

// The checksum of DESIGN section 4 over a file of pages, reckoned without the project's own code.
uint64_t pages_checksum(const std::string& path);

// Whether this process can run a cluster here (root, FUSE, the program): the reason why not, or
// empty.
std::string why_no_cluster();

}  // namespace litefs::test
