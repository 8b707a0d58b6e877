// A node inside an application, in a process of its own (linked_app.cc), and pairs of such. Throws what goes wrong.
// Thread rule: one thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "system/cluster.h"

namespace litefs::test {

class LinkedNode {
 public:
  // By the configuration file in `directory`, where its log goes too. Returns when the node runs. `tag`: one for each
  // of several processes on one directory.
  explicit LinkedNode(const std::string& directory, const std::string& tag = "");

  // "HOST:PORT"
  const std::string& address() const { return address_; }
  Process& process() { return *process_; }

  App::Answer try_command(const std::string& line);
  std::vector<std::string> command(const std::string& line);
  std::vector<std::string> sql(const std::string& connection, const std::string& database, const std::string& script) {
    return command("sql " + connection + " " + database + " " + script);
  }
  std::string value(const std::string& connection, const std::string& database, const std::string& query);
  // What SQLite has logged since this was asked last, one line.
  std::string log();
  // "EPOCH TXID CHECKSUM"
  std::string position(const std::string& database);
  void wait(const std::string& database, const std::string& position);
  // The content's own checksum, and a hash of all rows.
  std::string content(const std::string& database);
  // Waits for its end, which must be in order.
  void stop();
  void kill9();

 private:
  std::string directory_;
  std::string tag_;
  std::string address_;
  std::unique_ptr<Process> process_;
};

// A primary and a replica, both in applications.
class LinkedPair {
 public:
  explicit LinkedPair(const std::string& directory);

  // `name`: "primary" or "replica". As a guest of the application whose node it is.
  std::unique_ptr<LinkedNode> guest(const std::string& name, const std::string& tag) const {
    return std::make_unique<LinkedNode>(directory_ + "/" + name, tag);
  }
  LinkedNode& primary() { return *primary_; }
  LinkedNode& replica() { return *replica_; }
  void restart_primary();
  void restart_replica();
  // Waits until the replica is where the primary is, then compares both.
  void check_same(const std::string& database);
  void stop();

 private:
  void write_config(const std::string& name, const std::string& listen, const std::string& primary);

  std::string directory_;
  std::unique_ptr<LinkedNode> primary_;
  std::unique_ptr<LinkedNode> replica_;
};

// LITEFS_TEST_SECONDS: how long a workload lasts; 3.
std::string workload_seconds();
// The last number that any of the writers with these files was told was committed; 0: none.
int64_t last_committed(const std::vector<std::string>& paths);
// Until there is one, which takes a slow machine long; throws after a minute.
void wait_for_commit(const std::vector<std::string>& paths);

}  // namespace litefs::test
