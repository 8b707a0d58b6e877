// How long the kernel may keep what it was told, and how much it may write at once. Thread rule: constants.
#pragma once

#include <cstdint>

namespace litefs {

// What changes only through the mount, or with a notification.
inline constexpr double kCacheSeconds = 86400;
inline constexpr uint32_t kWriteBytesMax = 1u << 20;

}  // namespace litefs
