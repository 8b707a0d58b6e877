#include "fuse/errno_table.h"

#include <cerrno>

namespace litefs {

int errno_of(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kNotFound: return ENOENT;
    case ErrorCode::kExists: return EEXIST;
    case ErrorCode::kInvalid: return EINVAL;
    case ErrorCode::kBusy: return EBUSY;
    case ErrorCode::kNoSpace: return ENOSPC;
    case ErrorCode::kReadOnly: return EROFS;
    case ErrorCode::kUnsupported: return EOPNOTSUPP;
    case ErrorCode::kCancelled: return ESHUTDOWN;
    case ErrorCode::kIo:
    case ErrorCode::kCorrupt:
    case ErrorCode::kUnavailable:
    case ErrorCode::kDiverged:
    case ErrorCode::kTimedOut: return EIO;
  }
  return EIO;
}

int open_errno_of(const Error& error, FileKind kind) {
  if (error.code() == ErrorCode::kReadOnly && (kind == FileKind::kJournal || kind == FileKind::kSuperJournal)) {
    return EACCES;
  }
  return errno_of(error);
}

}  // namespace litefs
