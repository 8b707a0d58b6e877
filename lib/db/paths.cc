#include "db/paths.h"

#include "sqlite/file_name.h"

namespace litefs {

Status check_database_name(const std::string& name) {
  auto invalid = [&](const char* why) {
    return Error(ErrorCode::kInvalid, "'" + name + "' cannot be a database's name: it " + why);
  };
  if (name.empty()) return invalid("is empty");
  if (name.size() > 200) return invalid("is longer than 200 bytes");
  if (name[0] == '.') return invalid("begins with a dot");
  if (name.find('/') != std::string::npos) return invalid("has a slash");
  if (FileName::parse(name).kind != FileKind::kDatabase || name.ends_with("-pos")) {
    return invalid("ends like one of a database's companion files");
  }
  return {};
}

}  // namespace litefs
