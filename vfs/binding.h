// The node that the VFS is registered for: its databases' doors, how many files are open, and which names are its.
// Thread rule: any thread. It lives until the last file that it opened is closed.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/mutex.h"
#include "node/c_api.h"
#include "node/member_door.h"

namespace litefs {

class Binding {
 public:
  explicit Binding(litefs_node& handle) : handle_(handle), member_(*handle.member()) {}

  litefs_node& handle() const { return handle_; }
  // Of all connections: which files of the data directory they have open.
  LateClosingFiles& files() const { return member_.files(); }
  const std::string& root() const { return member_.root(); }
  bool forked() const { return handle_.forked(); }

  // The file of a path, or nothing where it does not lie in DATA/db.
  std::optional<FileName> file_at(const std::string& path) const;
  struct DatabasePath {
    std::string path;
    bool by_link = false;  // the name has a symbolic link in it, which `path` has not
  };
  // The path of a database's name, or of an absolute path below DATA/db. kInvalid: it cannot be a database's.
  Result<DatabasePath> database_path(const std::string& name) const;

  // The one that its open files have, or a new one.
  std::shared_ptr<MemberDoor> door(const std::string& database);

 private:
  litefs_node& handle_;
  Member& member_;
  Mutex mutex_;
  std::map<std::string, std::weak_ptr<MemberDoor>> doors_ GUARDED_BY(mutex_);
};

}  // namespace litefs
