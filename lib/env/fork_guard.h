// Whether this is still the process that made the object, or a child that was forked since.
//
// A forked child has neither the node's threads nor SQLite's locks, but copies of both's memory: whatever it did with
// them would be wrong. The kernel wipes a page of the child's memory (MADV_WIPEONFORK, Linux 4.14), so that asking
// costs one load, and no way of forking is missed that copies memory. Thread rule: any thread.
#pragma once

#include <memory>

#include "base/result.h"

namespace litefs {

class ForkGuard {
 public:
  // kUnavailable: the kernel cannot do it.
  static Result<std::unique_ptr<ForkGuard>> create();
  ~ForkGuard();
  ForkGuard(const ForkGuard&) = delete;
  ForkGuard& operator=(const ForkGuard&) = delete;

  bool forked() const { return *page_ == 0; }

 private:
  explicit ForkGuard(volatile const unsigned char* page) : page_(page) {}

  volatile const unsigned char* page_;
};

}  // namespace litefs
