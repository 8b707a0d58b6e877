#include "fuse/sqlite_connection.h"

#include <sqlite3.h>

namespace litefs {
namespace {

ErrorCode code_of(int sqlite_code) {
  switch (sqlite_code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return ErrorCode::kBusy;
    case SQLITE_NOTADB: return ErrorCode::kInvalid;
    case SQLITE_CORRUPT: return ErrorCode::kCorrupt;
    case SQLITE_FULL: return ErrorCode::kNoSpace;
    case SQLITE_INTERRUPT: return ErrorCode::kCancelled;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN: return ErrorCode::kReadOnly;
    default: return ErrorCode::kIo;
  }
}

int flags_of(SqliteConnection::Mode mode) {
  switch (mode) {
    case SqliteConnection::Mode::kReadOnly: return SQLITE_OPEN_READONLY;
    case SqliteConnection::Mode::kReadWrite: return SQLITE_OPEN_READWRITE;
    case SqliteConnection::Mode::kCreate: return SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  }
  return 0;
}

}  // namespace

Result<std::unique_ptr<SqliteConnection>> SqliteConnection::open(const std::string& path, Mode mode) {
  std::unique_ptr<SqliteConnection> connection(new SqliteConnection(path));
  // Said explicitly: a build of SQLite may take "file:" at the start of a name for a URI.
  std::string name = path.rfind("file:", 0) == 0 ? "./" + path : path;
  int code = sqlite3_open_v2(name.c_str(), &connection->db_, flags_of(mode), nullptr);
  if (code != SQLITE_OK) return connection->error(code);
  sqlite3_extended_result_codes(connection->db_, 1);
  return connection;
}

SqliteConnection::~SqliteConnection() { sqlite3_close(db_); }

Error SqliteConnection::error(int code) const {
  std::string text = db_ ? sqlite3_errmsg(db_) : sqlite3_errstr(code);
  return Error(code_of(code), path_ + ": " + text + " (" + std::to_string(code) + ")");
}

Result<std::vector<std::string>> SqliteConnection::rows(const std::string& sql) {
  sqlite3_stmt* raw = nullptr;
  int code = sqlite3_prepare_v2(db_, sql.c_str(), -1, &raw, nullptr);
  if (code != SQLITE_OK) return error(code);
  std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> statement(raw, sqlite3_finalize);
  std::vector<std::string> found;
  while ((code = sqlite3_step(raw)) == SQLITE_ROW) {
    const unsigned char* text = sqlite3_column_text(raw, 0);
    found.emplace_back(text ? reinterpret_cast<const char*>(text) : "");
  }
  if (code != SQLITE_DONE) return error(code);
  return found;
}

Status SqliteConnection::exec(const std::string& sql) {
  TRY(rows(sql));
  return {};
}

Result<std::string> SqliteConnection::value(const std::string& sql) {
  std::vector<std::string> found = TRY(rows(sql));
  if (found.size() == 1) return found[0];
  return Error(ErrorCode::kIo, path_ + ": '" + sql + "' has " + std::to_string(found.size()) + " rows");
}

}  // namespace litefs
