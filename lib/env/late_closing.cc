#include "env/late_closing.h"

#include <algorithm>

namespace litefs {

class LateClosingFiles::LateFile final : public File {
 public:
  LateFile(LateClosingFiles& files, std::unique_ptr<File> real, std::string path, OpenMode mode)
      : files_(files), real_(std::move(real)), path_(std::move(path)), mode_(mode) {}
  LateFile(const LateFile&) = delete;
  LateFile& operator=(const LateFile&) = delete;
  ~LateFile() override { files_.close(std::move(real_), path_, mode_); }

  Result<size_t> read_at(uint64_t offset_bytes, MutableByteView out) override {
    return real_->read_at(offset_bytes, out);
  }
  Status write_at(uint64_t offset_bytes, ByteView data) override { return real_->write_at(offset_bytes, data); }
  Status truncate(uint64_t size_bytes) override { return real_->truncate(size_bytes); }
  Status allocate(uint64_t offset_bytes, uint64_t size_bytes) override {
    return real_->allocate(offset_bytes, size_bytes);
  }
  Status clone_from(File& source) override { return real_->clone_from(source); }
  Status sync() override { return real_->sync(); }
  Result<FileInfo> info() override { return real_->info(); }
  Result<std::unique_ptr<Mapping>> map(uint64_t offset_bytes, size_t size, bool writable) override {
    return real_->map(offset_bytes, size, writable);
  }
  Status try_lock(uint64_t start, uint64_t length, LockKind kind) override {
    return real_->try_lock(start, length, kind);
  }
  Status check_no_writers() override { return real_->check_no_writers(); }
  int fd() const override { return real_->fd(); }
  const std::string& path() const override { return path_; }

 private:
  LateClosingFiles& files_;
  std::unique_ptr<File> real_;
  const std::string path_;
  const OpenMode mode_;
};

Result<std::optional<LateClosingFiles::FileId>> LateClosingFiles::use_database(const std::string& path,
                                                                               const std::function<bool()>& open) {
  // Not between a close and the connection's first lock, nor around a rename.
  MutexLock lock(mutex_);
  if (!open()) return std::optional<FileId>();
  const FileId id = id_of(TRY(real_.info(path)));
  ++databases_[id].count;
  return std::optional<FileId>(id);
}

void LateClosingFiles::leave_database(const FileId& id) {
  MutexLock lock(mutex_);
  auto it = databases_.find(id);
  if (it != databases_.end() && --it->second.count == 0) databases_.erase(it);
}

void LateClosingFiles::use_index(const std::string& path) {
  MutexLock lock(mutex_);
  ++indexes_[path].count;
}

void LateClosingFiles::leave_index(const std::string& path) {
  MutexLock lock(mutex_);
  auto it = indexes_.find(path);
  if (it != indexes_.end() && --it->second.count == 0) indexes_.erase(it);
}

size_t LateClosingFiles::kept() {
  MutexLock lock(mutex_);
  size_t kept = 0;
  for (const auto& [id, use] : databases_) kept += use.kept.size();
  for (const auto& [path, use] : indexes_) kept += use.kept.size();
  return kept;
}

Result<std::unique_ptr<File>> LateClosingFiles::open(const std::string& path, OpenMode mode) {
  std::unique_ptr<File> file = mode == OpenMode::kCreateNew ? nullptr : take_kept(path, mode);
  if (!file) file = TRY(real_.open(path, mode));
  return std::unique_ptr<File>(new LateFile(*this, std::move(file), path, mode));
}

Status LateClosingFiles::remove(const std::string& path) {
  MutexLock lock(mutex_);
  return real_.remove(path);
}

Status LateClosingFiles::rename(const std::string& from, const std::string& to) {
  MutexLock lock(mutex_);
  return real_.rename(from, to);
}

void LateClosingFiles::close(std::unique_ptr<File> file, const std::string& path, OpenMode mode) {
  Result<FileInfo> info = file->info();
  MutexLock lock(mutex_);
  Use* use = nullptr;
  FileId id;
  if (info.ok()) {
    id = id_of(info.value());
    if (auto it = databases_.find(id); it != databases_.end()) use = &it->second;
  }
  if (auto it = indexes_.find(path); !use && it != indexes_.end()) use = &it->second;
  if (!use) {
    file.reset();  // under the lock: nobody begins to use it before it is closed
    return;
  }
  // What closing would have done. Length 0 is up to the end of all files.
  static_cast<void>(file->try_lock(0, 0, LockKind::kNone).ok());
  use->kept.push_back({std::move(file), mode, id});
}

std::unique_ptr<File> LateClosingFiles::take_from(Use& use, const FileId& id, OpenMode mode) {
  auto it = std::find_if(use.kept.begin(), use.kept.end(),
                         [&](const Kept& kept) { return kept.id == id && kept.mode == mode; });
  if (it == use.kept.end()) return nullptr;
  std::unique_ptr<File> file = std::move(it->file);
  use.kept.erase(it);
  return file;
}

std::unique_ptr<File> LateClosingFiles::take_kept(const std::string& path, OpenMode mode) {
  MutexLock lock(mutex_);
  auto index = indexes_.find(path);
  const bool any = (index != indexes_.end() && !index->second.kept.empty()) ||
                   std::any_of(databases_.begin(), databases_.end(),
                               [](const auto& database) { return !database.second.kept.empty(); });
  if (!any) return nullptr;
  Result<FileInfo> info = real_.info(path);
  if (!info.ok()) return nullptr;
  const FileId id = id_of(info.value());
  if (index != indexes_.end()) return take_from(index->second, id, mode);
  auto database = databases_.find(id);
  return database == databases_.end() ? nullptr : take_from(database->second, id, mode);
}

}  // namespace litefs
