// The one table from our errors to what an application gets from a system call on the mount.
//
// What SQLite makes of them (FUSE.md, section 4): a refused write, truncation, sync or unlink is
// the matching SQLITE_IOERR whatever the errno, except ENOSPC, which is SQLITE_FULL; a refused open
// is SQLITE_CANTOPEN, except that a database refused for writing is tried again read-only. Thread
// rule: pure functions.
#pragma once

#include "base/result.h"
#include "fuse/hooks.h"

namespace litefs {

int errno_of(const Error& error);

// For OPEN and CREATE: kReadOnly on a rollback journal is EACCES, which SQLite's unixOpen takes for
// "the directory is read-only" and reports as SQLITE_READONLY instead of SQLITE_CANTOPEN.
int open_errno_of(const Error& error, FileKind kind);

}  // namespace litefs
