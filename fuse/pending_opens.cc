#include "fuse/pending_opens.h"

#include <fuse_lowlevel.h>

#include <cerrno>

namespace litefs {

namespace {

Error stopping_error() { return Error(ErrorCode::kCancelled, "the mount is stopping"); }

}  // namespace

void PendingOpens::start() {
  thread_ = std::make_unique<QuietThread>("litefs-opens", [this] { run(); });
}

void PendingOpens::submit(const OpenRequest& request, const std::function<void(Done)>& ask) {
  auto slot = std::make_shared<Slot>();
  slot->open = request;
  std::optional<Status> decision;
  {
    MutexLock lock(mutex_);
    if (stopping_) {
      decision = stopping_error();
    } else if (slots_.size() >= kPendingOpensMax) {
      decision = Error(ErrorCode::kBusy, "too many files are being opened");
    } else {
      slots_[request.request] = slot;
    }
  }
  if (!decision) {
    ask([self = shared_from_this(), slot](Status status) { self->decide(slot, std::move(status)); });
    decision = park(slot);
  }
  if (decision) finish_(request, *decision);
}

// The decision, when there is one by now; else the request waits here.
std::optional<Status> PendingOpens::park(const std::shared_ptr<Slot>& slot) {
  fuse_req* request = slot->open.request;
  {
    MutexLock lock(mutex_);
    if (slot->decision) {
      slots_.erase(request);
      return slot->decision;
    }
  }
  // Not under the mutex: libfuse calls back here at once when the application has given up already.
  // The request is still ours alone, as it is not parked.
  fuse_req_interrupt_func(
      request, [](fuse_req* r, void* self) { static_cast<PendingOpens*>(self)->interrupt(r); }, this);
  MutexLock lock(mutex_);
  if (!slot->decision && slot->interrupted) {
    slot->decision = Error(ErrorCode::kCancelled, "the application has given up");
  }
  if (!slot->decision && stopping_) slot->decision = stopping_error();
  if (slot->decision) {
    slots_.erase(request);
    return slot->decision;
  }
  slot->parked = true;
  slot->deadline = deadline_in(time_max_);
  changed_.notify_all();
  return std::nullopt;
}

void PendingOpens::decide(const std::shared_ptr<Slot>& slot, Status status) {
  MutexLock lock(mutex_);
  if (slot->decision) return;
  slot->decision = std::move(status);
  if (slot->parked) changed_.notify_all();
}

void PendingOpens::interrupt(fuse_req* request) {
  {
    MutexLock lock(mutex_);
    auto it = slots_.find(request);
    if (it == slots_.end()) return;
    Slot& slot = *it->second;
    if (!slot.parked) {
      slot.interrupted = true;
      return;
    }
    if (slot.decision) return;
    slot.decision = Error(ErrorCode::kCancelled, "the application has given up");
    slots_.erase(it);
  }
  fuse_reply_err(request, EINTR);
}

std::vector<std::shared_ptr<PendingOpens::Slot>> PendingOpens::take_due() {
  std::vector<std::shared_ptr<Slot>> due;
  Deadline now = std::chrono::steady_clock::now();
  for (auto it = slots_.begin(); it != slots_.end();) {
    Slot& slot = *it->second;
    if (slot.parked && !slot.decision) {
      if (stopping_) {
        slot.decision = stopping_error();
      } else if (slot.deadline <= now) {
        slot.decision = Error(ErrorCode::kBusy, "the database is not ready in time");
      }
    }
    if (slot.parked && slot.decision) {
      due.push_back(it->second);
      it = slots_.erase(it);
    } else {
      ++it;
    }
  }
  return due;
}

void PendingOpens::run() {
  for (;;) {
    std::vector<std::shared_ptr<Slot>> due;
    {
      MutexLock lock(mutex_);
      while ((due = take_due()).empty()) {
        if (stopping_) return;
        Deadline next = Deadline::max();
        for (const auto& [request, slot] : slots_) {
          if (slot->parked) next = std::min(next, slot->deadline);
        }
        if (next == Deadline::max()) {
          changed_.wait(mutex_);
        } else {
          changed_.wait_until(mutex_, next);
        }
      }
    }
    for (const std::shared_ptr<Slot>& slot : due) finish_(slot->open, *slot->decision);
  }
}

bool PendingOpens::stop(Deadline deadline) {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (!thread_ || thread_->join_until(deadline)) return true;
  thread_->abandon();
  return false;
}

}  // namespace litefs
