#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>

#include "fuse/errno_table.h"
#include "fuse/operations.h"

namespace litefs {

namespace {

// The kernel tells of a close a moment after it, and `mv` often follows at once. Short, as the
// kernel has the directory locked meanwhile.
constexpr std::chrono::milliseconds kCloseMax{100};

bool wait_closed(NameState& name) REQUIRES(name.mutex) {
  Deadline deadline = deadline_in(kCloseMax);
  while (name.open_files != 0) {
    if (!name.closed.wait_until(name.mutex, deadline)) return name.open_files == 0;
  }
  return true;
}

}  // namespace

int Operations::check_closed(NameState& database) {
  if (!wait_closed(database)) return EBUSY;
  for (FileKind kind : {FileKind::kWal, FileKind::kShm, FileKind::kJournal}) {
    const std::string companion = FileName{database.file.database, kind}.text();
    struct stat info;
    int error = stat_name(companion, &info);
    if (error == 0) return EBUSY;
    if (error != ENOENT) return error;
    std::shared_ptr<NameState> state = parts_.nodes.name(companion);
    MutexLock lock(state->mutex);
    if (!wait_closed(*state)) return EBUSY;
  }
  return 0;
}

int Operations::rename_file(const RenameRequest& rename) {
  if (rename.flags & ~static_cast<unsigned>(RENAME_NOREPLACE)) return EINVAL;
  std::string old_path, new_path;
  if (int error = path_of(rename.parent, rename.name, &old_path)) return error;
  if (int error = path_of(rename.new_parent, rename.new_name, &new_path)) return error;
  switch (classify(old_path)) {
    case NameClass::kVirtual: return EACCES;
    case NameClass::kDotted:
    case NameClass::kHidden: return ENOENT;
    case NameClass::kPlain: break;
  }
  switch (classify(new_path)) {
    case NameClass::kVirtual: return EACCES;
    case NameClass::kDotted: return EPERM;
    case NameClass::kHidden: return EBUSY;
    case NameClass::kPlain: break;
  }
  std::shared_ptr<NameState> from = parts_.nodes.name(old_path);
  std::shared_ptr<NameState> to = parts_.nodes.name(new_path);
  MountHooks::Renaming renaming{from->file, to->file};
  if (from->file.kind != FileKind::kDatabase || to->file.kind != FileKind::kDatabase) return EPERM;
  struct stat info;
  if (int error = stat_file(old_path, &info)) return error == EISDIR ? EPERM : error;
  renaming.exists = stat_name(new_path, &info) == 0;
  {
    // No OPEN of the old name comes in between. Names are made and removed under the lock of the
    // directory, which the kernel holds.
    MutexLock lock(from->mutex);
    Status allowed = parts_.hooks.may_rename(renaming);
    if (!allowed) return errno_of(allowed.error());
    if (int error = check_closed(*from)) return error;
    allowed = parts_.hooks.before_rename(renaming);
    if (!allowed) return errno_of(allowed.error());
    if (renameat(parts_.directory, old_path.c_str(), parts_.directory, new_path.c_str()) != 0) {
      return errno;
    }
    parts_.nodes.rename(*from, to);
  }
  parts_.hooks.after_rename(renaming);
  return 0;
}

void Operations::rename(Request request, const RenameRequest& rename) { fuse_reply_err(request, rename_file(rename)); }

}  // namespace litefs
