// What applications of the tests say of a database's content, and how they run SQL for a test. Thread rule: one thread
// a connection.
#pragma once

#include <ostream>
#include <string>

#include "system/sql.h"

namespace litefs::test {

// Writes every table's rows in a fixed order. False: `out_path` cannot be written.
bool dump_rows(const std::string& path, const std::string& out_path);
// Writes the database's pages as SQLite sees them, as one snapshot.
bool dump_pages(const std::string& path, const std::string& out_path);

// Runs each statement of a script and prints its rows, as "row VALUE|VALUE…" lines.
void run_script(Sql& db, const std::string& script, std::ostream& out);
// Without line ends.
std::string one_line(std::string text);

}  // namespace litefs::test
