// An application that does to a database whatever SQLite lets it do, at random: rows of all sizes, tables and indexes
// that come and go, transactions that spill, are rolled back whole or to a savepoint, VACUUM, other page sizes, other
// journal modes, other locking modes, several connections.
//
// Each transaction also adds one to the number in table `count`, so that it can be told which have come through.
// Thread rule: one thread.
#pragma once

#include <sqlite3.h>

#include <random>
#include <string>
#include <vector>

namespace litefs::test {

class RandomApplication {
 public:
  struct Options {
    std::string vfs;
    std::string path;
    uint64_t seed = 0;
    bool wal = true;        // switches to WAL, too
    bool exclusive = true;  // locking_mode, too
    bool page_sizes = true;
    int connections = 2;
  };
  explicit RandomApplication(const Options& options);
  ~RandomApplication();
  RandomApplication(const RandomApplication&) = delete;
  RandomApplication& operator=(const RandomApplication&) = delete;

  // One statement or transaction, finished when this returns. Errors are taken as they come.
  void step();
  // Transactions that SQLite said were committed.
  int64_t committed() const { return committed_; }
  // Whether the last transaction's outcome is not known: its COMMIT gave an error.
  bool in_doubt() const { return in_doubt_; }
  bool in_wal() const { return mode_ == "wal"; }
  const std::string& last_error() const { return error_; }
  uint64_t errors() const { return errors_; }
  void close();

  // The number in `count`; -1: there is none.
  static int64_t count(const std::string& path, const std::string& vfs = "unix");

 private:
  void open(size_t index);
  int run(sqlite3* db, const std::string& sql);
  std::string value(sqlite3* db, const std::string& sql);
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }
  std::string change();
  void transaction(sqlite3* db);
  void pragma(sqlite3* db);
  void set_mode(sqlite3* db);

  Options options_;
  std::mt19937_64 random_;
  std::vector<sqlite3*> connections_;
  std::string mode_ = "delete";
  std::string error_;
  int64_t committed_ = 0;
  uint64_t errors_ = 0;
  bool in_doubt_ = false;
};

}  // namespace litefs::test
