#include "db/paths.h"

#include "sqlite/file_name.h"

namespace litefs {
namespace {

// A file name's maximum, of which SQLite's longest suffix, a super-journal's, takes 12.
constexpr size_t kFileNameBytesMax = 255;
constexpr size_t kComponentBytesMax = kFileNameBytesMax - 12;

Status check_component(const std::string& part, const std::function<Error(const char*)>& invalid) {
  if (part.empty()) return invalid("has an empty part");
  if (part.size() > kComponentBytesMax) return invalid("has a part longer than 243 bytes");
  if (part[0] == '.') return invalid(part == "." || part == ".." ? "leads elsewhere" : "has a part that begins with a dot");
  if (FileName::parse(part).kind != FileKind::kDatabase || part.ends_with("-pos")) {
    return invalid("ends like one of a database's companion files");
  }
  return {};
}

}  // namespace

std::string escape_database_name(const std::string& name) {
  std::string escaped;
  for (char c : name) {
    if (c == '/') {
      escaped += "%2F";
    } else if (c == '%') {
      escaped += "%25";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::optional<std::string> unescape_database_name(const std::string& escaped) {
  std::string name;
  for (size_t i = 0; i < escaped.size(); ++i) {
    if (escaped[i] != '%') {
      name += escaped[i];
      continue;
    }
    const std::string code = escaped.substr(i + 1, 2);
    if (code != "2F" && code != "25") return std::nullopt;
    name += code == "2F" ? '/' : '%';
    i += 2;
  }
  return name;
}

Status check_database_name(const std::string& name) {
  std::function<Error(const char*)> invalid = [&](const char* why) {
    return Error(ErrorCode::kInvalid, "'" + name + "' cannot be a database's name: it " + why);
  };
  if (name.empty()) return invalid("is empty");
  if (name.find('\0') != std::string::npos) return invalid("has a zero byte");
  if (escape_database_name(name).size() > kFileNameBytesMax) {
    return invalid("is longer than 255 bytes, of which a slash or percent sign takes 3");
  }
  for (size_t begin = 0;;) {
    const size_t end = name.find('/', begin);
    TRY(check_component(name.substr(begin, end == std::string::npos ? end : end - begin), invalid));
    if (end == std::string::npos) return {};
    begin = end + 1;
  }
}

}  // namespace litefs
