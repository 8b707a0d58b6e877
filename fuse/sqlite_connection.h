// One SQLite connection of a command line program, with errors as values. The node itself has none:
// its own locks and files live below SQLite (FUSE.md section 7).
//
// Codes: SQLITE_BUSY and SQLITE_LOCKED are kBusy, NOTADB kInvalid, CORRUPT kCorrupt, FULL kNoSpace,
// READONLY and its kind kReadOnly, everything else kIo; the message is SQLite's. Thread rule: one
// thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

struct sqlite3;

namespace litefs {

class SqliteConnection {
 public:
  enum class Mode { kReadOnly, kReadWrite, kCreate };
  static Result<std::unique_ptr<SqliteConnection>> open(const std::string& path, Mode mode);
  ~SqliteConnection();
  SqliteConnection(const SqliteConnection&) = delete;
  SqliteConnection& operator=(const SqliteConnection&) = delete;

  // The first column of every row, as text; NULL is empty.
  Result<std::vector<std::string>> rows(const std::string& sql);
  Status exec(const std::string& sql);
  // Of a statement with one row, as PRAGMA page_size.
  Result<std::string> value(const std::string& sql);

  // What SQLite says about its last call, which answered `code`.
  Error error(int code) const;
  const std::string& path() const { return path_; }
  sqlite3* handle() const { return db_; }

 private:
  explicit SqliteConnection(const std::string& path) : path_(path) {}

  const std::string path_;
  sqlite3* db_ = nullptr;
};

}  // namespace litefs
