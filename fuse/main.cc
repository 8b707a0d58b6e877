// The program `litefs`.
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "env/process.h"
#include "fuse/cli.h"
#include "fuse/database_hooks.h"
#include "fuse/exec.h"
#include "fuse/mount.h"
#include "fuse/mount_point.h"
#include "node/node.h"

namespace litefs {
namespace {

// An application is started when its databases can be read, or after this long.
constexpr std::chrono::seconds kReadableMax{30};
// How long a predecessor that was killed may take to end.
constexpr std::chrono::seconds kPredecessorMax{5};

Result<int> run_node(const Options& options, const Log& log, Signals& signals) {
  std::unique_ptr<FileSystem> files = posix_file_system();
  std::unique_ptr<Clock> clock = system_clock();
  std::unique_ptr<Random> random = system_random();
  const rlimit descriptors = TRY(open_files_limit());
  MountPointState on_mount_point;
  {
    // Only looked at: a dead mount stays until the new one stands (mount_point.h says why).
    std::unique_ptr<MountClient> client = TRY(MountClient::start(options.fuse_dir));
    on_mount_point = TRY(check_mount_point(TRY(canonical_mount_point(options.fuse_dir)), *client, log));
  }
  // The usual 1,024 would do for some hundred databases.
  const uint64_t open_files_max = TRY(raise_open_files_max());
  const std::chrono::milliseconds predecessor_max =
      on_mount_point == MountPointState::kDeadMount ? kPredecessorMax : std::chrono::milliseconds(0);
  std::unique_ptr<Node> node =
      TRY(Node::create(NodeEnvironment{*files, *clock, *random, log}, options, predecessor_max));
  TRY(node->open_databases());
  if (const size_t databases = node->store().all().size(); databases * kFilesPerDatabase > open_files_max) {
    log.warning("the limit of open files (RLIMIT_NOFILE) is low for so many databases")
        .kv("databases", databases)
        .kv("limit", open_files_max)
        .kv("enough", databases * kFilesPerDatabase);
  }

  auto hooks = std::make_shared<DatabaseHooks>(*node, log);
  std::atomic<bool> mount_ended{false};
  MountOptions mount_options;
  mount_options.mount_dir = options.fuse_dir;
  mount_options.backing_dir = options.data_dir + "/db";
  mount_options.allow_other = options.fuse_allow_other;
  mount_options.mounting = [&](uint64_t device) { return node->mounting(device); };
  mount_options.ended = [&] {
    mount_ended = true;
    signals.wake();
  };
  std::unique_ptr<Mount> mount = TRY(Mount::start(mount_options, hooks, log));
  hooks->set_mount(mount.get());
  node->set_front_end(hooks.get());
  TRY(node->serve());

  if (!options.exec.empty() && !node->wait_readable(kReadableMax)) {
    log.warning("starting the application before every database can be read");
  }
  Supervision supervision{options.exec, options.candidate, [&] { return mount_ended.load(); }};
  supervision.descriptors = descriptors;
  Result<int> exit_code = supervise(supervision, signals, log);

  if (mount_ended) log.error("the mount was taken away; stopping");
  node->stop();
  node->set_front_end(nullptr);
  Status stopped = mount->stop();
  if (!stopped.ok()) {
    log.error("the mount did not end in order").error(stopped.error());
    std::fflush(nullptr);
    std::_Exit(1);  // a thread of it still runs
  }
  return exit_code;
}

}  // namespace
}  // namespace litefs

int main(int argc, char** argv) {
  return litefs::run_cli(argc, argv, litefs::CliStreams{std::cout, std::cerr, isatty(2) == 1}, litefs::run_node);
}
