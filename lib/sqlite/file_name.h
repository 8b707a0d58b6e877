// What SQLite calls the files that belong to a database.
//
// Source: sqlite3PagerOpen (-journal, -wal), unixOpenSharedMemory (-shm), and vdbeCommit, which makes a super-journal
// beside the *main* database of a connection, named by "-mj%06X9%02X" after it. Thread rule: plain values.
#pragma once

#include <string>

namespace litefs {

enum class FileKind { kDatabase, kJournal, kWal, kShm, kSuperJournal };

// "NAME-wal" → (NAME, kWal) and so on; any other name is a database's.
struct FileName {
  std::string database;
  FileKind kind = FileKind::kDatabase;
  std::string super_journal_suffix = {};  // "-mj0123459AB"; empty for every other kind

  static FileName parse(const std::string& name);
  std::string text() const;
};

}  // namespace litefs
