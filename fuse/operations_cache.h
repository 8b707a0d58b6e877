// How long the kernel may keep what it was told, and how much it may write at once. Thread rule:
// constants and a pure function.
#pragma once

#include <cstdint>

#include "fuse/node_table.h"

namespace litefs {

// What changes only through the mount, or with a notification.
inline constexpr double kCacheSeconds = 86400;
inline constexpr uint32_t kWriteBytesMax = 1u << 20;

// The sizes of -wal and -shm change behind the mount all the time: the kernel and the node write
// the real files.
inline double attribute_timeout_s(const FileNode& node) {
  if (node.is_virtual) return 0;
  FileKind kind = node.name->file.kind;
  return kind == FileKind::kWal || kind == FileKind::kShm ? 0 : kCacheSeconds;
}

}  // namespace litefs
