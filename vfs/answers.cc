#include "vfs/answers.h"

#include "vfs/sqlite_api.h"

namespace litefs {
namespace {

std::string& refusal() {
  thread_local std::string text;
  return text;
}

}  // namespace

int refuse(int code, const std::string& file, const std::string& why) {
  try {
    refusal() = file + ": " + why;
  } catch (const std::bad_alloc&) {
    // The code is answered all the same.
  }
  sqlite3_log(code, "litefs: %s: %s", file.c_str(), why.c_str());
  return code;
}

std::string last_refusal() { return refusal(); }

int open_code(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kTimedOut:
    case ErrorCode::kBusy: return SQLITE_BUSY;
    case ErrorCode::kReadOnly: return SQLITE_READONLY;
    case ErrorCode::kNoSpace: return SQLITE_FULL;
    default: return SQLITE_CANTOPEN;
  }
}

int io_code(const Error& error, int io_code) { return error.code() == ErrorCode::kNoSpace ? SQLITE_FULL : io_code; }

}  // namespace litefs
