#include "db/paths.h"

#include <algorithm>

#include "sqlite/file_name.h"

namespace litefs {
namespace {

// A file name's maximum, of which SQLite's longest suffix, a super-journal's, takes 12.
constexpr size_t kFileNameBytesMax = 255;
constexpr size_t kComponentBytesMax = kFileNameBytesMax - 12;

bool is_control(char c) { return static_cast<unsigned char>(c) < ' ' || c == 127; }

Status check_component(const std::string& part, const std::function<Error(const char*)>& invalid) {
  if (part.empty()) return invalid("has an empty part");
  if (part.size() > kComponentBytesMax) return invalid("has a part longer than 243 bytes");
  if (part[0] == '.')
    return invalid(part == "." || part == ".." ? "leads elsewhere" : "has a part that begins with a dot");
  if (FileName::parse(part).kind != FileKind::kDatabase || part.ends_with("-pos")) {
    return invalid("ends like one of a database's companion files");
  }
  return {};
}

}  // namespace

bool has_control_characters(const std::string& name) { return std::any_of(name.begin(), name.end(), is_control); }

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
    std::string shown = name;
    std::replace_if(shown.begin(), shown.end(), is_control, '?');
    return Error(ErrorCode::kInvalid, "'" + shown + "' cannot be a database's name: it " + why);
  };
  if (name.empty()) return invalid("is empty");
  if (has_control_characters(name)) return invalid("has a control character, as a line end or a tab");
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
