#include "vfs/binding.h"

#include <filesystem>

#include "db/paths.h"

namespace litefs {

std::optional<FileName> Binding::file_at(const std::string& path) const {
  const std::string& root = member_.root();
  if (path.size() <= root.size() + 1 || path.compare(0, root.size(), root) != 0 || path[root.size()] != '/') {
    return std::nullopt;
  }
  return FileName::parse(path.substr(root.size() + 1));
}

Result<Binding::DatabasePath> Binding::database_path(const std::string& name) const {
  const bool absolute = !name.empty() && name[0] == '/';
  const std::filesystem::path asked = absolute ? name : member_.root() + "/" + name;
  // Links are followed here, so that one name leads to one database, and none out of the directory.
  std::error_code error;
  const std::string path = std::filesystem::weakly_canonical(asked, error).string();
  std::optional<FileName> file = error ? std::nullopt : file_at(path);
  if (!file) {
    return Error(ErrorCode::kInvalid, "it does not lie in " + member_.root() + ", where this node's databases are");
  }
  TRY(check_database_name(path.substr(member_.root().size() + 1)));
  return DatabasePath{path, asked.lexically_normal() != path};
}

std::shared_ptr<MemberDoor> Binding::door(const std::string& database) {
  MutexLock lock(mutex_);
  auto it = doors_.find(database);
  std::shared_ptr<MemberDoor> door = it == doors_.end() ? nullptr : it->second.lock();
  if (door) return door;
  std::erase_if(doors_, [](const auto& entry) { return entry.second.expired(); });
  door = std::make_shared<MemberDoor>(member_, database);
  doors_[database] = door;
  return door;
}

}  // namespace litefs
