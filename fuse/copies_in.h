// Files that applications copy onto a primary's mount (cp, cat >, dd, a file manager): written with O_WRONLY, as SQLite
// never opens, without a journal, under a name that has no database yet.
//
// Such a file is taken as it comes. Until its writer has closed it, nobody else can open it (an open waits, and is
// EBUSY at the mount's deadline). Then it becomes the database of its name as one transaction, or it is removed and the
// log says why. A database that is there cannot be copied over: that is refused before anything changes. Thread rule:
// any serving thread; nothing is called under the mutex.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "fuse/hooks.h"
#include "node/node.h"

namespace litefs {

class CopiesIn {
 public:
  using Done = std::function<void(Status)>;
  using Again = std::function<void(const MountHooks::Opening&, Done)>;

  // `again` is asked about an open that has waited for a copy's end.
  CopiesIn(Node& node, const Log& log, Again again) : node_(node), log_(log), again_(std::move(again)) {}

  // False: the open is no business of a copy. Else it is decided, or waits.
  bool before_open(const MountHooks::Opening& opening, const Done& done);
  void opened(const std::string& database);
  void closed(const std::string& database);
  void unlinked(const std::string& database);
  // A file of this name is being copied in: its writes pass.
  bool has(const std::string& database);

 private:
  struct Copy {
    std::vector<std::pair<MountHooks::Opening, Done>> waiting;
  };

  Status begin(const MountHooks::Opening& opening);
  void end(const std::string& database);

  Node& node_;
  Log log_;
  Again again_;
  Mutex mutex_;
  std::map<std::string, Copy> copies_ GUARDED_BY(mutex_);
  std::set<std::string> open_ GUARDED_BY(mutex_);  // databases that somebody has open
};

}  // namespace litefs
