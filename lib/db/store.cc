#include "db/store.h"

#include <sys/stat.h>

#include <algorithm>

#include "sqlite/header.h"

namespace litefs {

Status Store::open() {
  const std::string db_dir = env_.data_dir + "/db";
  const std::string meta_dir = env_.data_dir + "/meta";
  TRY(env_.files.make_directories(db_dir));
  TRY(env_.files.make_directories(meta_dir));
  std::set<std::string> names;
  for (const std::string& escaped : TRY(env_.files.list(meta_dir))) {
    std::optional<std::string> name = unescape_database_name(escaped);
    if (name && !has_control_characters(*name)) {
      names.insert(*name);
    } else {
      env_.log.warning("no database's name; left alone").kv("directory", meta_dir + "/" + escaped);
    }
  }
  TRY(find_files("", names));
  for (const std::string& name : names) {
    Result<std::shared_ptr<Database>> opened = find_or_create(name);
    if (!opened.ok()) env_.log.error("cannot open a database").kv("database", name).error(opened.error());
  }
  settle_groups();
  return {};
}

// Enters the databases of a directory (relative to DATA/db) and of those below it.
Status Store::find_files(const std::string& directory, std::set<std::string>& names) {
  const std::string root = env_.data_dir + "/db/";
  for (const std::string& entry : TRY(env_.files.list(root + directory))) {
    const std::string name = directory.empty() ? entry : directory + "/" + entry;
    if (has_control_characters(name)) {
      leave_alone(name, "a control character is in its name");
      continue;
    }
    if (!check_database_name(name).ok()) continue;
    Result<FileInfo> info = env_.files.info(root + name);
    if (info.ok() && S_ISDIR(info.value().mode)) {
      TRY(find_files(name, names));
    } else if (names.contains(name)) {
      continue;
    } else if (is_database_file(root + name)) {
      names.insert(name);
    } else {
      leave_alone(name, "no SQLite database");
    }
  }
  return {};
}

void Store::leave_alone(const std::string& name, const char* why) {
  MutexLock lock(mutex_);
  foreign_.insert(name);
  env_.log.warning("left alone and not shown").kv("file", env_.data_dir + "/db/" + name).kv("why", why);
}

bool Store::is_database_file(const std::string& path) {
  Result<FileInfo> info = env_.files.info(path);
  if (!info.ok() || !S_ISREG(info.value().mode)) return false;
  if (info.value().size_bytes == 0) return true;  // SQLite takes an empty file for an empty database
  Result<std::unique_ptr<File>> file = env_.files.open(path, OpenMode::kReadOnly);
  if (!file.ok()) return false;
  uint8_t first[kDatabaseHeaderBytes];
  Result<size_t> n = file.value()->read_at(0, first);
  return n.ok() && DatabaseHeader::parse(ByteView(first, n.value())).ok();
}

bool Store::is_foreign(const std::string& name) {
  MutexLock lock(mutex_);
  return foreign_.contains(name);
}

std::shared_ptr<Database> Store::find(const std::string& name) {
  MutexLock lock(mutex_);
  auto it = databases_.find(name);
  return it == databases_.end() ? nullptr : it->second;
}

Result<std::shared_ptr<Database>> Store::find_or_create(const std::string& name) {
  MutexLock opening(opening_);
  if (std::shared_ptr<Database> database = find(name)) return database;
  TRY(check_database_name(name));
  const DatabasePaths paths(env_.data_dir, name);
  const bool is_new = !TRY(env_.files.exists(paths.meta())) && !TRY(env_.files.exists(paths.database()));
  // Not under mutex_: a database calls its observer, who may look for it here.
  std::shared_ptr<Database> database = TRY(Database::open(env_, name, is_new));
  MutexLock lock(mutex_);
  databases_[name] = database;
  return database;
}

std::vector<std::shared_ptr<Database>> Store::all() {
  MutexLock lock(mutex_);
  std::vector<std::shared_ptr<Database>> databases;
  for (const auto& [name, database] : databases_) databases.push_back(database);
  return databases;
}

Status Store::capture_group(const std::string& super_journal) {
  // Its name is unique; the path before it is the application's.
  auto name_of = [](const std::string& path) { return path.substr(path.rfind('/') + 1); };
  std::vector<std::shared_ptr<Database>> members;
  for (const std::shared_ptr<Database>& database : all()) {
    if (name_of(TRY(database->super_journal())) == name_of(super_journal)) members.push_back(database);
  }
  if (members.empty()) return {};
  Status captured = Database::capture_together(std::move(members), env_.random.nonzero_u64());
  return captured.ok() ? captured : Status(captured.error().with_context("a transaction over several databases"));
}

// What a death left of transactions over several databases. Before any of them is recovered, so that none of the
// records' members goes on without the others.
void Store::settle_groups() {
  std::vector<std::shared_ptr<Database>> incomplete;
  for (const std::shared_ptr<Database>& database : all()) {
    Result<bool> whole = has_whole_group(*database);
    if (!whole.ok()) {
      database->stop_for(whole.error());
    } else if (!whole.value()) {
      incomplete.push_back(database);
    }
  }
  for (const std::shared_ptr<Database>& database : incomplete) {
    Status cut = database->cut_group();
    if (!cut.ok()) database->stop_for(cut.error());
  }
}

// Whether its log ends with a record of a group that another member lacks: false.
Result<bool> Store::has_whole_group(Database& database) {
  const std::optional<Database::OpenGroup> group = TRY(database.open_group());
  if (!group) return true;
  for (DatabaseId id : group->members) {
    bool found = false;
    for (const std::shared_ptr<Database>& member : all()) {
      if (member->id() == id && TRY(member->has_group(group->id))) found = true;
    }
    if (!found) return false;
  }
  return true;
}

}  // namespace litefs
