// Descriptors that are the library's, and that no forked process is to keep.
//
// A child of fork() has a copy of each descriptor of its parent. OFD locks, a port and connections are given up when
// the last copy is closed: a child that outlives its killed parent would keep the data directory from every other
// process. So what the library opens is noted here, and a handler of pthread_atfork() closes it all in the child before
// fork() returns there. The parent's locks stay, as they are the open file description's. SQLite's own descriptors are
// left: their locks are the parent process's alone.
//
// It is one table for the process, as a process forks as a whole; the handlers take no lock and no memory. A fork waits
// a moment for descriptors that are being opened or closed just then (ForkHold), so that none is missed.
//
// Not covered: a connection that libuv is accepting at that moment; a directory that is being listed; numbers from
// kNotedMax on; children that are made past the handlers (a bare clone(); vfork() and posix_spawn() are followed by
// execve(), which closes all of them). Only for threads that share the process's table of descriptors. Thread rule: any
// of those.
#pragma once

#include <cstdint>
#include <utility>

namespace litefs {

constexpr int kNotedMax = 1 << 20;  // fs.nr_open's default

// Counts the forks that led to this process. What was noted under another number is not here any more, and its number
// may be somebody else's.
uint32_t fork_generation();

// While one lives no fork() begins, but for one that has waited for kForkWaitMax. Only around the opening or closing of
// descriptors; they do not nest.
class ForkHold {
 public:
  ForkHold();
  ~ForkHold();
  ForkHold(const ForkHold&) = delete;
  ForkHold& operator=(const ForkHold&) = delete;

 private:
  uint32_t generation_;
};

// For descriptors that something else closes (libuv); under a ForkHold. Negative numbers have no effect.
void note_descriptor(int fd);
void forget_descriptor(int fd);

class OwnedDescriptor {
 public:
  OwnedDescriptor() = default;
  // Notes what `open` answers, which is a descriptor or negative; errno is as `open` left it.
  template <class Open>
  static OwnedDescriptor from(Open open) {
    ForkHold hold;
    OwnedDescriptor owned(open());
    return owned;
  }
  OwnedDescriptor(OwnedDescriptor&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), generation_(other.generation_) {}
  OwnedDescriptor& operator=(OwnedDescriptor&&) = delete;
  ~OwnedDescriptor();

  // -1: there is none, or it was closed as the process was forked. Every system call refuses that number.
  int get() const { return generation_ == fork_generation() ? fd_ : -1; }

 private:
  explicit OwnedDescriptor(int fd);

  int fd_ = -1;
  uint32_t generation_ = 0;
};

}  // namespace litefs
