// All databases of a node, by name.
//
// Layout of the data directory: DESIGN section 3. A database that cannot be opened is in here too, stopped, with
// the reason; it does not keep the others from working. Thread rule: any thread.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "db/database.h"

namespace litefs {

class Store {
 public:
  explicit Store(const DatabaseEnvironment& environment) : env_(environment) {}

  // Makes DATA/db and DATA/meta, and opens every database that either knows. Files in DATA/db that are no SQLite
  // databases are left alone and not shown.
  Status open();

  std::shared_ptr<Database> find(const std::string& name);
  // Makes the node's own files of a database that does not exist yet. One whose files cannot be made (a full disk) is
  // not entered: the next call tries anew.
  Result<std::shared_ptr<Database>> find_or_create(const std::string& name);
  std::vector<std::shared_ptr<Database>> all();
  // The super-journal of this name (below DATA/db) is about to be unlinked: this commits, in all databases whose
  // journals name it, one transaction. Records it in each of them, in the order of their ids. An error refuses it as a
  // whole.
  Status capture_group(const std::string& super_journal);
  // A file that was in DATA/db at the start and is no SQLite database.
  bool is_foreign(const std::string& name);

 private:
  void settle_groups();
  Result<bool> has_whole_group(Database& database);
  void leave_alone(const std::string& name, const char* why);
  bool is_database_file(const std::string& path);
  Status find_files(const std::string& directory, std::set<std::string>& names);

  const DatabaseEnvironment env_;
  Mutex opening_;  // one open at a time. Lock order: opening_, a database's mutexes, mutex_
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<Database>> databases_ GUARDED_BY(mutex_);
  std::set<std::string> foreign_ GUARDED_BY(mutex_);
};

}  // namespace litefs
