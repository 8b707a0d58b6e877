// What a litefs_node of the C interface is, for the rooms that use it too (the VFS). Promises and thread rules:
// litefs/litefs.h.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/mutex.h"
#include "env/fork_guard.h"
#include "node/events.h"
#include "node/member.h"

struct litefs_node final : private litefs::Member::Listener {
 public:
  litefs::Status open(const struct litefs_options& options);
  litefs::Status close();

  // Null: it could not be opened.
  litefs::Member* member() { return member_.get(); }
  bool forked() const { return guard_ && guard_->forked(); }
  litefs::Events& events() { return events_; }
  // What must succeed before the node may be closed; empty: nothing.
  void set_before_close(std::function<litefs::Status()> before_close);

  int fail(int result, const std::string& message);
  std::string message();

 private:
  void role_changed() override { events_.role_changed(); }
  void position_moved(const std::string& name) override { events_.position_moved(name); }

  std::unique_ptr<litefs::ForkGuard> guard_;
  litefs::Events events_;
  litefs::Mutex mutex_;
  std::string message_ GUARDED_BY(mutex_);
  std::function<litefs::Status()> before_close_ GUARDED_BY(mutex_);
  std::unique_ptr<litefs::Member> member_;
};
