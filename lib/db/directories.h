// The directories between DATA/db and a database's file.
//
// On a primary applications make and remove them; on a replica they come with the first database in them and go with
// the last. A directory without a database is not replicated. Several databases may come and go in one directory at the
// same time. Thread rule: any thread.
#pragma once

#include <functional>
#include <string>

#include "env/file.h"

namespace litefs {

struct DatabaseDirectories {
  FileSystem& files;
  std::string root;                                      // DATA/db
  std::function<void(const std::string& name)> changed;  // one has been made or removed; relative to the root
};

// Those of the database `name` that are missing, with the owner and mode of the one above. kBusy: a file is in the way,
// as another database has the name until it is removed.
Status make_parents(const DatabaseDirectories& directories, const std::string& name);
// Those of `name` that are empty, from below.
Status remove_empty_parents(const DatabaseDirectories& directories, const std::string& name);

}  // namespace litefs
