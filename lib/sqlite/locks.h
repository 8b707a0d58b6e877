// SQLite's lock bytes, and the door through which the node takes its own locks.
//
// Source: os_unix.c (unixLock, unixShmLock, unixLockSharedMemory) and wal.c of SQLite 3.40. Which
// locks the node holds and when: DESIGN section 12.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "env/file.h"

namespace litefs {

// On the database file.
constexpr uint64_t kPendingByte = 0x40000000;
constexpr uint64_t kReservedByte = kPendingByte + 1;
constexpr uint64_t kSharedFirst = kPendingByte + 2;
constexpr uint64_t kSharedSize = 510;

// On the -shm file.
constexpr uint64_t kShmLockBase = 120;
constexpr uint64_t kWalWriteLock = kShmLockBase + 0;
constexpr uint64_t kWalCheckpointLock = kShmLockBase + 1;
constexpr uint64_t kWalRecoverLock = kShmLockBase + 2;
constexpr int kWalReaders = 5;  // read marks and their locks; 0 is for readers that ignore the WAL
constexpr uint64_t wal_read_lock(int i) { return kShmLockBase + 3 + static_cast<uint64_t>(i); }
constexpr uint64_t kDmsByte = 128;  // dead man's switch

enum class LockFile { kDatabase, kShm };

// Locks on one database's files, taken through the same door as its applications' (on a mount:
// through the mount itself), as open-file-description locks: they belong to this object and end
// with it. Thread rule: one thread at a time; calls may take as long as opening a file through the
// mount does, and never wait for a lock.
class LockDoor {
 public:
  virtual ~LockDoor() = default;
  // kBusy when somebody else holds a conflicting lock.
  virtual Status try_lock(LockFile file, uint64_t start, uint64_t length, LockKind kind) = 0;
};

// Locks on the real files themselves: for a node without a mount, and for tests. Opens
// `database_path`, and for the first lock on it `database_path`-shm, read-write (an exclusive lock asks for that);
// creates the latter. `files` outlives the door.
Result<std::unique_ptr<LockDoor>> direct_lock_door(FileSystem& files, const std::string& database_path);

// A lock that is given back when this goes out of scope. The door outlives it. Thread rule: the
// door's.
class HeldLock {
 public:
  // kBusy when somebody else holds a conflicting lock.
  static Result<HeldLock> take(LockDoor& door, LockFile file, uint64_t start, uint64_t length, LockKind kind);
  HeldLock(HeldLock&& other) noexcept;
  HeldLock& operator=(HeldLock&& other) noexcept;
  ~HeldLock();

  // Exclusive to shared or back, without a moment in which it is not held; on an error it is as
  // before.
  Status convert(LockKind kind);

 private:
  HeldLock(LockDoor& door, LockFile file, uint64_t start, uint64_t length)
      : door_(&door), file_(file), start_(start), length_(length) {}
  void release();

  LockDoor* door_;  // nullptr: moved away
  LockFile file_;
  uint64_t start_;
  uint64_t length_;
};

// The database's SHARED lock by unixLock's protocol: a read lock on PENDING first, so that it is
// refused while somebody waits for the readers to leave.
Result<HeldLock> take_shared(LockDoor& door);

}  // namespace litefs
