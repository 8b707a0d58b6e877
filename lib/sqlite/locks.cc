#include "sqlite/locks.h"

#include <utility>

namespace litefs {
namespace {

class DirectLockDoor final : public LockDoor {
 public:
  DirectLockDoor(FileSystem& files, const std::string& path, std::unique_ptr<File> database)
      : files_(files), path_(path), database_(std::move(database)) {}

  Status try_lock(LockFile file, uint64_t start, uint64_t length, LockKind kind) override {
    if (file == LockFile::kDatabase) return database_->try_lock(start, length, kind);
    if (!shm_) shm_ = TRY(files_.open(path_ + "-shm", OpenMode::kCreate));
    return shm_->try_lock(start, length, kind);
  }

 private:
  FileSystem& files_;
  const std::string path_;
  std::unique_ptr<File> database_;
  std::unique_ptr<File> shm_;
};

}  // namespace

Result<std::unique_ptr<LockDoor>> direct_lock_door(FileSystem& files, const std::string& database_path) {
  std::unique_ptr<File> database = TRY(files.open(database_path, OpenMode::kReadWrite));
  return std::unique_ptr<LockDoor>(new DirectLockDoor(files, database_path, std::move(database)));
}

Result<HeldLock> HeldLock::take(LockDoor& door, LockFile file, uint64_t start, uint64_t length, LockKind kind) {
  TRY(door.try_lock(file, start, length, kind));
  return HeldLock(door, file, start, length);
}

HeldLock::HeldLock(HeldLock&& other) noexcept
    : door_(std::exchange(other.door_, nullptr)), file_(other.file_), start_(other.start_), length_(other.length_) {}

HeldLock& HeldLock::operator=(HeldLock&& other) noexcept {
  if (this != &other) {
    release();
    door_ = std::exchange(other.door_, nullptr);
    file_ = other.file_;
    start_ = other.start_;
    length_ = other.length_;
  }
  return *this;
}

HeldLock::~HeldLock() { release(); }

Status HeldLock::convert(LockKind kind) { return door_->try_lock(file_, start_, length_, kind); }

void HeldLock::release() {
  // Giving back a lock that is held fails only for a descriptor that is gone, and its locks went
  // with it.
  if (door_) (void)door_->try_lock(file_, start_, length_, LockKind::kNone);
  door_ = nullptr;
}

Result<HeldLock> take_shared(LockDoor& door) {
  HeldLock pending = TRY(HeldLock::take(door, LockFile::kDatabase, kPendingByte, 1, LockKind::kShared));
  return HeldLock::take(door, LockFile::kDatabase, kSharedFirst, kSharedSize, LockKind::kShared);
}

}  // namespace litefs
