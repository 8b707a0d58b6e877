// SQLite's interface, by which the files of vfs/ call SQLite: the library that we are linked with, or, in the loadable
// extension, the one that has loaded it, by the table of routines that it has handed over. That one may be hidden in
// the program, and may be another copy than the system's, so the extension must not be linked with any.
//
// Included in place of <sqlite3.h>, everywhere in vfs/. Thread rule: the table is set before any other code of ours
// runs.
#pragma once

#ifdef LITEFS_SQLITE_EXTENSION
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3
#else
#include <sqlite3.h>
#endif

// sqlite3_initialize(), which the table has not: whoever has handed it over has done it.
inline int initialize_sqlite() {
#ifdef LITEFS_SQLITE_EXTENSION
  return SQLITE_OK;
#else
  return sqlite3_initialize();
#endif
}
