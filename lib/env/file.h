// Files behind an interface, so that a test can put faults and kill points under everything above.
//
// Paths are absolute or relative to the working directory. All errors carry the path and the operating
// system's reason; ENOENT is kNotFound, EEXIST kExists, ENOSPC and EDQUOT kNoSpace, EAGAIN and EBUSY of
// locks kBusy, EROFS and EACCES kReadOnly, everything else kIo. Thread rule: a File's positioned reads and
// writes may be used by several threads at once; everything else by one at a time.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace litefs {

struct FileInfo {
  uint64_t size_bytes = 0;
  uint64_t inode = 0;
  uint64_t device = 0;
  int64_t mtime_ns = 0;  // since 1970
  int64_t ctime_ns = 0;
  uint32_t mode = 0;  // type and permissions, as in struct stat
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t links = 0;

  bool is_same_file(const FileInfo& other) const { return inode == other.inode && device == other.device; }
};

// A mapped range; unmapped by the destructor. A file that is truncated below the range raises SIGBUS on
// access: map only what nobody else truncates.
class Mapping {
 public:
  virtual ~Mapping() = default;
  virtual uint8_t* data() = 0;
  virtual size_t size() const = 0;
  virtual Status sync() = 0;  // to the device
};

enum class LockKind { kShared, kExclusive, kNone };

class File {
 public:
  virtual ~File() = default;

  // Reads up to out.size() bytes; fewer only at the end of the file.
  virtual Result<size_t> read_at(uint64_t offset_bytes, MutableByteView out) = 0;
  virtual Status write_at(uint64_t offset_bytes, ByteView data) = 0;
  virtual Status truncate(uint64_t size_bytes) = 0;
  // Gives every byte of the range its room on the device, so that a mapping of it can be written: storing into a hole
  // of a full file system raises SIGBUS. Bytes that are there stay; what was beyond the end is zero. On an error the
  // file has the size that it had. Nobody else may write the range meanwhile.
  virtual Status allocate(uint64_t offset_bytes, uint64_t size_bytes) = 0;
  // Makes this file's content that of `source`, sharing its blocks (FICLONE). kUnsupported where the file system
  // cannot, or both are not on the same one; then nothing has changed.
  virtual Status clone_from(File& source) = 0;
  // fdatasync: contents and size reach the device.
  virtual Status sync() = 0;
  virtual Result<FileInfo> info() = 0;
  virtual Result<std::unique_ptr<Mapping>> map(uint64_t offset_bytes, size_t size, bool writable) = 0;
  // Tries an open-file-description lock on a byte range; never waits. kBusy: somebody holds it.
  virtual Status try_lock(uint64_t start, uint64_t length, LockKind kind) = 0;
  // F_SETLEASE, F_RDLCK, taken and given back: kBusy while any process has the file open for writing,
  // through whatever mount; kUnsupported where the file system has no leases. The File must be open
  // read-only.
  virtual Status check_no_writers() = 0;

  // The descriptor, for what only the kernel can do with it (passthrough, inotify). Not to be closed.
  virtual int fd() const = 0;
  virtual const std::string& path() const = 0;

  // Whether somebody else (other descriptions, this process's POSIX locks too) holds any lock in the range. Takes none.
  Result<bool> is_locked(uint64_t start, uint64_t length);
  // read_at that treats a short read as kCorrupt.
  Status read_exactly(uint64_t offset_bytes, MutableByteView out);
};

enum class OpenMode {
  kReadOnly,
  kReadWrite,
  kCreate,     // read-write, created with mode 0644 when missing
  kCreateNew,  // read-write, kExists when it exists
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) = 0;
  virtual Result<FileInfo> info(const std::string& path) = 0;
  virtual Status remove(const std::string& path) = 0;
  // Replaces `to` when it exists. Durable only after sync_directory.
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  // Owner, group and permissions (mode's low 9 bits).
  virtual Status set_owner(const std::string& path, uint32_t uid, uint32_t gid, uint32_t mode) = 0;
  // Creates the directory and its parents; no error when it exists.
  virtual Status make_directories(const std::string& path) = 0;
  // Names of the entries, without "." and "..", sorted.
  virtual Result<std::vector<std::string>> list(const std::string& path) = 0;
  virtual Status sync_directory(const std::string& path) = 0;

  Result<bool> exists(const std::string& path);
  // remove(); that there is nothing is success.
  Status remove_if_there(const std::string& path);
  // Null where there is nothing.
  Result<std::unique_ptr<File>> open_if_there(const std::string& path, OpenMode mode);
  // Reads a whole file of at most bytes_max.
  Result<Bytes> read_all(const std::string& path, size_t bytes_max);
  // Writes beside, syncs, renames into place, syncs the directory: after a crash it is the old or the new.
  Status write_atomically(const std::string& path, ByteView data);
};

// The operating system's files. Lives as long as the process needs it; stateless.
std::unique_ptr<FileSystem> posix_file_system();

// The directory part of a path: "." where it has none.
std::string directory_of(const std::string& path);
// The operating system's text for an errno.
std::string errno_text(int error);
// Translates an errno into an Error; `what` says what was attempted on what.
Error errno_error(int error, const std::string& what);

}  // namespace litefs
