// Who may be primary: the lease, and what a node hears of it.
//
// A backend tells its listener what happens, on the loop's thread, never from inside a call.
// Deadlines count by CLOCK_BOOTTIME from before the request that won them was sent. Thread rule:
// the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/types.h"

namespace litefs {

// The node that holds the lease, as others know it.
struct LeaderInfo {
  std::string url;
};

class LeaseListener {
 public:
  virtual ~LeaseListener() = default;
  // This node is primary, in `epoch`, which it has stored; until_ms by the boottime clock, nothing:
  // without end.
  virtual void lease_acquired(Epoch epoch, std::optional<int64_t> until_ms) = 0;
  virtual void lease_renewed(std::optional<int64_t> until_ms) = 0;
  virtual void lease_lost() = 0;
  // Another node is primary.
  virtual void leader_is(const LeaderInfo& leader) = 0;
};

class Lease {
 public:
  virtual ~Lease() = default;
  virtual void start(LeaseListener& listener) = 0;
};

// The static lease: who is primary stands in the configuration and never changes while the node
// runs. The node has raised its epoch durably before.
struct StaticLeaseOptions {
  bool candidate = false;
  std::string primary_url;
  Epoch epoch;  // raised already, where candidate
};
std::unique_ptr<Lease> static_lease(const StaticLeaseOptions& options, std::function<void(std::function<void()>)> post);

}  // namespace litefs
