#include <sys/random.h>
#include <time.h>

#include <cstdio>

#include "env/clock.h"

namespace litefs {
namespace {

int64_t read_ns(clockid_t id) {
  struct timespec t;
  CHECK_EQ(clock_gettime(id, &t), 0);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

class SystemClock final : public Clock {
 public:
  int64_t monotonic_ns() override { return read_ns(CLOCK_MONOTONIC); }
  int64_t wall_ms() override { return read_ns(CLOCK_REALTIME) / 1000000; }
  int64_t boottime_ms() override { return read_ns(CLOCK_BOOTTIME) / 1000000; }
  std::string boot_id() override {
    char text[64] = "";
    if (FILE* f = std::fopen("/proc/sys/kernel/random/boot_id", "re")) {
      if (!std::fgets(text, sizeof text, f)) text[0] = 0;
      std::fclose(f);
    }
    std::string id = text;
    while (!id.empty() && id.back() == '\n') id.pop_back();
    return id;
  }
};

class SystemRandom final : public Random {
 public:
  void fill(MutableByteView out) override {
    size_t done = 0;
    while (done < out.size()) {
      ssize_t n = getrandom(out.data() + done, out.size() - done, 0);
      if (n > 0) done += static_cast<size_t>(n);
    }
  }
};

}  // namespace

std::unique_ptr<Clock> system_clock() { return std::make_unique<SystemClock>(); }
std::unique_ptr<Random> system_random() { return std::make_unique<SystemRandom>(); }

}  // namespace litefs
