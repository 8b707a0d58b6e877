#include "repl/lease.h"

namespace litefs {
namespace {

class StaticLease final : public Lease {
 public:
  StaticLease(const StaticLeaseOptions& options, std::function<void(std::function<void()>)> post)
      : options_(options), post_(std::move(post)) {}

  void start(LeaseListener& listener) override {
    post_([options = options_, &listener] {
      if (options.candidate) {
        listener.lease_acquired(options.epoch, std::nullopt);
      } else {
        listener.leader_is(LeaderInfo{options.primary_url});
      }
    });
  }

 private:
  const StaticLeaseOptions options_;
  const std::function<void(std::function<void()>)> post_;
};

}  // namespace

std::unique_ptr<Lease> static_lease(const StaticLeaseOptions& options,
                                    std::function<void(std::function<void()>)> post) {
  return std::make_unique<StaticLease>(options, std::move(post));
}

}  // namespace litefs
