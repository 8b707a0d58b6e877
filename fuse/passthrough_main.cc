// litefs-passthrough BACKING MOUNTPOINT: the bare mount, with no database behind it, for benchmarks
// to compare with. Prints "ready" when it is mounted; SIGTERM or SIGINT ends it, as does unmounting
// it.

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "fuse/mount.h"

namespace {

class StderrSink final : public litefs::LogSink {
 public:
  void write(litefs::LogLevel level, std::string_view line) override {
    std::string text = litefs::log_level_name(level);
    text.append(" ").append(line).append("\n");
    std::fputs(text.c_str(), stderr);
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: litefs-passthrough BACKING MOUNTPOINT\n");
    return 2;
  }
  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ending, nullptr);

  litefs::Log log(std::make_shared<StderrSink>());
  litefs::MountOptions options;
  options.backing_dir = argv[1];
  options.mount_dir = argv[2];
  options.allow_other = true;
  options.ended = [] { kill(getpid(), SIGTERM); };
  auto mount = litefs::Mount::start(options, litefs::no_hooks(), log);
  if (!mount) {
    std::fprintf(stderr, "litefs-passthrough: %s\n", mount.error().message().c_str());
    return 1;
  }
  std::printf("ready\n");
  std::fflush(stdout);
  int signal = 0;
  sigwait(&ending, &signal);
  litefs::Status stopped = mount.value()->stop();
  if (!stopped) std::fprintf(stderr, "litefs-passthrough: %s\n", stopped.error().message().c_str());
  return stopped.ok() ? 0 : 1;
}
