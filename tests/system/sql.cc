#include "system/sql.h"

namespace litefs::test {

namespace {

constexpr int kBusyTimeoutMs = 10000;

void check(sqlite3* db, int code, const std::string& what) {
  if (code == SQLITE_OK || code == SQLITE_ROW || code == SQLITE_DONE) return;
  throw SqlError(db ? sqlite3_extended_errcode(db) : code,
                 what.substr(0, 100) + ": " + (db ? sqlite3_errmsg(db) : sqlite3_errstr(code)));
}

}  // namespace

Statement::Statement(Sql& db, const std::string& text) : db_(db.handle()) {
  check(db_, sqlite3_prepare_v2(db_, text.c_str(), -1, &statement_, nullptr), text);
}

Statement& Statement::bind(int index, int64_t value) {
  check(db_, sqlite3_bind_int64(statement_, index, value), "bind");
  return *this;
}

Statement& Statement::bind(int index, std::string_view blob) {
  check(db_, sqlite3_bind_blob64(statement_, index, blob.data(), blob.size(), SQLITE_TRANSIENT), "bind");
  return *this;
}

Statement& Statement::bind_text(int index, std::string_view text) {
  check(db_, sqlite3_bind_text64(statement_, index, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8), "bind");
  return *this;
}

bool Statement::step() {
  int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) {
    // The message is lost by the reset, without which a COMMIT would stay in progress.
    SqlError error(sqlite3_extended_errcode(db_),
                   std::string(sqlite3_sql(statement_)).substr(0, 100) + ": " + sqlite3_errmsg(db_));
    sqlite3_reset(statement_);
    throw error;
  }
  return false;
}

void Statement::run() {
  while (step()) {
  }
  reset();
}

std::string Statement::blob(int column) const {
  // The pointer first, then the size: SQLite may convert in the first call.
  const void* data = sqlite3_column_blob(statement_, column);
  int size = sqlite3_column_bytes(statement_, column);
  return std::string(static_cast<const char*>(data), static_cast<size_t>(size));
}

std::string Statement::literal(int column) const {
  switch (sqlite3_column_type(statement_, column)) {
    case SQLITE_NULL: return "NULL";
    case SQLITE_INTEGER: return std::to_string(integer(column));
    case SQLITE_BLOB: {
      static constexpr char kDigits[] = "0123456789abcdef";
      std::string out = "x'";
      for (char c : blob(column)) {
        out += kDigits[static_cast<uint8_t>(c) >> 4];
        out += kDigits[c & 15];
      }
      return out + "'";
    }
    default: return blob(column);
  }
}

Sql::Sql(const std::string& path, int flags) {
  int code = sqlite3_open_v2(path.c_str(), &db_, flags, nullptr);
  if (code != SQLITE_OK) {
    SqlError error(db_ ? sqlite3_extended_errcode(db_) : code,
                   "open " + path + ": " + (db_ ? sqlite3_errmsg(db_) : sqlite3_errstr(code)));
    sqlite3_close(db_);
    throw error;
  }
  sqlite3_extended_result_codes(db_, 1);
  sqlite3_busy_timeout(db_, kBusyTimeoutMs);
}

void Sql::exec(const std::string& text) {
  check(db_, sqlite3_exec(db_, text.c_str(), nullptr, nullptr, nullptr), text);
}

int64_t Sql::integer(const std::string& query) {
  Statement statement(*this, query);
  if (!statement.step()) throw SqlError(SQLITE_EMPTY, query + ": no row");
  return statement.integer(0);
}

std::string Sql::text(const std::string& query) {
  Statement statement(*this, query);
  if (!statement.step()) throw SqlError(SQLITE_EMPTY, query + ": no row");
  return statement.literal(0);
}

}  // namespace litefs::test
