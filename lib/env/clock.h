// Time and randomness, handed in so that tests can replace them. Thread rule: any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"

namespace litefs {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t monotonic_ns() = 0;
  // Since 1970; for people and for lag, never for deadlines.
  virtual int64_t wall_ms() = 0;
  // Counts while the machine is suspended: for leases.
  virtual int64_t boottime_ms() = 0;
  // Identifies this boot of this machine: what was not synced may be gone under another one.
  virtual std::string boot_id() = 0;
};

class Random {
 public:
  virtual ~Random() = default;
  virtual void fill(MutableByteView out) = 0;

  uint64_t u64() {
    uint8_t b[8];
    fill(b);
    return load_le64(b);
  }
  // Never 0, which identifiers use for "none".
  uint64_t nonzero_u64() {
    uint64_t v;
    do v = u64();
    while (v == 0);
    return v;
  }
};

std::unique_ptr<Clock> system_clock();
std::unique_ptr<Random> system_random();

}  // namespace litefs
