// SQLite's result codes for our errors, and where their sentences go: to sqlite3_log, as a VFS has no other way to say
// more than a number. And to whoever asks afterwards on the same thread. Thread rule: any thread.
#pragma once

#include <string>

#include "base/result.h"

namespace litefs {

// Logs "litefs: FILE: why" under this code, and answers it.
int refuse(int code, const std::string& file, const std::string& why);

// "FILE: why" of this thread's last refusal; empty where there has been none.
std::string last_refusal();

// What an open that is refused answers: SQLITE_BUSY where trying later may help, SQLITE_READONLY, SQLITE_FULL, else
// SQLITE_CANTOPEN.
int open_code(const Error& error);
// What any other method answers: SQLITE_FULL where there is no room, else `io_code`, by which SQLite takes the
// transaction back.
int io_code(const Error& error, int io_code);

}  // namespace litefs
