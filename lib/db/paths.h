// Where a database's files are (DESIGN section 3). Thread rule: plain values.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/result.h"

namespace litefs {

// The one file name that stands for a database's name under DATA/meta: "/" is "%2F", "%" is "%25". Reversible, so no
// two names collide.
std::string escape_database_name(const std::string& name);
// Nothing: no name is written like that.
std::optional<std::string> unescape_database_name(const std::string& escaped);

class DatabasePaths {
 public:
  DatabasePaths(const std::string& data_dir, const std::string& name)
      : name_(name),
        database_(data_dir + "/db/" + name),
        root_(data_dir + "/db"),
        meta_(data_dir + "/meta/" + escape_database_name(name)) {}

  const std::string& name() const { return name_; }
  const std::string& root() const { return root_; }  // of all databases
  // Genuine SQLite files, under their own names.
  const std::string& database() const { return database_; }
  std::string wal() const { return database_ + "-wal"; }
  std::string shm() const { return database_ + "-shm"; }
  std::string journal() const { return database_ + "-journal"; }
  // The node's own.
  const std::string& meta() const { return meta_; }
  std::string control() const { return meta_ + "/control"; }
  std::string sums() const { return meta_ + "/sums"; }
  std::string log() const { return meta_ + "/log"; }
  std::string past() const { return meta_ + "/past"; }
  std::string lost() const { return meta_ + "/lost"; }
  // There while an application copies a file onto the mount that is to become the database.
  std::string copying() const { return meta_ + "/copying"; }
  // There for a moment, to see whether there is room.
  std::string room() const { return meta_ + "/room"; }
  // A copy that is being loaded, until it is published.
  std::string load() const { return meta_ + "/load"; }

 private:
  std::string name_;
  std::string database_;
  std::string root_;
  std::string meta_;
};

// A database's name, or a directory's for databases: a path relative to DATA/db. Escaped it has at most 255 bytes; each
// of its parts has 1 to 243, no leading dot, none of SQLite's suffixes; no byte is a control character (below 0x20, or
// 0x7f), as names go into requests and answers of one line. kInvalid says which rule is broken.
Status check_database_name(const std::string& name);
bool has_control_characters(const std::string& name);

}  // namespace litefs
