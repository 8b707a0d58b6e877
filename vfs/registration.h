// The VFS's registration with SQLite, and the node that it stands for; there is one of each in a process.
//
// The VFS may be registered without a node: an open is then refused, unless a starter gives it one. Thread rule: any
// thread. Lock order: the starter's own lock, the registration's, SQLite's.
#pragma once

#include <chrono>
#include <memory>

#include "base/mutex.h"
#include "base/result.h"
#include "vfs/binding.h"

namespace litefs {

inline constexpr const char* kNoNode = "no node of litefs is open in this process";
inline constexpr const char* kEnding = "this process is ending, and its node has stopped";

// Called with each name that SQLite opens by the VFS, with its URI parameters behind it, before it is looked at, and
// may bind a node then; and with null by whatever else needs one. An error: there is none, and why.
using NodeStarter = Status (*)(const char* name);

// Whether SQLite's VFS "litefs" is another copy of this library's: the extension in a program that is linked with the
// library, or the reverse.
bool is_taken();
// SQLite's results: SQLITE_BUSY: it is; SQLITE_ERROR: it has no VFS "unix" of version 3.
int register_vfs(bool make_default, NodeStarter starter);
// SQLITE_BUSY: another node is bound. `node` is open. Closing it unbinds it, and fails while files are open by the VFS.
int bind_node(litefs_node* node);
// SQLITE_BUSY: files are open. Takes the VFS away too, where there is no starter.
int unregister_node(litefs_node* node);
// The node, for the open of a name or for something else (null). While it is held the node cannot be closed.
Result<std::shared_ptr<Binding>> node_for(const char* name);

// Calls under way that need the node's threads, for a process that ends: its node may stop while files are open, but
// not while one of these is under way, and none begins afterwards.
class NodeUsers {
 public:
  // False where it has ended.
  bool enter() {
    MutexLock lock(mutex_);
    if (ended_) return false;
    ++count_;
    return true;
  }
  void leave() {
    MutexLock lock(mutex_);
    if (--count_ == 0) left_.notify_all();
  }
  // Nobody enters any more. False where somebody is still in at the deadline.
  bool end(std::chrono::steady_clock::time_point until) {
    MutexLock lock(mutex_);
    ended_ = true;
    while (count_ > 0) {
      if (!left_.wait_until(mutex_, until)) return count_ == 0;
    }
    return true;
  }

 private:
  Mutex mutex_;
  CondVar left_ GUARDED_BY(mutex_);
  int count_ GUARDED_BY(mutex_) = 0;
  bool ended_ GUARDED_BY(mutex_) = false;
};

NodeUsers& node_users();

class NodeUser {
 public:
  explicit NodeUser(NodeUsers& users) : users_(users), entered_(users.enter()) {}
  ~NodeUser() {
    if (entered_) users_.leave();
  }
  NodeUser(const NodeUser&) = delete;
  NodeUser& operator=(const NodeUser&) = delete;
  explicit operator bool() const { return entered_; }

 private:
  NodeUsers& users_;
  const bool entered_;
};

}  // namespace litefs
