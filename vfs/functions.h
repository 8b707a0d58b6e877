// The SQL functions and tables that tell of the node: litefs/litefs.h, sqlite3_litefs_functions. They ask the C
// interface alone. Thread rule: SQLite's, for the connection.
#pragma once

struct sqlite3;

namespace litefs {

// An SQLite result.
int add_functions(sqlite3* db);
// Its tables (vfs/tables.cc).
int add_tables(sqlite3* db);

}  // namespace litefs
