// An open file of the VFS "litefs": SQLite's own ("unix"), and the database that must know of what is done to it.
//
// Reads, locks, shared memory and mappings go straight to SQLite's own methods. What a forked process does with a file
// of before is an error. Thread rule: SQLite's: one thread at a time for each file.
#pragma once

#include <memory>
#include <optional>

#include "vfs/binding.h"
#include "vfs/sqlite_api.h"

namespace litefs {

// A file control that a database's file alone answers: sets a const char* to the database's name, which lives until the
// file is closed. A number that nobody else takes.
inline constexpr int kControlDatabaseName = 0x4c465301;

// What SQLite hands to every method. Followed by the real file, of the real VFS's szOsFile bytes.
struct VfsFile {
  sqlite3_file base;
  struct State;
  State* state;

  sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};

struct VfsFile::State {
  std::shared_ptr<Binding> binding;
  std::shared_ptr<MemberDoor> door;
  FileName name;
  std::optional<LateClosingFiles::FileId> id{};  // of a database, while it is open
  bool uses_index = false;                       // it may have -shm open
  bool index_told = false;                       // and the door knows
  uint32_t read_locks = 0;                       // of the WAL, held shared: one bit each
  bool commit_follows = false;                   // -wal: a commit frame's page is written next
};

// Of this process, and of those that it was forked from while they were open.
int open_files();

// Takes the place of real files' methods; `file->state` is set and owned by the file from here on.
void begin_shim(VfsFile* file, std::unique_ptr<VfsFile::State> state);

}  // namespace litefs
