#include "fuse/device.h"

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "env/file.h"
#include "fuse/protocol.h"

namespace litefs {

namespace {

constexpr const char* kDevicePath = "/dev/fuse";

std::string kernel_release() {
  utsname name;
  return uname(&name) == 0 ? name.release : "of unknown release";
}

Error device_error(int error) {
  switch (error) {
    case ENOENT:
      return Error(ErrorCode::kUnavailable,
                   "there is no /dev/fuse: load the kernel's fuse module, or give the device to the "
                   "container");
    case ENODEV:
    case ENXIO: return Error(ErrorCode::kUnavailable, "/dev/fuse is there, but this kernel has no FUSE");
    case EACCES:
    case EPERM:
      return Error(ErrorCode::kUnavailable,
                   "no permission to open /dev/fuse: run as root, or allow the container the device");
    default: return errno_error(error, "opening /dev/fuse");
  }
}

// A short read cannot happen: the kernel gives whole requests. What is shorter than its header is
// no request.
template <class T>
bool load(ByteView bytes, size_t offset, T* out) {
  if (bytes.size() < offset + sizeof(T)) return false;
  std::memcpy(out, bytes.data() + offset, sizeof(T));
  return true;
}

ssize_t read_request(int fd, void* buffer, size_t size, void*) { return ::read(fd, buffer, size); }

}  // namespace

Status require_passthrough(ByteView init_request, const std::string& kernel_release) {
  fuse_in_header header;
  if (!load(init_request, 0, &header) || header.opcode != FUSE_INIT) {
    return Error(ErrorCode::kUnavailable, "the kernel's first FUSE request is not INIT");
  }
  // Kernels before 5.17 send a fuse_init_in without flags2.
  ByteView body = init_request.subspan(sizeof header);
  uint32_t flags = 0;
  uint32_t flags2 = 0;
  if (load(body, offsetof(fuse_init_in, flags), &flags) && (flags & kInitExtended) &&
      load(body, offsetof(fuse_init_in, flags2), &flags2) && (flags2 & kInitPassthrough)) {
    return {};
  }
  return Error(ErrorCode::kUnavailable, "this kernel (" + kernel_release +
                                            ") has no FUSE passthrough: Linux 6.9 or newer, built with "
                                            "CONFIG_FUSE_PASSTHROUGH, is needed");
}

Result<std::unique_ptr<Device>> Device::open(const fuse_lowlevel_ops& operations, void* user) {
  Descriptor fd(::open(kDevicePath, O_RDWR | O_CLOEXEC));
  if (!fd.valid()) return device_error(errno);

  std::unique_ptr<Device> device(new Device(fd.get(), user));
  char program[] = "litefs";
  char* argv[] = {program, nullptr};
  fuse_args args = FUSE_ARGS_INIT(1, argv);
  device->session_ = fuse_session_new(&args, &operations, sizeof operations, device.get());
  fuse_opt_free_args(&args);
  fuse_custom_io io = {};
  io.read = read_request;
  io.writev = write_reply;
  if (!device->session_ || fuse_session_custom_io(device->session_, &io, fd.get()) != 0) {
    return Error(ErrorCode::kUnavailable, "libfuse cannot make a session");
  }
  fd.release();
  return device;
}

Device::~Device() {
  if (session_) fuse_session_destroy(session_);
}

Status Device::handshake(Deadline deadline) {
  auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  pollfd wait = {fd_, POLLIN, 0};
  int ready = poll(&wait, 1, static_cast<int>(std::max<int64_t>(left.count(), 0)));
  if (ready < 0) return errno_error(errno, "waiting for the kernel's INIT");
  if (ready == 0) return Error(ErrorCode::kTimedOut, "the kernel sends no INIT to the mount");

  Bytes buffer(kRequestBytesMax);
  ssize_t size = read(buffer);
  if (size < 0) return errno_error(static_cast<int>(-size), "reading the kernel's INIT");
  MutableByteView request(buffer.data(), static_cast<size_t>(size));
  TRY(require_passthrough(request, kernel_release()));
  fuse_in_header header;
  CHECK(load(request, 0, &header));
  init_unique_ = header.unique;
  process(request);
  init_unique_ = 0;
  if (!init_accepted_ || fuse_session_exited(session_)) {
    return Error(ErrorCode::kUnavailable, "libfuse and this kernel do not agree on a protocol");
  }
  return {};
}

ssize_t Device::write_reply(int fd, iovec* iov, int count, void* userdata) {
  Device* self = static_cast<Device*>(userdata);
  if (self->init_unique_ != 0) {
    fuse_out_header header;
    std::memcpy(&header, iov[0].iov_base, sizeof header);
    if (header.unique == self->init_unique_ && header.error == 0 && count == 2 && iov[1].iov_len == sizeof(InitReply)) {
      InitReply* reply = static_cast<InitReply*>(iov[1].iov_base);
      reply->minor = kInitMinor;
      reply->flags |= kInitExtended;
      reply->flags2 |= kInitPassthrough;
      reply->max_stack_depth = kMaxStackDepth;
      self->init_accepted_ = true;
    }
  }
  return writev(fd, iov, count);
}

ssize_t Device::read(MutableByteView buffer) {
  ssize_t n = ::read(fd_, buffer.data(), buffer.size());
  return n < 0 ? -errno : n;
}

void Device::process(MutableByteView request) {
  fuse_buf buf = {};
  buf.mem = request.data();
  buf.size = request.size();
  fuse_session_process_buf(session_, &buf);
}

int Device::register_backing(int fd) {
  BackingMap map = {fd, 0, 0};
  int id = ioctl(fd_, kBackingOpen, &map);
  return id < 0 ? -errno : id;
}

void Device::unregister_backing(int id) {
  uint32_t argument = static_cast<uint32_t>(id);
  // Nothing to be done about a failure: the connection has ended, and its ids with it.
  (void)ioctl(fd_, kBackingClose, &argument);
}

Result<Descriptor> Device::clone() const {
  Descriptor fd(::open(kDevicePath, O_RDWR | O_CLOEXEC));
  if (!fd.valid()) return device_error(errno);
  uint32_t connection = static_cast<uint32_t>(fd_);
  if (ioctl(fd.get(), kDeviceClone, &connection) != 0) {
    return errno_error(errno, "opening the mount's connection once more");
  }
  return fd;
}

void Device::expect_end() { fuse_session_exit(session_); }

}  // namespace litefs
