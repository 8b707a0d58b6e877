// Files that are closed only when no SQLite connection of this process has them open.
//
// Closing any descriptor of a file drops all POSIX locks that the process holds on it (fcntl(2)), and SQLite's locks
// are such. Where connections and node live in one process, the node's descriptors of a database and of its -shm are
// therefore kept at their close while a connection uses that file, without their own (OFD) locks; they are used again
// when the node opens the file anew in the same mode, and closed with the connections' last use. SQLite does the same
// with its own (os_unix.c: setPendingFd).
//
// A database is known by device and inode, as the node renames files into place; -shm, which SQLite opens and locks in
// one call, by its path. Who uses other descriptors of these files than these is on his own.
// Thread rule: any thread; the lock is held over one open, close or rename, and nothing is called under it but the
// file system below and use_database()'s `open`. It outlives all its files.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "env/file.h"

namespace litefs {

class LateClosingFiles final : public FileSystem {
 public:
  explicit LateClosingFiles(FileSystem& real) : real_(real) {}

  // Which file it is, whatever its name.
  struct FileId {
    uint64_t device = 0;
    uint64_t inode = 0;
    auto operator<=>(const FileId&) const = default;
  };
  // Runs `open`, by which a connection opens the database at `path` without locking it yet, and where that answers true
  // notes the use. Nothing: it answered false.
  Result<std::optional<FileId>> use_database(const std::string& path, const std::function<bool()>& open);
  // After the connection has closed it.
  void leave_database(const FileId& id);
  // Around a connection's use of a -shm: before it may open it, after it has closed it.
  void use_index(const std::string& path);
  void leave_index(const std::string& path);
  // For tests.
  size_t kept();

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override;
  Result<FileInfo> info(const std::string& path) override { return real_.info(path); }
  Status remove(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status set_owner(const std::string& path, uint32_t uid, uint32_t gid, uint32_t mode) override {
    return real_.set_owner(path, uid, gid, mode);
  }
  Status make_directories(const std::string& path) override { return real_.make_directories(path); }
  Result<std::vector<std::string>> list(const std::string& path) override { return real_.list(path); }
  Status sync_directory(const std::string& path) override { return real_.sync_directory(path); }

 private:
  class LateFile;
  struct Kept {
    std::unique_ptr<File> file;
    OpenMode mode = OpenMode::kReadOnly;
    FileId id;
  };
  struct Use {
    int count = 0;
    std::vector<Kept> kept;
  };

  static FileId id_of(const FileInfo& info) { return {info.device, info.inode}; }
  static std::unique_ptr<File> take_from(Use& use, const FileId& id, OpenMode mode);
  void close(std::unique_ptr<File> file, const std::string& path, OpenMode mode);
  std::unique_ptr<File> take_kept(const std::string& path, OpenMode mode);

  FileSystem& real_;
  Mutex mutex_;
  std::map<FileId, Use> databases_ GUARDED_BY(mutex_);
  std::map<std::string, Use> indexes_ GUARDED_BY(mutex_);
};

}  // namespace litefs
