// The children that use SQLite itself: a shell and a reader.
#include <poll.h>
#include <sqlite3.h>

#include <cstdio>
#include <iostream>
#include <string>

#include "child.h"

namespace litefs::test {
namespace {

int print_row(void*, int columns, char** values, char**) {
  std::string line = ">";
  for (int i = 0; i < columns; ++i) {
    if (i > 0) line += '|';
    line += values[i] ? values[i] : "NULL";
  }
  std::cout << line << '\n';
  return 0;
}

void answer(sqlite3* db, int code) { std::cout << '=' << code << ' ' << (db ? sqlite3_errmsg(db) : "") << std::endl; }

}  // namespace

int shell_main(const std::vector<std::string>&) {
  sqlite3* db = nullptr;
  for (std::string line; std::getline(std::cin, line);) {
    if (line.rfind(".open ", 0) == 0) {
      int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
      int code = sqlite3_open_v2(line.substr(6).c_str(), &db, flags, nullptr);
      sqlite3_extended_result_codes(db, 1);
      answer(db, code);
    } else if (line == ".close") {
      answer(nullptr, sqlite3_close(db));
      db = nullptr;
    } else {
      int code = sqlite3_exec(db, line.c_str(), print_row, nullptr, nullptr);
      answer(db, code);
    }
  }
  sqlite3_close(db);
  return 0;
}

namespace {

// Reads history's databases (history.h) again and again, each time in one transaction.
class Reader {
 public:
  explicit Reader(const std::string& path) {
    if (sqlite3_open_v2(path.c_str(), &db_, SQLITE_OPEN_READWRITE, nullptr) != SQLITE_OK) {
      fail("open");
    }
    // Only recovery and a poor chance in the lock protocol answer BUSY to a reader.
    sqlite3_busy_timeout(db_, 10000);
  }
  ~Reader() { sqlite3_close(db_); }

  void check_snapshot() {
    run("BEGIN");
    std::string state = run("SELECT n, rows, total FROM meta");
    std::string found = run("SELECT (SELECT n FROM meta), count(*), ifnull(sum(h), 0) FROM t");
    if (state != found) fail("snapshot " + state + " holds " + found);
    int64_t n = std::stoll(state);
    if (n < last_) fail("went back to " + state);
    last_ = n;
    if (++rounds_ % 8 == 0) {
      std::string verdict = run("PRAGMA integrity_check");
      if (verdict != "ok") fail(verdict);
    }
    run("COMMIT");
  }
  void checkpoint() {
    int code = sqlite3_wal_checkpoint_v2(db_, nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
    if (code != SQLITE_OK && code != SQLITE_BUSY) fail("checkpoint");
  }
  int64_t rounds() const { return rounds_; }

 private:
  std::string run(const std::string& sql) {
    std::string row;
    auto keep = [](void* out, int columns, char** values, char**) {
      std::string& text = *static_cast<std::string*>(out);
      for (int i = 0; i < columns; ++i) text += (i ? "|" : "") + std::string(values[i] ? values[i] : "");
      return 0;
    };
    if (sqlite3_exec(db_, sql.c_str(), keep, &row, nullptr) != SQLITE_OK) fail(sql);
    return row;
  }
  [[noreturn]] void fail(const std::string& what) {
    std::cout << "wrong: " << what << ": " << sqlite3_errmsg(db_) << std::endl;
    std::_Exit(1);
  }

  sqlite3* db_ = nullptr;
  int64_t last_ = -1;
  int64_t rounds_ = 0;
};

}  // namespace

// reader PATH CHECKPOINT: reads until its input ends; CHECKPOINT 1: checkpoints in between.
int reader_main(const std::vector<std::string>& arguments) {
  Reader reader(arguments.at(0));
  reader.check_snapshot();
  std::cout << "reading" << std::endl;
  struct pollfd input = {0, POLLIN, 0};
  while (poll(&input, 1, 0) == 0) {
    reader.check_snapshot();
    if (arguments.at(1) == "1") reader.checkpoint();
  }
  std::cout << reader.rounds() << std::endl;
  return 0;
}

}  // namespace litefs::test
