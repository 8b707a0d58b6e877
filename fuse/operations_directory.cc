#include <dirent.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "fuse/errno_table.h"
#include "fuse/operations.h"
#include "fuse/operations_cache.h"

namespace litefs {

namespace {

// Listings carry no attributes and, for names never looked up, no inode number.
constexpr ino_t kUnknownInode = 0xffffffff;

struct DirectoryCloser {
  void operator()(DIR* directory) const { closedir(directory); }
};

}  // namespace

Operations::Listing Operations::list(const std::string& directory) {
  Listing listing;
  listing.directory = directory.empty() ? "" : directory + "/";
  listing.names = {{".", true}, {"..", true}};
  Descriptor fd(openat(parts_.directory, directory.empty() ? "." : directory.c_str(),
                       O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  std::unique_ptr<DIR, DirectoryCloser> stream(fdopendir(fd.get()));
  if (stream) {
    fd.release();
    while (const dirent* entry = ::readdir(stream.get())) {
      std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      struct stat info;
      bool known = entry->d_type != DT_UNKNOWN;
      if (!known && stat_name(listing.directory + name, &info) != 0) continue;
      bool is_directory = known ? entry->d_type == DT_DIR : S_ISDIR(info.st_mode);
      if (known && !is_directory && entry->d_type != DT_REG) continue;
      if (classify(listing.directory + name) != NameClass::kPlain) continue;
      listing.names.emplace_back(std::move(name), is_directory);
    }
  }
  if (directory.empty()) {
    for (std::string& name : parts_.hooks.virtual_names()) {
      listing.names.emplace_back(std::move(name), false);
    }
  }
  return listing;
}

void Operations::opendir(Request request, uint64_t id, fuse_file_info* info) {
  std::string directory;
  if (int error = path_of_directory(id, &directory)) {
    fuse_reply_err(request, error);
    return;
  }
  // Taken once: offsets into it stay right while names come and go, as `rm *` needs it.
  auto names = std::make_shared<const Listing>(list(directory));
  {
    MutexLock lock(mutex_);
    if (listings_.size() < kListingsMax) {
      info->fh = next_listing_++;
      listings_[info->fh] = std::move(names);
    }
  }
  if (info->fh == 0) {
    fuse_reply_err(request, EMFILE);
  } else if (uint64_t listing = info->fh; fuse_reply_open(request, info) != 0) {
    MutexLock lock(mutex_);
    listings_.erase(listing);
  }
}

void Operations::readdir(Request request, size_t size, off_t offset, uint64_t listing) {
  std::shared_ptr<const Listing> names;
  {
    MutexLock lock(mutex_);
    auto it = listings_.find(listing);
    if (it != listings_.end()) names = it->second;
  }
  if (!names) {
    fuse_reply_err(request, EBADF);
    return;
  }
  std::vector<char> buffer(size);
  size_t used = 0;
  for (size_t i = static_cast<size_t>(offset); i < names->names.size(); ++i) {
    const auto& [name, is_directory] = names->names[i];
    struct stat info = {};
    info.st_mode = is_directory ? S_IFDIR : S_IFREG;
    uint64_t id = i < 2 ? 0 : parts_.nodes.id_of(names->directory + name);
    info.st_ino = id ? id : kUnknownInode;
    size_t needed =
        fuse_add_direntry(request, buffer.data() + used, size - used, name.c_str(), &info, static_cast<off_t>(i + 1));
    if (needed > size - used) break;
    used += needed;
  }
  fuse_reply_buf(request, buffer.data(), used);
}

void Operations::releasedir(Request request, uint64_t listing) {
  {
    MutexLock lock(mutex_);
    listings_.erase(listing);
  }
  fuse_reply_err(request, 0);
}

// SQLite syncs the directory after it has made or removed a journal: its transaction is durable
// only then.
void Operations::fsyncdir(Request request, uint64_t id) {
  std::string path;
  int error = path_of_directory(id, &path);
  if (!error) {
    Descriptor fd(
        openat(parts_.directory, path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.valid() || ::fsync(fd.get()) != 0) error = errno;
  }
  fuse_reply_err(request, error);
}

// The maker's, whatever this process runs as and whatever its umask is.
int Operations::make_directory(Request request, const std::string& path, mode_t mode, struct stat* info) {
  switch (classify(path)) {
    case NameClass::kVirtual: return EEXIST;
    case NameClass::kDotted: return EPERM;
    case NameClass::kHidden: return EBUSY;
    case NameClass::kPlain: break;
  }
  if (stat_name(path, info) == 0) return EEXIST;
  Status allowed = parts_.hooks.before_mkdir(path);
  if (!allowed) return errno_of(allowed.error());
  if (mkdirat(parts_.directory, path.c_str(), 0700) != 0) return errno;
  const fuse_ctx* caller = fuse_req_ctx(request);
  Descriptor fd(openat(parts_.directory, path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  bool ok = fd.valid() && fstat(fd.get(), info) == 0;
  // In a set-group-id directory the new one has its group, and that bit, already.
  const mode_t inherited = ok ? info->st_mode & S_ISGID : 0;
  ok = ok && fchown(fd.get(), caller->uid, inherited ? static_cast<gid_t>(-1) : caller->gid) == 0 &&
       fchmod(fd.get(), (mode & 07777) | inherited) == 0 && fstat(fd.get(), info) == 0;
  if (ok) return 0;
  int error = errno;
  unlinkat(parts_.directory, path.c_str(), AT_REMOVEDIR);
  return error;
}

void Operations::mkdir(Request request, uint64_t parent, const std::string& entry, mode_t mode) {
  std::string path;
  struct stat info;
  int error = path_of(parent, entry, &path);
  if (!error) {
    std::shared_ptr<NameState> state = parts_.nodes.name(path);
    MutexLock lock(state->mutex);
    error = make_directory(request, path, mode, &info);
    if (!error) {
      NodeView view = parts_.nodes.look_up(state, info);
      info.st_ino = view.node.id;
      return reply_entry(request, view, info, kCacheSeconds);
    }
  }
  fuse_reply_err(request, error);
}

void Operations::rmdir(Request request, uint64_t parent, const std::string& entry) {
  std::string path;
  int error = path_of(parent, entry, &path);
  if (!error && classify(path) != NameClass::kPlain) error = ENOENT;
  if (!error) {
    Status allowed = parts_.hooks.before_rmdir(path);
    if (!allowed) error = errno_of(allowed.error());
  }
  if (!error) {
    std::shared_ptr<NameState> state = parts_.nodes.name(path);
    MutexLock lock(state->mutex);
    if (unlinkat(parts_.directory, path.c_str(), AT_REMOVEDIR) != 0) {
      error = errno;
    } else {
      parts_.nodes.unlink(*state);
    }
  }
  fuse_reply_err(request, error);
}

}  // namespace litefs
