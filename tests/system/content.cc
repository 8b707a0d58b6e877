#include "system/content.h"

#include <fstream>
#include <vector>

namespace litefs::test {

bool dump_rows(const std::string& path, const std::string& out_path) {
  Sql db(path, SQLITE_OPEN_READWRITE);
  std::ofstream out(out_path, std::ios::binary | std::ios::trunc);
  db.exec("BEGIN");
  std::vector<std::string> tables;
  Statement schema(db, "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name");
  while (schema.step()) {
    out << schema.literal(0) << " " << schema.literal(1) << " " << schema.literal(2) << "\n";
    if (schema.literal(0) == "table") tables.push_back(schema.literal(1));
  }
  for (const std::string& table : tables) {
    Statement rows(db, "SELECT * FROM \"" + table + "\" ORDER BY 1, 2");
    while (rows.step()) {
      out << table;
      for (int i = 0; i < rows.columns(); i++) out << "|" << rows.literal(i);
      out << "\n";
    }
  }
  return !out.flush().fail();
}

// sqlite3_serialize reads the pages through the pager: WAL frames and database file, as one snapshot.
bool dump_pages(const std::string& path, const std::string& out_path) {
  Sql db(path, SQLITE_OPEN_READWRITE);
  db.exec("BEGIN");
  db.integer("SELECT count(*) FROM sqlite_schema");
  sqlite3_int64 size = 0;
  unsigned char* bytes = sqlite3_serialize(db.handle(), "main", &size, 0);
  if (!bytes) throw SqlError(SQLITE_IOERR, "cannot read the pages of " + path);
  std::ofstream out(out_path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes), size);
  sqlite3_free(bytes);
  return !out.flush().fail();
}

void run_script(Sql& db, const std::string& script, std::ostream& out) {
  const char* at = script.c_str();
  while (*at) {
    sqlite3_stmt* raw = nullptr;
    const char* tail = nullptr;
    if (sqlite3_prepare_v2(db.handle(), at, -1, &raw, &tail) != SQLITE_OK) {
      throw SqlError(sqlite3_extended_errcode(db.handle()), sqlite3_errmsg(db.handle()));
    }
    sqlite3_finalize(raw);
    if (raw) {
      Statement statement(db, std::string(at, tail));
      while (statement.step()) {
        out << "row ";
        for (int i = 0; i < statement.columns(); i++) {
          out << (i ? "|" : "") << one_line(statement.literal(i));
        }
        out << "\n";
      }
    }
    at = tail;
  }
}

std::string one_line(std::string text) {
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

}  // namespace litefs::test
