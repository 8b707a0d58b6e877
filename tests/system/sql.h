// The few SQLite calls that test applications and benchmarks make, with errors as exceptions.
//
// It knows nothing of liblitefs: what links it is an ordinary SQLite application. Thread rule: a
// connection and its statements belong to one thread.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace litefs::test {

class SqlError : public std::runtime_error {
 public:
  SqlError(int code, const std::string& message) : std::runtime_error(message), code_(code) {}
  // The extended result code.
  int code() const { return code_; }
  bool busy() const { return (code_ & 0xff) == SQLITE_BUSY; }

 private:
  int code_;
};

class Sql;

class Statement {
 public:
  Statement(Sql& db, const std::string& text);
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(int index, int64_t value);
  Statement& bind(int index, std::string_view blob);
  Statement& bind_text(int index, std::string_view text);
  // True when there is a row.
  bool step();
  void reset() { sqlite3_reset(statement_); }
  // Runs a statement without rows and resets it.
  void run();

  int columns() const { return sqlite3_column_count(statement_); }
  int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
  std::string blob(int column) const;
  // As it would be written in SQL: quoted text, x'…' blobs, numbers, NULL.
  std::string literal(int column) const;

 private:
  sqlite3* db_;
  sqlite3_stmt* statement_ = nullptr;
};

class Sql {
 public:
  // flags as of sqlite3_open_v2; a busy timeout of 10 s.
  explicit Sql(const std::string& path, int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  ~Sql() { sqlite3_close(db_); }
  Sql(const Sql&) = delete;
  Sql& operator=(const Sql&) = delete;

  void exec(const std::string& text);
  int64_t integer(const std::string& query);
  std::string text(const std::string& query);
  bool in_transaction() const { return !sqlite3_get_autocommit(db_); }
  sqlite3* handle() const { return db_; }

 private:
  sqlite3* db_ = nullptr;
};

}  // namespace litefs::test
