#include "fuse/mount.h"

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>

#include "fuse/mount_point.h"
#include "fuse/operations.h"
#include "fuse/serving.h"

namespace litefs {

namespace {

constexpr std::chrono::milliseconds kHandshakeMax{10'000};

// Asks before anybody relies on it: the privilege, and the file system under the data directory.
Status check_passthrough(Device& device, int directory, const std::string& backing_dir) {
  Descriptor file(openat(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  // A file system without nameless files may still do; the first open will tell.
  if (!file.valid()) return {};
  int id = device.register_backing(file.get());
  if (id > 0) {
    device.unregister_backing(id);
    return {};
  }
  if (id == -EPERM) {
    return Error(ErrorCode::kUnavailable, "no permission for FUSE passthrough: CAP_SYS_ADMIN of the machine is needed");
  }
  Error error = errno_error(-id, "the file system of " + backing_dir + " cannot be passed through");
  return Error(ErrorCode::kUnavailable, error.message());
}

}  // namespace

// Members are in the order of who uses whom: the device goes last but for what it knows nothing of.
struct Mount::Core {
  Core(const MountOptions& mount_options, std::shared_ptr<MountHooks> mount_hooks, const Log& l)
      : options(mount_options), hooks(std::move(mount_hooks)), log(l) {}

  Status start();
  Status serve();
  Status attach(MountPointState on_it);
  bool end();

  MountOptions options;
  std::shared_ptr<MountHooks> hooks;
  Log log;
  std::string path;
  Descriptor directory;
  Descriptor detached;  // our mount, until it is on its path
  std::unique_ptr<Device> device;
  NodeTable nodes;
  std::unique_ptr<MountClient> client;
  std::shared_ptr<PendingOpens> pending;
  std::unique_ptr<Operations> operations;
  std::unique_ptr<Notifier> notifier;
  std::unique_ptr<ServingThreads> serving;
  dev_t mounted_device = 0;  // 0: not mounted
};

Status Mount::Core::start() {
  path = TRY(canonical_mount_point(options.mount_dir));
  // Before any descriptor of ours is open, so that the client's table holds none of them.
  client = TRY(MountClient::start(path, options.client_call_max));
  MountPointState on_it = TRY(check_mount_point(path, *client, log));
  directory = Descriptor(open(options.backing_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) {
    return errno_error(errno, "opening the data directory " + options.backing_dir);
  }

  pending = PendingOpens::create(
      [this](const OpenRequest& open, const Status& admitted) { operations->finish_open(open, admitted); },
      options.open_max);
  operations = std::make_unique<Operations>(
      Operations::Parts{directory.get(), nodes, *pending, *hooks, client->thread_id(), log});
  device = TRY(Device::open(Operations::table(), operations.get()));
  operations->attach(*device);
  notifier = std::make_unique<Notifier>(*device, nodes);
  serving = std::make_unique<ServingThreads>(*device, log, options.ended);

  detached = TRY(make_mount({device->fd(), options.fs_name, options.allow_other}));
  TRY(serve());
  return attach(on_it);
}

Status Mount::Core::serve() {
  TRY(device->handshake(deadline_in(kHandshakeMax)));
  TRY(check_passthrough(*device, directory.get(), options.backing_dir));
  pending->start();
  TRY(notifier->start());
  serving->start();
  return {};
}

// Only when everything works, as a dead mount that is there protects the directory until then. Up to
// attach_mount nothing of ours may look the path up: it is the dead mount's.
Status Mount::Core::attach(MountPointState on_it) {
  struct statx info;
  if (statx(detached.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &info) != 0) {
    return errno_error(errno, "asking for the device of the mount for " + path);
  }
  if (options.mounting) TRY(options.mounting(makedev(info.stx_dev_major, info.stx_dev_minor)));
  TRY(attach_mount(detached, path, on_it, log));
  detached.reset();  // else it would keep the mount busy
  std::optional<MountedHere> mounted = TRY(mounted_on(path));
  if (!mounted) return Error(ErrorCode::kIo, "the mount on " + path + " has vanished");
  mounted_device = mounted->device;
  MountClient::Answer answer = TRY(client->probe(path, options.client_call_max));
  if (answer.error != 0) return errno_error(answer.error, "asking the new mount on " + path);
  if (answer.device != mounted_device) {
    return Error(ErrorCode::kExists, "somebody else has mounted on " + path + " at the same time");
  }
  return {};
}

// Idempotent up to where start() came. False: some thread is still running, and refers to this.
bool Mount::Core::end() {
  Deadline deadline = deadline_in(options.stop_max);
  bool ended = true;
  // Our own files first: they would keep the mount busy.
  bool client_ended = !client || client->stop(deadline);
  if (pending) ended = pending->stop(deadline) && ended;
  if (serving && mounted_device != 0 && !serving->drain(deadline)) {
    log.error("requests are still running at the end of the mount").kv("path", path);
  }
  if (device) device->expect_end();
  detached.reset();  // ends a connection that was never attached
  if (mounted_device != 0) {
    Status unmounted = end_mount(path, mounted_device, log);
    if (!unmounted) log.error("unmounting failed").error(unmounted.error());
    mounted_device = 0;
  }
  // The connection has ended: nobody can be waiting for the kernel any more, only in a hook.
  deadline = deadline_in(options.stop_max);
  if (serving) ended = serving->join_until(deadline) && ended;
  if (notifier) ended = notifier->stop(deadline) && ended;
  if (!client_ended) ended = client->stop(deadline) && ended;
  return ended;
}

Mount::Mount(std::unique_ptr<Core> core) : core_(std::move(core)) {}

Result<std::unique_ptr<Mount>> Mount::start(const MountOptions& options, std::shared_ptr<MountHooks> hooks,
                                            const Log& log) {
  std::unique_ptr<Mount> mount(new Mount(std::make_unique<Core>(options, std::move(hooks), log)));
  // An error runs the destructor, which undoes what has been done.
  TRY(mount->core_->start());
  log.info("mounted").kv("path", mount->path()).kv("data", options.backing_dir);
  return mount;
}

Mount::~Mount() {
  if (core_) (void)stop();
}

Status Mount::stop() {
  std::unique_ptr<Core> core = std::move(core_);
  if (!core) return {};
  bool was_mounted = core->mounted_device != 0;
  Log log = core->log;
  std::string path = core->path;
  if (!core->end()) {
    // The thread that is stuck in a hook will come back to it.
    (void)core.release();
    return Error(ErrorCode::kTimedOut, "a request on " + path + " has not ended in time");
  }
  if (was_mounted) log.info("unmounted").kv("path", path);
  return {};
}

const std::string& Mount::path() const { return core_->path; }
MountClient& Mount::client() { return *core_->client; }
Notifier& Mount::notifier() { return *core_->notifier; }
size_t Mount::serving_threads() { return core_->serving->threads(); }
size_t Mount::known_nodes() { return core_->nodes.size(); }

}  // namespace litefs
