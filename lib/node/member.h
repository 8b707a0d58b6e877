// A process's membership in a data directory: it runs the node (the host), or is a guest of the process that does.
//
// Who opens a data directory whose node runs in another process becomes its guest. When a guest finds that the host has
// ended, in whatever way, it becomes the host; of several one does, and the others are its guests. Connections stay
// open meanwhile: what they ask for waits, up to kHostMax, and then fails as a full disk would, so that SQLite takes
// the transaction back. Commits in the WAL do not wait: they are captured by the next host.
//
// DATA/lock has two locks (node_file.h): who runs the node, and (shared) who attends, host and guests, so that a node
// that starts knows whether others have the databases open.
//
// Thread rule: opened and destroyed by the owner's thread, when no connection has a database open; the rest by any.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"
#include "env/late_closing.h"
#include "node/database_door.h"
#include "node/guest_link.h"
#include "node/guest_server.h"
#include "node/in_process.h"

namespace litefs {

// Who answers at a time: the node of this process, or a link to another's. Both null: nobody does now.
struct MemberSeat {
  std::shared_ptr<InProcessNode> node{};
  std::shared_ptr<GuestLink> link{};
  uint64_t number = 0;  // another one for every other host
  explicit operator bool() const { return node || link; }
};

class Member final : private InProcessNode::Listener {
 public:
  // Who is told, on any thread, under locks: only notes and wakes. Outlives the member.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void role_changed() = 0;
    virtual void position_moved(const std::string& name) = 0;
  };
  static constexpr std::chrono::milliseconds kHostMax{30'000};

  static Result<std::unique_ptr<Member>> open(const Options& options, const Log& log, Listener& listener);
  ~Member() override;
  // For a process that ends while others of its threads use databases: a host's node stops in order. Nothing is freed,
  // and what is committed from then on is the next host's to capture.
  void end();

  LateClosingFiles& files() { return files_; }
  // DATA/db, without symbolic links.
  const std::string& root() const { return root_; }
  bool is_host();
  // This process's node; null while another runs it. It stays until the member is destroyed.
  std::shared_ptr<InProcessNode> hosted() { return seat().node; }
  NodeRole role();
  std::string primary_host_name();

  Result<std::string> address();
  Result<NodeStatus> status();
  Result<std::optional<int64_t>> lag_ms();
  // As InProcessNode has them.
  Result<Position> position(const std::string& name, bool drains);
  Status wait_position(const std::string& name, const Position& wanted, std::chrono::milliseconds timeout);
  // From here on the listener is told of positions; a host's always is.
  void follow_positions();

 private:
  friend class MemberDoor;
  using Seat = MemberSeat;

  Member(const Options& options, const Log& log, Listener& listener)
      : options_(options), log_(log), listener_(listener) {}
  Status prepare();
  Result<bool> attend();
  void leave();
  Status become_host();
  Status become_guest();
  Status join();
  void run();
  void take_over();
  bool wait_closing(std::chrono::milliseconds pause);
  void set_seat(Seat seat);
  Seat seat();
  // 0: nobody answers.
  uint64_t seat_number() const { return seat_number_; }
  // kCancelled: the member is closed; kTimedOut: there is no host.
  Result<Seat> wait_seat(std::chrono::steady_clock::time_point until);
  // Its host has ended.
  void leave_seat(uint64_t number);
  bool is_closing();
  Result<std::vector<std::pair<std::string, Position>>> positions();
  void tell_positions();
  std::shared_ptr<GuestServer> server();
  template <class Ask>
  auto ask(const Ask& ask) -> decltype(ask(Seat()));
  std::unique_ptr<DatabaseDoor> make_door(const Seat& seat, const std::string& name,
                                          std::shared_ptr<const std::atomic<int>> index_users);

  // InProcessNode::Listener
  void role_changed() override;
  void position_moved(const std::string& name) override;
  void state_changed() override;

  Options options_;
  const Log log_;
  Listener& listener_;
  const std::unique_ptr<FileSystem> real_files_ = posix_file_system();
  LateClosingFiles files_{*real_files_};
  std::string root_;
  std::optional<std::pair<uint64_t, uint64_t>> directory_;  // device, inode
  std::unique_ptr<File> attending_;                         // DATA/lock, with the shared lock

  Mutex mutex_;
  CondVar changed_ GUARDED_BY(mutex_);
  Seat seat_ GUARDED_BY(mutex_);
  uint64_t seats_ GUARDED_BY(mutex_) = 0;
  std::atomic<uint64_t> seat_number_{0};  // written under mutex_
  bool closing_ GUARDED_BY(mutex_) = false;
  std::shared_ptr<GuestServer> server_ GUARDED_BY(mutex_);  // a host's
  std::atomic<bool> follows_{false};
  std::map<std::string, Position> told_;  // thread_'s own
  std::thread thread_;                    // a guest's
};

}  // namespace litefs
