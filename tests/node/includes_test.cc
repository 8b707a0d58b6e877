// The rooms of the house (DESIGN section 2): includes go only downward, and only env/ speaks to the operating system.
#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <vector>

#include "test.h"

namespace litefs {
namespace {

namespace fs = std::filesystem;

// Bottom up. A room may include itself and what stands before it.
const std::vector<std::string> kRooms = {"base", "env", "changelog", "sqlite", "db", "repl", "node"};

// Headers through which a file reaches the operating system or SQLite itself.
const std::set<std::string> kSystemHeaders = {"dirent.h", "fcntl.h", "netdb.h",  "poll.h", "pthread.h", "signal.h",
                                              "spawn.h",  "time.h",  "unistd.h", "uv.h",   "sqlite3.h"};

struct Include {
  std::string file;  // relative to the top of the source tree
  int line;
  std::string header;
  bool quoted;
};

// Every #include of the C and C++ files below `directory`.
std::vector<Include> includes_below(const fs::path& top, const std::string& directory) {
  std::vector<Include> found;
  if (!fs::exists(top / directory)) return found;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(top / directory)) {
    std::string extension = entry.path().extension().string();
    if (extension != ".h" && extension != ".cc" && extension != ".c") continue;
    std::ifstream in(entry.path());
    std::string text;
    for (int line = 1; std::getline(in, text); ++line) {
      std::istringstream words(text);
      std::string directive, header;
      words >> directive;
      if (directive == "#") {
        words >> directive;
        directive = "#" + directive;
      }
      if (directive.rfind("#include", 0) != 0) continue;
      header = text.substr(text.find("include") + 7);
      size_t begin = header.find_first_of("\"<"), end = header.find_last_of("\">");
      if (begin == std::string::npos || end <= begin) continue;
      found.push_back({fs::relative(entry.path(), top).string(), line, header.substr(begin + 1, end - begin - 1),
                       header[begin] == '"'});
    }
  }
  return found;
}

std::string first_part(const std::string& path) { return path.substr(0, path.find('/')); }

// Why an include is wrong; empty when it is right.
std::string fault(const Include& include) {
  const std::string place = first_part(include.file);
  const std::string target = first_part(include.header);
  auto rank = [](const std::string& room) { return std::find(kRooms.begin(), kRooms.end(), room) - kRooms.begin(); };
  const bool target_is_room = rank(target) < static_cast<ptrdiff_t>(kRooms.size());
  const bool target_is_public = target == "litefs";
  if (!include.quoted) {
    bool library_room = place == "lib" && first_part(include.file.substr(4)) != "env" &&
                        first_part(include.file.substr(4)) != "include";
    // Types, and the bits of FileInfo::mode, are not calls.
    bool harmless = include.header == "sys/types.h" || include.header == "sys/stat.h";
    bool system = kSystemHeaders.count(include.header) != 0 || (include.header.rfind("sys/", 0) == 0 && !harmless);
    return library_room && system ? "only env speaks to the operating system" : "";
  }
  if (place == "examples") {
    bool own = fs::path(include.header).parent_path().empty();
    return target_is_public || own ? "" : "examples include only the public headers";
  }
  if (place == "fuse" || place == "vfs") {
    return target == place || target_is_room || target_is_public ? "" : place + " may not include this";
  }
  const std::string room = first_part(include.file.substr(4));
  if (room == "include") return "a public header includes nothing of ours";
  if (target_is_public) return "";
  if (!target_is_room) return "not a room below " + room + " (an include is written room/file)";
  return rank(target) <= rank(room) ? "" : room + " stands below " + target;
}

TEST_CASE("includes go only downward") {
  const fs::path top = LITEFS_SOURCE_DIR;
  size_t seen = 0;
  for (const char* directory : {"lib", "fuse", "vfs", "examples"}) {
    for (const Include& include : includes_below(top, directory)) {
      ++seen;
      std::string why = fault(include);
      if (why.empty()) continue;
      FAIL_CHECK(include.file << ":" << include.line << ": " << include.header << ": " << why);
    }
  }
  // The walk itself works.
  CHECK(seen > 50);
}

TEST_CASE("an include against the direction is found") {
  CHECK(fault({"lib/base/x.cc", 1, "base/y.h", true}).empty());
  CHECK(fault({"lib/db/x.cc", 1, "sqlite/y.h", true}).empty());
  CHECK_FALSE(fault({"lib/sqlite/x.cc", 1, "db/y.h", true}).empty());
  CHECK_FALSE(fault({"lib/node/x.cc", 1, "fuse/y.h", true}).empty());
  CHECK_FALSE(fault({"lib/node/x.cc", 1, "y.h", true}).empty());
  CHECK_FALSE(fault({"lib/db/x.cc", 1, "unistd.h", false}).empty());
  CHECK_FALSE(fault({"lib/base/x.cc", 1, "sys/mman.h", false}).empty());
  CHECK(fault({"lib/env/x.cc", 1, "sys/mman.h", false}).empty());
  CHECK(fault({"lib/base/x.cc", 1, "vector", false}).empty());
  CHECK(fault({"lib/node/x.cc", 1, "litefs/litefs.h", true}).empty());
  CHECK_FALSE(fault({"lib/include/litefs/x.h", 1, "base/y.h", true}).empty());
  CHECK(fault({"fuse/x.cc", 1, "node/y.h", true}).empty());
  CHECK_FALSE(fault({"fuse/x.cc", 1, "vfs/y.h", true}).empty());
  CHECK_FALSE(fault({"examples/a/x.c", 1, "base/y.h", true}).empty());
  CHECK(fault({"examples/a/x.c", 1, "litefs/litefs.h", true}).empty());
}

}  // namespace
}  // namespace litefs
