// SQLite as an application uses it. Opened and used in one process; a forked child opens its own.
#pragma once

#include <sqlite3.h>

#include <string>

namespace litefs::test {

class App {
 public:
  explicit App(const std::string& path, int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) {
    open_code_ = sqlite3_open_v2(path.c_str(), &db_, flags, nullptr);
    sqlite3_extended_result_codes(db_, 1);
    sqlite3_busy_timeout(db_, 15'000);
  }
  ~App() { sqlite3_close(db_); }
  App(const App&) = delete;
  App& operator=(const App&) = delete;

  int open_code() const { return open_code_; }
  // The result code.
  int run(const std::string& sql) { return sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr); }
  // The first column of the first row, or "error N".
  std::string get(const std::string& sql) {
    sqlite3_stmt* statement = nullptr;
    int code = sqlite3_prepare_v2(db_, sql.c_str(), -1, &statement, nullptr);
    std::string text;
    if (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
      const unsigned char* value = sqlite3_column_text(statement, 0);
      text = value ? reinterpret_cast<const char*>(value) : "null";
    } else {
      text = "error " + std::to_string(sqlite3_extended_errcode(db_));
    }
    sqlite3_finalize(statement);
    return text;
  }
  sqlite3* handle() { return db_; }

 private:
  sqlite3* db_ = nullptr;
  int open_code_ = 0;
};

}  // namespace litefs::test
