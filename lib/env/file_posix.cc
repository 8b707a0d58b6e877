#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "env/file.h"
#include "env/owned_descriptor.h"

namespace litefs {

std::string errno_text(int error) {
  char buffer[128];
  return strerror_r(error, buffer, sizeof buffer);
}

Error errno_error(int error, const std::string& what) {
  ErrorCode code = ErrorCode::kIo;
  switch (error) {
    case ENOENT: code = ErrorCode::kNotFound; break;
    case EEXIST: code = ErrorCode::kExists; break;
    case ENOSPC:
    case EDQUOT: code = ErrorCode::kNoSpace; break;
    case EROFS:
    case EACCES:
    case EPERM: code = ErrorCode::kReadOnly; break;
    case EBUSY: code = ErrorCode::kBusy; break;
    default: break;
  }
  const char* hint = error == EMFILE ? " in this process (its limit is the hard one of 'ulimit -Hn': raise that)" : "";
  return Error(code, what + ": " + errno_text(error) + hint);
}

std::string directory_of(const std::string& path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

namespace {

template <class F>
auto retry_on_signal(F call) {
  decltype(call()) rc;
  do rc = call();
  while (rc < 0 && errno == EINTR);
  return rc;
}

FileInfo to_info(const struct stat& st) {
  FileInfo info;
  info.size_bytes = static_cast<uint64_t>(st.st_size);
  info.inode = st.st_ino;
  info.device = st.st_dev;
  info.mtime_ns = st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec;
  info.ctime_ns = st.st_ctim.tv_sec * 1000000000LL + st.st_ctim.tv_nsec;
  info.mode = st.st_mode;
  info.uid = st.st_uid;
  info.gid = st.st_gid;
  info.links = static_cast<uint32_t>(st.st_nlink);
  return info;
}

class PosixMapping final : public Mapping {
 public:
  PosixMapping(void* data, size_t size, std::string path)
      : data_(data), size_(size), path_(std::move(path)), generation_(fork_generation()) {}
  PosixMapping(const PosixMapping&) = delete;
  PosixMapping& operator=(const PosixMapping&) = delete;
  ~PosixMapping() override {
    // A forked process does not have it, and may have another one there.
    if (generation_ == fork_generation()) munmap(data_, size_);
  }

  uint8_t* data() override { return static_cast<uint8_t*>(data_); }
  size_t size() const override { return size_; }
  Status sync() override {
    if (msync(data_, size_, MS_SYNC) != 0) return errno_error(errno, "sync mapping of " + path_);
    return {};
  }

 private:
  void* data_;
  size_t size_;
  std::string path_;
  const uint32_t generation_;
};

class PosixFile final : public File {
 public:
  PosixFile(OwnedDescriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  Result<size_t> read_at(uint64_t offset_bytes, MutableByteView out) override {
    size_t done = 0;
    while (done < out.size()) {
      ssize_t n = retry_on_signal([&] {
        return pread(fd_.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset_bytes + done));
      });
      if (n < 0) return errno_error(errno, "read " + path_);
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    return done;
  }

  Status write_at(uint64_t offset_bytes, ByteView data) override {
    size_t done = 0;
    while (done < data.size()) {
      ssize_t n = retry_on_signal([&] {
        return pwrite(fd_.get(), data.data() + done, data.size() - done, static_cast<off_t>(offset_bytes + done));
      });
      if (n < 0) return errno_error(errno, "write " + path_);
      done += static_cast<size_t>(n);
    }
    return {};
  }

  Status truncate(uint64_t size_bytes) override {
    if (retry_on_signal([&] { return ftruncate(fd_.get(), static_cast<off_t>(size_bytes)); }) != 0) {
      return errno_error(errno, "truncate " + path_);
    }
    return {};
  }

  Status allocate(uint64_t offset_bytes, uint64_t size_bytes) override {
    const uint64_t size_before = TRY(info()).size_bytes;
    Status allocated;
    if (retry_on_signal([&] {
          return fallocate(fd_.get(), 0, static_cast<off_t>(offset_bytes), static_cast<off_t>(size_bytes));
        }) != 0) {
      const bool cannot = errno == EOPNOTSUPP || errno == ENOSYS;
      allocated = cannot ? rewrite(offset_bytes, size_bytes) : Status(errno_error(errno, "make room in " + path_));
    }
    // A file system that ran out in the middle has let the file grow up to there.
    if (!allocated.ok() && TRY(info()).size_bytes > size_before) TRY(truncate(size_before));
    return allocated;
  }

  Status clone_from(File& source) override {
    if (retry_on_signal([&] { return ioctl(fd_.get(), FICLONE, source.fd()); }) == 0) return {};
    Error error = errno_error(errno, "clone " + source.path() + " to " + path_);
    bool cannot = errno == EOPNOTSUPP || errno == ENOTTY || errno == EXDEV || errno == EINVAL || errno == ENOSYS;
    return cannot ? Error(ErrorCode::kUnsupported, error.message()) : error;
  }

  Status sync() override {
    if (retry_on_signal([&] { return fdatasync(fd_.get()); }) != 0) return errno_error(errno, "sync " + path_);
    return {};
  }

  Result<FileInfo> info() override {
    struct stat st;
    if (fstat(fd_.get(), &st) != 0) return errno_error(errno, "stat " + path_);
    return to_info(st);
  }

  Result<std::unique_ptr<Mapping>> map(uint64_t offset_bytes, size_t size, bool writable) override {
    void* p = mmap(nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd_.get(),
                   static_cast<off_t>(offset_bytes));
    if (p == MAP_FAILED) return errno_error(errno, "map " + path_);
    // A mapping keeps the file open, with its locks: a forked process must not have one (owned_descriptor.h).
    if (madvise(p, size, MADV_DONTFORK) != 0) {
      const int error = errno;
      munmap(p, size);
      return errno_error(error, "keep a mapping of " + path_ + " from forked processes");
    }
    return std::unique_ptr<Mapping>(new PosixMapping(p, size, path_));
  }

  Status try_lock(uint64_t start, uint64_t length, LockKind kind) override {
    struct flock lock;
    std::memset(&lock, 0, sizeof lock);
    lock.l_type = kind == LockKind::kShared ? F_RDLCK : kind == LockKind::kExclusive ? F_WRLCK : F_UNLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = static_cast<off_t>(start);
    lock.l_len = static_cast<off_t>(length);
    if (retry_on_signal([&] { return fcntl(fd_.get(), F_OFD_SETLK, &lock); }) == 0) return {};
    if (errno == EAGAIN || errno == EACCES) return Error(ErrorCode::kBusy, path_ + " is locked");
    return errno_error(errno, "lock " + path_);
  }

  Status check_no_writers() override {
    if (fcntl(fd_.get(), F_SETLEASE, F_RDLCK) == 0) {
      fcntl(fd_.get(), F_SETLEASE, F_UNLCK);
      return {};
    }
    if (errno == EAGAIN || errno == EBUSY) {
      return Error(ErrorCode::kBusy, "another process has " + path_ + " open for writing");
    }
    return Error(ErrorCode::kUnsupported, "lease on " + path_ + ": " + errno_text(errno));
  }

  int fd() const override { return fd_.get(); }
  const std::string& path() const override { return path_; }

 private:
  // What fallocate() does, where a file system has none.
  Status rewrite(uint64_t offset_bytes, uint64_t size_bytes) {
    constexpr size_t kPieceBytes = 1 << 16;
    Bytes piece(kPieceBytes);
    for (uint64_t done = 0; done < size_bytes;) {
      MutableByteView bytes =
          MutableByteView(piece).first(static_cast<size_t>(std::min<uint64_t>(kPieceBytes, size_bytes - done)));
      const size_t there = TRY(read_at(offset_bytes + done, bytes));
      std::memset(bytes.data() + there, 0, bytes.size() - there);
      TRY(write_at(offset_bytes + done, bytes));
      done += bytes.size();
    }
    return {};
  }

  OwnedDescriptor fd_;
  std::string path_;
};

class PosixFileSystem final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
    int flags = O_CLOEXEC | (mode == OpenMode::kReadOnly ? O_RDONLY : O_RDWR);
    if (mode == OpenMode::kCreate) flags |= O_CREAT;
    if (mode == OpenMode::kCreateNew) flags |= O_CREAT | O_EXCL;
    OwnedDescriptor fd =
        OwnedDescriptor::from([&] { return retry_on_signal([&] { return ::open(path.c_str(), flags, 0644); }); });
    if (fd.get() < 0) return errno_error(errno, "open " + path);
    return std::unique_ptr<File>(new PosixFile(std::move(fd), path));
  }

  Result<FileInfo> info(const std::string& path) override {
    struct stat st;
    if (lstat(path.c_str(), &st) != 0) return errno_error(errno, "stat " + path);
    return to_info(st);
  }

  Status remove(const std::string& path) override {
    if (::remove(path.c_str()) != 0) return errno_error(errno, "remove " + path);
    return {};
  }

  Status rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) return errno_error(errno, "rename " + from + " to " + to);
    return {};
  }

  Status set_owner(const std::string& path, uint32_t uid, uint32_t gid, uint32_t mode) override {
    if (chown(path.c_str(), uid, gid) != 0) return errno_error(errno, "change the owner of " + path);
    if (chmod(path.c_str(), mode & 0777) != 0) return errno_error(errno, "change the mode of " + path);
    return {};
  }

  Status make_directories(const std::string& path) override {
    for (size_t end = 1; end <= path.size(); ++end) {
      if (end != path.size() && path[end] != '/') continue;
      std::string part = path.substr(0, end);
      if (mkdir(part.c_str(), 0755) != 0 && errno != EEXIST) {
        return errno_error(errno, "create directory " + part);
      }
    }
    struct stat st;
    if (stat(path.c_str(), &st) != 0) return errno_error(errno, "stat " + path);
    if (!S_ISDIR(st.st_mode)) return Error(ErrorCode::kInvalid, path + " is not a directory");
    return {};
  }

  Result<std::vector<std::string>> list(const std::string& path) override {
    DIR* dir = opendir(path.c_str());
    if (!dir) return errno_error(errno, "list " + path);
    std::vector<std::string> names;
    while (struct dirent* entry = readdir(dir)) {
      std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(std::move(name));
    }
    closedir(dir);
    std::sort(names.begin(), names.end());
    return names;
  }

  Status sync_directory(const std::string& path) override {
    const OwnedDescriptor fd =
        OwnedDescriptor::from([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
    if (fd.get() < 0) return errno_error(errno, "open directory " + path);
    if (fsync(fd.get()) != 0) return errno_error(errno, "sync directory " + path);
    return {};
  }
};

}  // namespace

std::unique_ptr<FileSystem> posix_file_system() { return std::make_unique<PosixFileSystem>(); }

Status File::read_exactly(uint64_t offset_bytes, MutableByteView out) {
  size_t n = TRY(read_at(offset_bytes, out));
  if (n != out.size()) {
    return Error(ErrorCode::kCorrupt, path() + " ends before byte " + std::to_string(offset_bytes + out.size()));
  }
  return {};
}

Result<bool> File::is_locked(uint64_t start, uint64_t length) {
  struct flock lock;
  std::memset(&lock, 0, sizeof lock);
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(start);
  lock.l_len = static_cast<off_t>(length);
  if (fcntl(fd(), F_OFD_GETLK, &lock) != 0) return errno_error(errno, "look for locks on " + path());
  return lock.l_type != F_UNLCK;
}

Result<bool> FileSystem::exists(const std::string& path) {
  Result<FileInfo> r = info(path);
  if (r.ok()) return true;
  if (r.error().code() == ErrorCode::kNotFound) return false;
  return r.error();
}

Status FileSystem::remove_if_there(const std::string& path) {
  Status removed = remove(path);
  return !removed.ok() && removed.error().code() == ErrorCode::kNotFound ? Status() : removed;
}

Result<std::unique_ptr<File>> FileSystem::open_if_there(const std::string& path, OpenMode mode) {
  Result<std::unique_ptr<File>> file = open(path, mode);
  if (!file.ok() && file.error().code() == ErrorCode::kNotFound) return std::unique_ptr<File>();
  return file;
}

Result<Bytes> FileSystem::read_all(const std::string& path, size_t bytes_max) {
  std::unique_ptr<File> file = TRY(open(path, OpenMode::kReadOnly));
  FileInfo file_info = TRY(file->info());
  if (file_info.size_bytes > bytes_max) {
    return Error(ErrorCode::kInvalid, path + " is larger than " + std::to_string(bytes_max) + " bytes");
  }
  Bytes data(static_cast<size_t>(file_info.size_bytes));
  data.resize(TRY(file->read_at(0, data)));
  return data;
}

Status FileSystem::write_atomically(const std::string& path, ByteView data) {
  std::string beside = path + ".new";
  {
    std::unique_ptr<File> file = TRY(open(beside, OpenMode::kCreate));
    TRY(file->truncate(0));
    TRY(file->write_at(0, data));
    TRY(file->sync());
  }
  TRY(rename(beside, path));
  // Sync the directory too: after a power cut an unsynced rename may vanish.
  return sync_directory(directory_of(path));
}

}  // namespace litefs
