// The guest's side of guest_wire.h: its connections to the process that runs the node.
//
// Thread rule: any thread; wait_event() by one.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "env/local_channel.h"
#include "node/guest_wire.h"

namespace litefs {

class GuestLink {
 public:
  // Waits until the node serves. kNotFound: nobody listens; kUnavailable: the host ended meanwhile; kTimedOut: it does
  // not answer.
  static Result<std::shared_ptr<GuestLink>> connect(const std::string& data_dir);
  ~GuestLink();

  const std::string& address() const { return address_; }
  // The role, the primary's name and the stopped databases, as the last event had them.
  NodeRole role() const { return role_; }
  std::string primary_host_name();
  // kIo: the database is stopped, and why.
  Status check_running(const std::string& database);

  // What the host answers. kCancelled: it has ended, or ends; kTimedOut: it does not answer, as it is stopped. What
  // changes files is waited for as long as the host lives, as it may do it at any later time.
  Result<Bytes> call(const GuestRequest& request);
  // Waits for news and takes the new state. GuestEvent bits; kCancelled: the host has ended, or shut() was called.
  Result<uint8_t> wait_event();
  // Whoever waits for an answer, or will, gets kCancelled.
  void shut();

 private:
  explicit GuestLink(const std::string& data_dir);
  Result<std::unique_ptr<LocalChannel>> open_channel(GuestConnection kind);
  Result<std::unique_ptr<LocalChannel>> take_channel();
  void give_back(std::unique_ptr<LocalChannel> channel);
  Result<Bytes> exchange(LocalChannel& channel, const GuestRequest& request);
  std::chrono::milliseconds answer_max() const;
  LocalChannel::Deadline deadline(const GuestRequest& request) const;
  Error silent(const LocalChannel& channel);
  Status take_state();

  const std::string path_;
  std::string address_;
  std::unique_ptr<LocalChannel> events_;
  std::atomic<NodeRole> role_{NodeRole::kStarting};
  std::atomic<bool> any_stopped_{false};
  std::atomic<bool> silent_{false};  // it has left a call unanswered, and answered none since

  Mutex mutex_;
  bool shut_ GUARDED_BY(mutex_) = false;
  std::vector<std::unique_ptr<LocalChannel>> idle_ GUARDED_BY(mutex_);
  std::vector<LocalChannel*> used_ GUARDED_BY(mutex_);
  GuestState state_ GUARDED_BY(mutex_);
};

}  // namespace litefs
