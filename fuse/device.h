// The kernel's FUSE device and the libfuse session on it.
//
// libfuse 3.14 knows no passthrough. So the INIT reply is patched on its way out (FUSE_PASSTHROUGH,
// max_stack_depth), replies to OPEN and CREATE are written by operations_open.cc in full, and real
// files are registered here. Everything else of the protocol is libfuse's.
//
// The descriptor of the device must be in no descriptor table but that of the threads that serve.
// When the process is killed it closes with the last of them, which nothing can keep waiting in the
// kernel, and with it every request that they have read is answered: so whoever waits for such a
// request is freed, our own other threads first (FUSE.md, 8).
//
// Thread rule: handshake() before any other thread uses the device; the rest from any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "fuse/descriptor.h"
#include "fuse/quiet_thread.h"

struct fuse_lowlevel_ops;
struct fuse_session;
struct iovec;

namespace litefs {

// kUnavailable, naming the release and what is needed, unless this INIT request (fuse_in_header and
// fuse_init_in) offers passthrough.
Status require_passthrough(ByteView init_request, const std::string& kernel_release);

class Device {
 public:
  // `user` is what handlers find through user_of(). kUnavailable when there is no device or no
  // permission.
  static Result<std::unique_ptr<Device>> open(const fuse_lowlevel_ops& operations, void* user);
  // Closes the device, which ends the connection.
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  int fd() const { return fd_; }
  void* user() const { return user_; }

  // Receives and answers the kernel's INIT, which comes as soon as the device is mounted.
  Status handshake(Deadline deadline);

  // One request into `buffer`, of at least kRequestBytesMax; waits for one to come. The size, or
  // -errno.
  static constexpr size_t kRequestBytesMax = (1u << 20) + 8192;
  ssize_t read(MutableByteView buffer);
  // Has a request served by the session's handlers.
  void process(MutableByteView request);

  // Registers a real file, so that OPEN replies can name it: its id (> 0), or -errno. The
  // descriptor may be closed afterwards; files that are open through an id go on when it is taken
  // back.
  int register_backing(int fd);
  void unregister_backing(int id);

  // Another descriptor of the same connection. When one of them is closed the kernel answers what
  // was read through it; the connection ends with the last one.
  Result<Descriptor> clone() const;

  // From here on libfuse says nothing about replies that the kernel no longer takes.
  void expect_end();

 private:
  Device(int fd, void* user) : fd_(fd), user_(user) {}
  static ssize_t write_reply(int fd, iovec* iov, int count, void* userdata);

  int fd_;  // the session's, which closes it
  void* user_;
  fuse_session* session_ = nullptr;
  uint64_t init_unique_ = 0;  // the INIT request whose reply is still to be written; 0: none
  bool init_accepted_ = false;
};

}  // namespace litefs
