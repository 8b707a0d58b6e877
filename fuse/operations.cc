#include "fuse/operations.h"

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "fuse/errno_table.h"
#include "fuse/operations_cache.h"
#include "sqlite/journal.h"

namespace litefs {

namespace {

// By far more than a database's name may have.
constexpr size_t kPathBytesMax = 4000;

}  // namespace

void Operations::init(void*, fuse_conn_info* connection) {
  // AUTO_INVAL_DATA drops cached pages by mtime, under which SQLite's readers see wrong pages.
  // Without ATOMIC_O_TRUNC a truncating open comes as SETATTR after OPEN: one place for the hooks
  // of a truncation. Locks stay local.
  connection->want &= ~(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_WRITEBACK_CACHE |
                        FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS |
                        FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
  connection->want |= connection->capable & FUSE_CAP_EXPLICIT_INVAL_DATA;
  connection->max_write = kWriteBytesMax;
  connection->max_background = 64;
  connection->congestion_threshold = 48;
}

bool Operations::is_own(Request request) const { return fuse_req_ctx(request)->pid == parts_.own_client; }

Operations::NameClass Operations::classify(const std::string& path) {
  if (parts_.hooks.is_virtual_name(path)) return NameClass::kVirtual;
  // The directories on the way have been looked up, so they have no dot in front.
  const size_t slash = path.rfind('/');
  if (path[slash == std::string::npos ? 0 : slash + 1] == '.') return NameClass::kDotted;
  return parts_.hooks.is_visible(FileName::parse(path)) ? NameClass::kPlain : NameClass::kHidden;
}

int Operations::path_of_directory(uint64_t id, std::string* path) {
  path->clear();
  if (id == kRootNode) return 0;
  std::optional<NodeView> view = parts_.nodes.find(id);
  if (!view) return ESTALE;
  if (!view->node.is_directory) return ENOTDIR;
  if (view->unlinked) return ENOENT;
  *path = view->node.name->text;
  return 0;
}

int Operations::path_of(uint64_t parent, const std::string& name, std::string* path) {
  if (int error = path_of_directory(parent, path)) return error;
  if (!path->empty()) *path += '/';
  *path += name;
  return path->size() > kPathBytesMax ? ENAMETOOLONG : 0;
}

int Operations::stat_name(const std::string& path, struct stat* info) {
  if (fstatat(parts_.directory, path.c_str(), info, AT_SYMLINK_NOFOLLOW) != 0) return errno;
  // Whatever else lies in the data directory is no application's business.
  return S_ISREG(info->st_mode) || S_ISDIR(info->st_mode) ? 0 : ENOENT;
}

int Operations::stat_file(const std::string& path, struct stat* info) {
  int error = stat_name(path, info);
  return !error && S_ISDIR(info->st_mode) ? EISDIR : error;
}

int Operations::virtual_attributes(const FileNode& node, struct stat* info) {
  Result<std::optional<std::string>> content = parts_.hooks.virtual_file(node.name->text);
  if (!content) return errno_of(content.error());
  if (!content.value()) return ENOENT;
  // Owner and times are the data directory's.
  if (fstat(parts_.directory, info) != 0) return errno;
  info->st_ino = node.id;
  info->st_mode = S_IFREG | 0444;
  info->st_nlink = 1;
  info->st_size = static_cast<off_t>(content.value()->size());
  info->st_blocks = 0;
  return 0;
}

int Operations::attributes(const NodeView& view, struct stat* info) {
  if (view.node.is_virtual) return virtual_attributes(view.node, info);
  if (view.file) {
    if (fstat(view.file->fd(), info) != 0) return errno;
  } else {
    // ESTALE makes the kernel look the name up again.
    if (view.unlinked) return ESTALE;
    int error = stat_name(view.node.name->text, info);
    if (error == ENOENT) return ESTALE;
    if (error) return error;
    if (FileIdentity::of(*info) != view.node.identity) return ESTALE;
  }
  info->st_ino = view.node.id;
  if (!view.node.is_directory) info->st_nlink = view.unlinked ? 0 : 1;
  return 0;
}

// Whether a transaction may have changed the database that is not at its end.
bool Operations::in_transaction(const std::string& database) {
  Descriptor journal(openat(parts_.directory, (database + "-journal").c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  uint8_t first = 0;
  const ssize_t n = journal.valid() ? pread(journal.get(), &first, sizeof first, 0) : 0;
  return n > 0 && journal_is_hot(ByteView(&first, sizeof first));
}

double Operations::attribute_timeout_s(const FileNode& node) {
  if (node.is_virtual) return 0;
  if (node.is_directory) return kCacheSeconds;
  const FileName& file = node.name->file;
  // The kernel and the node write the real files.
  if (file.kind == FileKind::kWal || file.kind == FileKind::kShm) return 0;
  if (!parts_.hooks.is_settled(file)) return 0;
  return file.kind == FileKind::kDatabase && in_transaction(node.name->text) ? 0 : kCacheSeconds;
}

void Operations::reply_no_entry(Request request, double timeout_s) {
  fuse_entry_param entry = {};
  entry.entry_timeout = timeout_s;
  fuse_reply_entry(request, &entry);
}

void Operations::reply_entry(Request request, const NodeView& view, const struct stat& info, double entry_timeout_s) {
  fuse_entry_param entry = {};
  entry.ino = view.node.id;
  entry.attr = info;
  entry.attr_timeout = attribute_timeout_s(view.node);
  entry.entry_timeout = entry_timeout_s;
  if (fuse_reply_entry(request, &entry) != 0) forget(view.node.id, 1);
}

void Operations::lookup_virtual(Request request, const std::string& name) {
  NodeView view = parts_.nodes.look_up_virtual(name);
  struct stat info;
  int error = virtual_attributes(view.node, &info);
  if (error == 0) return reply_entry(request, view, info, 0);
  forget(view.node.id, 1);
  if (error == ENOENT) return reply_no_entry(request, 0);
  fuse_reply_err(request, error);
}

void Operations::lookup(Request request, uint64_t parent, const std::string& entry) {
  std::string name;
  if (int error = path_of(parent, entry, &name)) {
    fuse_reply_err(request, error);
    return;
  }
  // A name that the node alone may see is not left in the kernel's cache, where applications would
  // find it.
  double timeout_s = kCacheSeconds;
  switch (classify(name)) {
    case NameClass::kVirtual: return lookup_virtual(request, name);
    case NameClass::kDotted: return reply_no_entry(request, kCacheSeconds);
    case NameClass::kHidden:
      if (!is_own(request)) return reply_no_entry(request, 0);
      timeout_s = 0;
      break;
    case NameClass::kPlain: break;
  }
  struct stat info;
  int error = stat_name(name, &info);
  if (error == 0) {
    std::shared_ptr<NameState> state = parts_.nodes.name(name);
    MutexLock lock(state->mutex);
    // Again, now that nobody makes or removes the name.
    error = stat_name(name, &info);
    if (error == 0) {
      NodeView view = parts_.nodes.look_up(state, info);
      info.st_ino = view.node.id;
      if (!view.node.is_directory) info.st_nlink = 1;
      return reply_entry(request, view, info, timeout_s);
    }
  }
  if (error == ENOENT) return reply_no_entry(request, timeout_s);
  fuse_reply_err(request, error);
}

void Operations::getattr(Request request, uint64_t id) {
  struct stat info;
  if (id == kRootNode) {
    if (fstat(parts_.directory, &info) != 0) {
      fuse_reply_err(request, errno);
      return;
    }
    info.st_ino = kRootNode;
    fuse_reply_attr(request, &info, kCacheSeconds);
    return;
  }
  std::optional<NodeView> view = parts_.nodes.find(id);
  int error = view ? attributes(*view, &info) : ESTALE;
  if (error) {
    fuse_reply_err(request, error);
  } else {
    fuse_reply_attr(request, &info, attribute_timeout_s(view->node));
  }
}

int Operations::change_attributes(const NodeView& view, const struct stat& wanted, int which) {
  Descriptor opened;
  int fd = view.file ? view.file->fd() : -1;
  if (fd < 0) {
    if (view.unlinked) return ESTALE;
    const int flags = view.node.is_directory ? O_RDONLY | O_DIRECTORY : O_RDWR | O_NONBLOCK;
    opened = Descriptor(openat(parts_.directory, view.node.name->text.c_str(), flags | O_NOFOLLOW | O_CLOEXEC));
    fd = opened.get();
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0) return errno == ENOENT ? ESTALE : errno;
    if (FileIdentity::of(info) != view.node.identity) return ESTALE;
  }
  if ((which & FUSE_SET_ATTR_SIZE) && view.node.is_directory) return EISDIR;
  if (which & FUSE_SET_ATTR_SIZE) {
    Status allowed;
    if (!view.is_deleted_database()) {
      allowed = parts_.hooks.before_resize(view.node.name->file, static_cast<uint64_t>(wanted.st_size));
    }
    if (!allowed) return errno_of(allowed.error());
    if (ftruncate(fd, wanted.st_size) != 0) return errno;
  }
  if (which & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) {
    uid_t uid = which & FUSE_SET_ATTR_UID ? wanted.st_uid : static_cast<uid_t>(-1);
    gid_t gid = which & FUSE_SET_ATTR_GID ? wanted.st_gid : static_cast<gid_t>(-1);
    if (fchown(fd, uid, gid) != 0) return errno;
  }
  // After the owner, as changing that clears the set-id bits.
  if ((which & FUSE_SET_ATTR_MODE) && fchmod(fd, wanted.st_mode & 07777) != 0) return errno;
  if (which & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME)) {
    timespec times[2] = {wanted.st_atim, wanted.st_mtim};
    if (!(which & FUSE_SET_ATTR_ATIME)) times[0].tv_nsec = UTIME_OMIT;
    if (!(which & FUSE_SET_ATTR_MTIME)) times[1].tv_nsec = UTIME_OMIT;
    if (which & FUSE_SET_ATTR_ATIME_NOW) times[0].tv_nsec = UTIME_NOW;
    if (which & FUSE_SET_ATTR_MTIME_NOW) times[1].tv_nsec = UTIME_NOW;
    if (futimens(fd, times) != 0) return errno;
  }
  return 0;
}

void Operations::setattr(Request request, uint64_t id, const struct stat& wanted, int which) {
  std::optional<NodeView> view = parts_.nodes.find(id);
  int error = 0;
  if (id == kRootNode) {
    error = EPERM;
  } else if (!view) {
    error = ESTALE;
  } else if (view->node.is_virtual) {
    error = EACCES;
  } else {
    error = change_attributes(*view, wanted, which);
  }
  struct stat info;
  if (!error) error = attributes(*view, &info);
  if (error) {
    fuse_reply_err(request, error);
  } else {
    fuse_reply_attr(request, &info, attribute_timeout_s(view->node));
  }
}

void Operations::unlink(Request request, uint64_t parent, const std::string& entry) {
  struct stat info;
  std::string name;
  int error = path_of(parent, entry, &name);
  if (!error) {
    switch (classify(name)) {
      case NameClass::kVirtual: error = EACCES; break;
      case NameClass::kPlain: error = stat_file(name, &info); break;
      case NameClass::kDotted:
      case NameClass::kHidden: error = ENOENT; break;
    }
  }
  if (error) {
    fuse_reply_err(request, error);
    return;
  }
  std::shared_ptr<NameState> state = parts_.nodes.name(name);
  Status allowed = parts_.hooks.before_unlink(state->file);
  if (!allowed) {
    fuse_reply_err(request, errno_of(allowed.error()));
    return;
  }
  {
    // No OPEN of the old node may find the real file of a new one under this name.
    MutexLock lock(state->mutex);
    if (unlinkat(parts_.directory, name.c_str(), 0) != 0) {
      error = errno;
    } else {
      parts_.nodes.unlink(*state);
    }
  }
  if (!error) parts_.hooks.after_unlink(state->file);
  fuse_reply_err(request, error);
}

void Operations::statfs(Request request) {
  struct statvfs info;
  if (fstatvfs(parts_.directory, &info) != 0) {
    fuse_reply_err(request, errno);
  } else {
    fuse_reply_statfs(request, &info);
  }
}

}  // namespace litefs
