// What the mount needs of the kernel's FUSE protocol that libfuse 3.14 and older kernel headers
// lack: passthrough (Linux 6.9, protocol 7.40). Source: include/uapi/linux/fuse.h of Linux 6.9.
// Thread rule: constants and plain structs.
#pragma once

#include <linux/fuse.h>
#include <sys/ioctl.h>

#include <cstddef>
#include <cstdint>

namespace litefs {

// INIT, both directions. flags2 carries the bits from 32 on.
constexpr uint32_t kInitExtended = 1u << 30;    // in `flags`: flags2 counts
constexpr uint32_t kInitPassthrough = 1u << 5;  // in `flags2`: FUSE_PASSTHROUGH is bit 37
constexpr uint32_t kInitMinor = 40;             // the protocol that has passthrough
// How many file systems deep the data directory may be stacked, plus one: with 1 a data directory
// on overlayfs, which is any container, could not be passed through.
constexpr uint32_t kMaxStackDepth = 2;

struct InitReply {
  uint32_t major;
  uint32_t minor;
  uint32_t max_readahead;
  uint32_t flags;
  uint16_t max_background;
  uint16_t congestion_threshold;
  uint32_t max_write;
  uint32_t time_gran;
  uint16_t max_pages;
  uint16_t map_alignment;
  uint32_t flags2;
  uint32_t max_stack_depth;
  uint32_t unused[6];
};
static_assert(sizeof(InitReply) == sizeof(fuse_init_out));
static_assert(offsetof(InitReply, flags2) == offsetof(fuse_init_out, flags2));

// OPEN and the second half of CREATE.
constexpr uint32_t kOpenPassthrough = 1u << 7;

struct OpenReply {
  uint64_t fh;
  uint32_t open_flags;
  int32_t backing_id;
};
static_assert(sizeof(OpenReply) == sizeof(fuse_open_out));

struct CreateReply {
  fuse_entry_out entry;
  OpenReply open;
};
static_assert(sizeof(CreateReply) == sizeof(fuse_entry_out) + sizeof(OpenReply));

// On the device: makes another descriptor of the same connection; registers a real file for
// passthrough, and takes that back.
struct BackingMap {
  int32_t fd;
  uint32_t flags;
  uint64_t padding;
};
constexpr unsigned long kDeviceClone = _IOR(229, 0, uint32_t);
constexpr unsigned long kBackingOpen = _IOW(229, 1, BackingMap);
constexpr unsigned long kBackingClose = _IOW(229, 2, uint32_t);

}  // namespace litefs
