// SQLite's lock bytes, and the door through which the node takes its own locks.
//
// Source: os_unix.c (unixLock, unixShmLock, unixLockSharedMemory) and wal.c of SQLite 3.40. Which locks the node
// holds and when: DESIGN section 12.
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
constexpr int kWalReaders = 5;
constexpr uint64_t wal_read_lock(int i) { return kShmLockBase + 3 + static_cast<uint64_t>(i); }
constexpr uint64_t kDmsByte = 128;  // dead man's switch

enum class LockFile { kDatabase, kShm };

// Locks on one database's files, taken through the same door as its applications' (on a mount: through the
// mount itself), as open-file-description locks: they belong to this object and end with it.
// Thread rule: one thread at a time; calls may take as long as opening a file through the mount does, and
// never wait for a lock.
class LockDoor {
 public:
  virtual ~LockDoor() = default;
  // kBusy when somebody else holds a conflicting lock.
  virtual Status try_lock(LockFile file, uint64_t start, uint64_t length, LockKind kind) = 0;
};

// Locks on the real files themselves: for a node without a mount, and for tests. Opens `database_path`
// read-only and `database_path`-shm read-write, which it creates.
Result<std::unique_ptr<LockDoor>> direct_lock_door(FileSystem& files, const std::string& database_path);

}  // namespace litefs
