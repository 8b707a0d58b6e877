#include "vfs/answers.h"

#include <sqlite3.h>

namespace litefs {

int refuse(int code, const std::string& file, const std::string& why) {
  sqlite3_log(code, "litefs: %s: %s", file.c_str(), why.c_str());
  return code;
}

int open_code(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kBusy: return SQLITE_BUSY;
    case ErrorCode::kReadOnly: return SQLITE_READONLY;
    case ErrorCode::kNoSpace: return SQLITE_FULL;
    default: return SQLITE_CANTOPEN;
  }
}

int io_code(const Error& error, int io_code) { return error.code() == ErrorCode::kNoSpace ? SQLITE_FULL : io_code; }

}  // namespace litefs
