#include "db/directories.h"

#include <sys/stat.h>

namespace litefs {

Status make_parents(const DatabaseDirectories& directories, const std::string& name) {
  for (size_t end = name.find('/'); end != std::string::npos; end = name.find('/', end + 1)) {
    const std::string part = name.substr(0, end);
    const std::string path = directories.root + "/" + part;
    Result<FileInfo> there = directories.files.info(path);
    if (there.ok() && S_ISDIR(there.value().mode)) continue;
    if (there.ok()) return Error(ErrorCode::kBusy, path + " is in the way of a directory of that name");
    if (there.error().code() != ErrorCode::kNotFound) return there.error();
    FileInfo above = TRY(directories.files.info(directory_of(path)));
    TRY(directories.files.make_directories(path));
    TRY(directories.files.set_owner(path, above.uid, above.gid, above.mode));
    TRY(directories.files.sync_directory(directory_of(path)));
    directories.changed(part);
  }
  return {};
}

Status remove_empty_parents(const DatabaseDirectories& directories, const std::string& name) {
  for (size_t end = name.rfind('/'); end != std::string::npos && end > 0; end = name.rfind('/', end - 1)) {
    const std::string part = name.substr(0, end);
    const std::string path = directories.root + "/" + part;
    Result<std::vector<std::string>> entries = directories.files.list(path);
    if (!entries.ok() && entries.error().code() == ErrorCode::kNotFound) continue;
    if (!entries.ok()) return entries.error();
    if (!entries.value().empty()) return {};
    Status removed = directories.files.remove(path);
    // Somebody has made something in it since.
    if (!removed.ok()) return {};
    directories.changed(part);
  }
  return {};
}

}  // namespace litefs
