#include "env/owned_descriptor.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>

namespace litefs {
namespace {

constexpr int kBits = 64;
constexpr auto kForkWaitMax = std::chrono::milliseconds(200);
constexpr long kNapNs = 50'000;

// Constant initialisation: they are used before main() and after it.
constinit std::atomic<uint64_t> noted[kNotedMax / kBits] = {};
constinit std::atomic<int> noted_end{0};  // words of `noted` from here on have never had a bit
constinit std::atomic<uint32_t> generation{0};
constinit std::atomic<int> holds{0};
constinit std::atomic<int> forks{0};  // that are under way
static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

void nap() {
  const struct timespec time = {0, kNapNs};
  nanosleep(&time, nullptr);
}

// Not for longer: the thread that forks may be in one itself, in a signal handler.
void before_fork() {
  forks.fetch_add(1);
  const auto until = std::chrono::steady_clock::now() + kForkWaitMax;
  while (holds.load() > 0 && std::chrono::steady_clock::now() < until) nap();
}

void after_fork_in_parent() { forks.fetch_sub(1); }

// Only what is async-signal-safe: other threads may have been anywhere.
void after_fork_in_child() {
  const int error = errno;
  const int end = noted_end.load();
  for (int word = 0; word < end; ++word) {
    for (uint64_t bits = noted[word].exchange(0); bits != 0; bits &= bits - 1) {
      close(word * kBits + __builtin_ctzll(bits));
    }
  }
  generation.fetch_add(1);
  holds.store(0);
  forks.store(0);
  errno = error;
}

void watch_forks() {
  // It fails only for want of memory. Then children are as they would be without this file.
  static const int watched = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  static_cast<void>(watched);
}

}  // namespace

uint32_t fork_generation() { return generation.load(std::memory_order_relaxed); }

ForkHold::ForkHold() : generation_(fork_generation()) {
  watch_forks();
  for (;;) {
    holds.fetch_add(1);
    if (forks.load() == 0) return;
    holds.fetch_sub(1);
    nap();
  }
}

ForkHold::~ForkHold() {
  if (generation_ == fork_generation()) holds.fetch_sub(1);
}

void note_descriptor(int fd) {
  if (fd < 0 || fd >= kNotedMax) return;
  const int word = fd / kBits;
  int end = noted_end.load();
  while (end <= word && !noted_end.compare_exchange_weak(end, word + 1)) {
  }
  noted[word].fetch_or(uint64_t{1} << (fd % kBits));
}

void forget_descriptor(int fd) {
  if (fd >= 0 && fd < kNotedMax) noted[fd / kBits].fetch_and(~(uint64_t{1} << (fd % kBits)));
}

OwnedDescriptor::OwnedDescriptor(int fd) : fd_(fd), generation_(fork_generation()) { note_descriptor(fd); }

OwnedDescriptor::~OwnedDescriptor() {
  if (get() < 0) return;
  ForkHold hold;
  forget_descriptor(fd_);
  close(fd_);
}

}  // namespace litefs
