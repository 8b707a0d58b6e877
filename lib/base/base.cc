#include <cstdio>
#include <cstdlib>

#include "base/check.h"
#include "base/result.h"

namespace litefs {

void check_failed(const char* file, int line, const char* condition, const std::string& values) {
  std::fprintf(stderr, "litefs: bug at %s:%d: CHECK(%s) failed%s%s\n", file, line, condition,
               values.empty() ? "" : ": ", values.c_str());
  std::abort();
}

const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kIo: return "io";
    case ErrorCode::kCorrupt: return "corrupt";
    case ErrorCode::kNotFound: return "not found";
    case ErrorCode::kExists: return "exists";
    case ErrorCode::kInvalid: return "invalid";
    case ErrorCode::kBusy: return "busy";
    case ErrorCode::kNoSpace: return "no space";
    case ErrorCode::kReadOnly: return "read only";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kUnavailable: return "unavailable";
    case ErrorCode::kDiverged: return "diverged";
    case ErrorCode::kTimedOut: return "timed out";
    case ErrorCode::kCancelled: return "cancelled";
  }
  return "unknown";
}

}  // namespace litefs
