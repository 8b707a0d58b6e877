#include "fuse/serving.h"

#include <cerrno>
#include <cstring>

#include "env/file.h"
#include "fuse/protocol.h"

namespace litefs {

namespace {

// Those that touch neither a hook that may block nor a disk's contents.
bool may_block(uint32_t opcode) {
  switch (opcode) {
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
    case FUSE_STATFS:
    case FUSE_RELEASEDIR: return false;
    default: return true;
  }
}

}  // namespace

ServingThreads::ServingThreads(Device& device, const Log& log, std::function<void()> ended)
    : device_(device), log_(log), ended_(std::move(ended)) {}

void ServingThreads::start() {
  MutexLock lock(mutex_);
  for (size_t i = 0; i < kServingThreadsAtRest; ++i) grow();
}

void ServingThreads::grow() {
  // Those that have left are joined here, so that the list stays as long as the threads are many.
  threads_.remove_if([](QuietThread& thread) { return thread.join_until(Deadline()); });
  ++running_;
  ++begun_;
  grown_ = std::chrono::steady_clock::now();
  threads_.emplace_back("litefs-fuse", [this] { serve(); });
}

// False: this thread is to leave.
bool ServingThreads::go_idle(bool first) {
  MutexLock lock(mutex_);
  if (first) --begun_;
  bool spare = idle_ >= kServingThreadsAtRest && std::chrono::steady_clock::now() - grown_ > kLinger;
  if (!draining_ && !spare) {
    ++idle_;
    return true;
  }
  --running_;
  changed_.notify_all();
  return false;
}

void ServingThreads::go_busy(bool blocking) {
  MutexLock lock(mutex_);
  --idle_;
  if (!blocking || idle_ + begun_ > 0 || draining_) return;
  if (running_ < kServingThreadsMax) {
    grow();
  } else if (!full_logged_) {
    full_logged_ = true;
    log_.warning("all serving threads are busy").kv("threads", running_);
  }
}

void ServingThreads::serve() {
  // Not zeroed: only the pages that requests really fill are ever touched.
  auto memory = std::make_unique_for_overwrite<uint8_t[]>(Device::kRequestBytesMax);
  MutableByteView buffer(memory.get(), Device::kRequestBytesMax);
  for (bool first = true; go_idle(first); first = false) {
    ssize_t size = device_.read(buffer);
    uint32_t opcode = 0;
    if (size >= static_cast<ssize_t>(sizeof(fuse_in_header))) {
      std::memcpy(&opcode, buffer.data() + offsetof(fuse_in_header, opcode), sizeof opcode);
      go_busy(may_block(opcode));
      device_.process(buffer.first(static_cast<size_t>(size)));
      continue;
    }
    go_busy(false);
    // ENOENT: the request was taken back before it could be read.
    if (size == -EINTR || size == -ENOENT || size == -EAGAIN) continue;
    if (size != -ENODEV) {
      log_.error("reading requests failed").kv("reason", errno_text(static_cast<int>(-size)));
    }
    bool unexpected_end = false;
    {
      MutexLock lock(mutex_);
      unexpected_end = --running_ == 0 && !draining_;
      changed_.notify_all();
    }
    if (unexpected_end && ended_) ended_();
    return;
  }
}

bool ServingThreads::drain(Deadline deadline) {
  MutexLock lock(mutex_);
  draining_ = true;
  while (running_ > idle_) {
    if (!changed_.wait_until(mutex_, deadline) && running_ > idle_) return false;
  }
  return true;
}

bool ServingThreads::join_until(Deadline deadline) {
  std::list<QuietThread> threads;
  {
    MutexLock lock(mutex_);
    draining_ = true;
    threads.swap(threads_);
  }
  bool all = true;
  for (QuietThread& thread : threads) {
    if (thread.join_until(deadline)) continue;
    thread.abandon();
    all = false;
  }
  return all;
}

size_t ServingThreads::threads() {
  MutexLock lock(mutex_);
  return running_;
}

}  // namespace litefs
