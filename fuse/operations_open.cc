#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "env/file.h"
#include "fuse/errno_table.h"
#include "fuse/operations.h"
#include "fuse/operations_cache.h"
#include "fuse/protocol.h"
#include "sqlite/header.h"

namespace litefs {

namespace {

bool writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY; }

IoMode mode_for(FileKind kind, int fd) {
  switch (kind) {
    case FileKind::kWal:
    case FileKind::kShm: return IoMode::kPassthrough;
    case FileKind::kJournal:
    case FileKind::kSuperJournal: return IoMode::kDirect;
    case FileKind::kDatabase: break;
  }
  std::array<uint8_t, kDatabaseHeaderBytes> bytes;
  if (pread(fd, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return IoMode::kCached;
  }
  Result<DatabaseHeader> header = DatabaseHeader::parse(bytes);
  return header && header.value().is_wal() ? IoMode::kPassthrough : IoMode::kCached;
}

void fill_open_reply(const BackingFile& file, bool keep_cache, OpenReply* reply) {
  // Nothing is ever kept back for close to write.
  reply->open_flags = FOPEN_NOFLUSH;
  switch (file.mode()) {
    case IoMode::kCached:
      if (keep_cache) reply->open_flags |= FOPEN_KEEP_CACHE;
      break;
    case IoMode::kDirect: reply->open_flags |= FOPEN_DIRECT_IO; break;
    case IoMode::kPassthrough:
      reply->open_flags |= kOpenPassthrough;
      reply->backing_id = file.backing_id();
      break;
  }
}

void fill_entry_reply(const struct stat& info, const FileNode& node, fuse_entry_out* reply) {
  reply->nodeid = node.id;
  fuse_attr& attributes = reply->attr;
  attributes.ino = node.id;
  attributes.size = static_cast<uint64_t>(info.st_size);
  attributes.blocks = static_cast<uint64_t>(info.st_blocks);
  attributes.atime = static_cast<uint64_t>(info.st_atim.tv_sec);
  attributes.atimensec = static_cast<uint32_t>(info.st_atim.tv_nsec);
  attributes.mtime = static_cast<uint64_t>(info.st_mtim.tv_sec);
  attributes.mtimensec = static_cast<uint32_t>(info.st_mtim.tv_nsec);
  attributes.ctime = static_cast<uint64_t>(info.st_ctim.tv_sec);
  attributes.ctimensec = static_cast<uint32_t>(info.st_ctim.tv_nsec);
  attributes.mode = info.st_mode;
  attributes.nlink = 1;
  attributes.uid = info.st_uid;
  attributes.gid = info.st_gid;
  attributes.blksize = static_cast<uint32_t>(info.st_blksize);
}

// False: the kernel no longer wants the answer, so it will not send RELEASE or FORGET for it
// either.
template <class Reply>
bool send_reply(fuse_req_t request, const Reply& reply) {
  return fuse_reply_buf(request, reinterpret_cast<const char*>(&reply), sizeof reply) == 0;
}

}  // namespace

void Operations::submit(const OpenRequest& open, const FileName& file, bool create) {
  if (is_own(open.request)) return finish_open(open, Status());
  MountHooks::Opening opening;
  opening.file = file;
  opening.write = writes(open.flags);
  opening.write_only = (open.flags & O_ACCMODE) == O_WRONLY;
  opening.create = create;
  opening.pid = static_cast<uint32_t>(fuse_req_ctx(open.request)->pid);
  parts_.pending.submit(open, [&](PendingOpens::Done done) { parts_.hooks.before_open(opening, std::move(done)); });
}

void Operations::open(Request request, uint64_t id, int flags) {
  std::optional<NodeView> view = parts_.nodes.find(id);
  if (!view) {
    fuse_reply_err(request, id == kRootNode ? EISDIR : ESTALE);
    return;
  }
  if (view->node.is_directory) {
    fuse_reply_err(request, EISDIR);
    return;
  }
  if (view->node.is_virtual) {
    if (writes(flags)) {
      fuse_reply_err(request, EACCES);
      return;
    }
    OpenReply reply = {};
    reply.open_flags = FOPEN_DIRECT_IO | FOPEN_NOFLUSH;
    send_reply(request, reply);
    return;
  }
  OpenRequest open;
  open.request = request;
  open.name = view->node.name->text;
  open.node = id;
  open.flags = flags;
  submit(open, view->node.name->file, false);
}

void Operations::create(Request request, uint64_t parent, const std::string& entry, mode_t mode, int flags) {
  struct stat info;
  std::string name;
  int error = path_of(parent, entry, &name);
  NameClass name_class = error ? NameClass::kPlain : classify(name);
  if (error) {
    // The directory has gone.
  } else if (name_class == NameClass::kVirtual) {
    error = EACCES;
  } else if (name_class == NameClass::kDotted) {
    error = EPERM;
  } else if (name_class == NameClass::kHidden && !is_own(request)) {
    error = EBUSY;
  } else if (stat_name(name, &info) == 0) {
    // Made behind the kernel, which remembers that there was none: ESTALE has it look again, and
    // open.
    error = flags & O_EXCL ? EEXIST : ESTALE;
  }
  if (error) {
    fuse_reply_err(request, error);
    return;
  }
  const fuse_ctx* caller = fuse_req_ctx(request);
  OpenRequest open;
  open.request = request;
  open.name = name;
  open.flags = flags;
  open.mode = mode;
  open.uid = caller->uid;
  open.gid = caller->gid;
  submit(open, FileName::parse(name), true);
}

void Operations::finish_open(const OpenRequest& open, const Status& admitted) {
  if (!admitted) {
    FileKind kind = FileName::parse(open.name).kind;
    fuse_reply_err(open.request, open_errno_of(admitted.error(), kind));
    return;
  }
  if (open.node != 0) {
    OpenReply reply = {};
    int error = open_node(open, &reply);
    if (error) {
      fuse_reply_err(open.request, error);
    } else if (!send_reply(open.request, reply)) {
      close_one(open.node);
    }
    return;
  }
  CreateReply reply = {};
  uint64_t id = 0;
  int error = create_node(open, &reply, &id);
  if (error) {
    fuse_reply_err(open.request, error);
  } else if (!send_reply(open.request, reply)) {
    close_one(id);
    forget(id, 1);
  }
}

int Operations::open_node(const OpenRequest& open, OpenReply* reply) {
  std::optional<NodeView> view = parts_.nodes.find(open.node);
  if (!view) return ESTALE;
  NameState& name = *view->node.name;
  MutexLock lock(name.mutex);
  // Again: it may have been unlinked or opened until now.
  view = parts_.nodes.find(open.node);
  // Or renamed: then it was decided on under another name.
  if (!view || view->node.name.get() != &name) return ESTALE;
  return open_locked(name, *view, writes(open.flags), reply);
}

int Operations::create_node(const OpenRequest& open, CreateReply* reply, uint64_t* id) {
  std::shared_ptr<NameState> name = parts_.nodes.name(open.name);
  MutexLock lock(name->mutex);
  struct stat info;
  int error = make_file(open, &info);
  if (error) return error;
  NodeView view = parts_.nodes.look_up(name, info);
  *id = view.node.id;
  const bool passes = name->file.kind == FileKind::kJournal && parts_.hooks.may_pass_through(name->file);
  if (passes) error = open_backing(view, IoMode::kPassthrough, &view.file);
  if (!error) error = open_locked(*name, view, writes(open.flags), &reply->open);
  if (error) {
    forget(*id, 1);
    return error;
  }
  fill_entry_reply(info, view.node, &reply->entry);
  reply->entry.entry_valid = parts_.hooks.is_visible(name->file) ? static_cast<uint64_t>(kCacheSeconds) : 0;
  reply->entry.attr_valid = static_cast<uint64_t>(attribute_timeout_s(view.node));
  return 0;
}

// The creator's, whatever this process runs as and whatever its umask is.
int Operations::make_file(const OpenRequest& open, struct stat* info) {
  Descriptor fd(openat(parts_.directory, open.name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return errno == EEXIST && !(open.flags & O_EXCL) ? ESTALE : errno;
  struct stat directory;
  const size_t slash = open.name.rfind('/');
  const std::string above = slash == std::string::npos ? "." : open.name.substr(0, slash);
  bool ok = fstatat(parts_.directory, above.c_str(), &directory, AT_SYMLINK_NOFOLLOW) == 0;
  // In a set-group-id directory the file has the directory's group already.
  gid_t gid = ok && (directory.st_mode & S_ISGID) ? static_cast<gid_t>(-1) : open.gid;
  ok = ok && fchown(fd.get(), open.uid, gid) == 0 && fchmod(fd.get(), open.mode & 07777) == 0 &&
       fstat(fd.get(), info) == 0;
  if (ok) return 0;
  int error = errno;
  unlinkat(parts_.directory, open.name.c_str(), 0);
  return error;
}

int Operations::open_locked(NameState& name, NodeView view, bool write, OpenReply* reply) {
  if (!view.file) {
    if (view.unlinked) return ESTALE;
    int error = open_backing(view, std::nullopt, &view.file);
    if (error) return error;
  }
  std::optional<bool> keep_cache = parts_.nodes.add_open(view.node.id, view.file);
  if (!keep_cache) return ESTALE;
  if (!view.is_deleted_database()) {
    ++name.open_files;
    parts_.hooks.opened(name.file, {.write = write, .passed_through = view.file->mode() == IoMode::kPassthrough});
  }
  fill_open_reply(*view.file, *keep_cache, reply);
  return 0;
}

int Operations::open_backing(const NodeView& view, std::optional<IoMode> wanted,
                             std::shared_ptr<const BackingFile>* file) {
  const NameState& name = *view.node.name;
  // Read-write whatever the application wants: others will open it through the same descriptor and
  // id.
  Descriptor fd(openat(parts_.directory, name.text.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat info;
  if (!fd.valid() || fstat(fd.get(), &info) != 0) return errno == ENOENT ? ESTALE : errno;
  if (FileIdentity::of(info) != view.node.identity) return ESTALE;

  IoMode mode = wanted ? *wanted : mode_for(name.file.kind, fd.get());
  int id = 0;
  if (mode == IoMode::kPassthrough) {
    id = device_->register_backing(fd.get());
    if (id < 0) {
      parts_.log.error("a file cannot be passed through").kv("file", name.text).kv("reason", errno_text(-id));
      return EIO;
    }
  }
  *file = std::make_shared<const BackingFile>(std::move(fd), mode, *device_, id);
  return 0;
}

void Operations::release(Request request, uint64_t id) {
  close_one(id);
  fuse_reply_err(request, 0);
}

void Operations::close_one(uint64_t id) {
  std::optional<NodeView> view = parts_.nodes.find(id);
  if (!view || view->node.is_virtual) return;
  NameState& name = *view->node.name;
  MutexLock lock(name.mutex);
  view = parts_.nodes.find(id);  // it may have been unlinked until now
  if (!view) return;
  view->file = nullptr;  // so that it is closed before the hooks hear of it
  if (parts_.nodes.remove_open(id) && !view->is_deleted_database() && --name.open_files == 0) {
    parts_.hooks.closed(name.file);
    name.closed.notify_all();
  }
}

void Operations::read_virtual(Request request, const FileNode& node, size_t size, off_t offset) {
  Result<std::optional<std::string>> content = parts_.hooks.virtual_file(node.name->text);
  if (!content) {
    fuse_reply_err(request, errno_of(content.error()));
    return;
  }
  const std::string text = content.value().value_or("");
  size_t from = std::min(static_cast<size_t>(offset), text.size());
  fuse_reply_buf(request, text.data() + from, std::min(size, text.size() - from));
}

void Operations::read(Request request, uint64_t id, size_t size, off_t offset) {
  std::optional<NodeView> view = parts_.nodes.find(id);
  if (view && view->node.is_virtual) return read_virtual(request, view->node, size, offset);
  if (!view || !view->file) {
    fuse_reply_err(request, EBADF);
    return;
  }
  auto buffer = std::make_unique_for_overwrite<char[]>(size);
  ssize_t n = pread(view->file->fd(), buffer.get(), size, offset);
  if (n < 0) {
    fuse_reply_err(request, errno);
  } else {
    fuse_reply_buf(request, buffer.get(), static_cast<size_t>(n));
  }
}

void Operations::write(Request request, uint64_t id, ByteView data, off_t offset) {
  std::optional<NodeView> view = parts_.nodes.find(id);
  if (!view || !view->file) {
    fuse_reply_err(request, EBADF);
    return;
  }
  const FileName& file = view->node.name->file;
  // A journal that is unlinked is nobody's any more, and the name's next one tells of the database.
  const bool is_void = view->is_deleted_database() || (view->unlinked && file.kind == FileKind::kJournal);
  Status allowed = is_void ? Status() : parts_.hooks.before_write(file, static_cast<uint64_t>(offset), data);
  if (!allowed) {
    fuse_reply_err(request, errno_of(allowed.error()));
    return;
  }
  size_t done = 0;
  while (done < data.size()) {
    ssize_t n = pwrite(view->file->fd(), data.data() + done, data.size() - done, offset + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && done == 0) {
      fuse_reply_err(request, errno);
      return;
    }
    // A short count tells the application that the rest did not fit.
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  fuse_reply_write(request, done);
}

void Operations::fsync(Request request, uint64_t id, bool data_only) {
  std::optional<NodeView> view = parts_.nodes.find(id);
  if (!view || !view->file) {
    fuse_reply_err(request, EBADF);
    return;
  }
  const FileName& file = view->node.name->file;
  const bool is_void = view->is_deleted_database();
  Status allowed = is_void ? Status() : parts_.hooks.before_sync(file);
  if (!allowed) {
    fuse_reply_err(request, errno_of(allowed.error()));
    return;
  }
  int fd = view->file->fd();
  int error = (data_only ? fdatasync(fd) : ::fsync(fd)) == 0 ? 0 : errno;
  Status synced;
  if (error) synced = errno_error(error, "syncing " + view->node.name->text);
  if (!is_void) parts_.hooks.after_sync(file, synced);
  fuse_reply_err(request, error);
}

}  // namespace litefs
