// Tells an application of a node's role and of its databases' positions, on a thread of its own and under no lock.
//
// What happens while a call is under way is noted once: the call after it tells how things are then. So what waits is
// never more than one role and one position for each database. Thread rule: any thread; stop() and the destructor by
// the owner's, not within a call.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <thread>

#include "base/mutex.h"

namespace litefs {

class Events {
 public:
  Events();
  ~Events();
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  // Sets who is told; empty: nobody. When this returns the one before is not called any more, but for the call from
  // within which this is called. The one of roles is called soon.
  void on_role(std::function<void()> told);
  void on_position(std::function<void(const std::string& name)> told);
  // Whether the calling thread is the one on which calls are made.
  bool is_calling() const { return std::this_thread::get_id() == thread_.get_id(); }

  void role_changed();
  void position_moved(const std::string& name);
  void stop();

 private:
  void run();
  void wait_called() REQUIRES(mutex_);

  Mutex mutex_;
  CondVar wake_ GUARDED_BY(mutex_);
  CondVar called_ GUARDED_BY(mutex_);
  std::function<void()> role_ GUARDED_BY(mutex_);
  std::function<void(const std::string&)> position_ GUARDED_BY(mutex_);
  bool role_pending_ GUARDED_BY(mutex_) = false;
  std::set<std::string> moved_ GUARDED_BY(mutex_);
  bool calling_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace litefs
