#include "fuse/copies_in.h"

namespace litefs {

bool CopiesIn::before_open(const MountHooks::Opening& opening, const Done& done) {
  const std::string& name = opening.file.database;
  {
    MutexLock lock(mutex_);
    auto it = copies_.find(name);
    if (it != copies_.end() && !opening.create) {
      // A second writer, too: it could not be told whether it comes before the last close or after it.
      it->second.waiting.emplace_back(opening, done);
      return true;
    }
    if (!opening.write_only && it == copies_.end()) return false;
  }
  // The file does not exist: a copy that is noted here was never made.
  if (opening.create) unlinked(name);
  if (!opening.write_only) return false;
  Status answer = begin(opening);
  if (!answer.ok()) log_.warning("request refused").kv("file", opening.file.text()).error(answer.error());
  done(std::move(answer));
  return true;
}

Status CopiesIn::begin(const MountHooks::Opening& opening) {
  const std::string& name = opening.file.database;
  std::shared_ptr<Database> database = node_.store().find(name);
  if (database && database->exists()) {
    return Error(ErrorCode::kReadOnly,
                 "'" + name + "' is a database, which cannot be overwritten by a plain copy: use 'litefs import'");
  }
  database = TRY(node_.create_database(name));
  {
    MutexLock lock(mutex_);
    if (!opening.create && open_.contains(name)) return Error(ErrorCode::kBusy, "'" + name + "' is open");
    if (!copies_.try_emplace(name).second) return Error(ErrorCode::kBusy, "'" + name + "' is just being made");
  }
  Status begun = database->begin_copy();
  if (!begun.ok()) end(name);
  return begun;
}

// Forgets a copy, and asks again for those that have waited for it.
void CopiesIn::end(const std::string& name) {
  Copy copy;
  {
    MutexLock lock(mutex_);
    auto it = copies_.find(name);
    if (it == copies_.end()) return;
    copy = std::move(it->second);
    copies_.erase(it);
  }
  for (auto& [opening, done] : copy.waiting) again_(opening, std::move(done));
}

void CopiesIn::opened(const std::string& database) {
  MutexLock lock(mutex_);
  open_.insert(database);
}

bool CopiesIn::has(const std::string& database) {
  MutexLock lock(mutex_);
  return copies_.contains(database);
}

void CopiesIn::closed(const std::string& name) {
  {
    MutexLock lock(mutex_);
    open_.erase(name);
    if (!copies_.contains(name)) return;
  }
  std::shared_ptr<Database> database = node_.store().find(name);
  Status taken = database->finish_copy();
  if (!taken.ok()) {
    log_.error(
            "a file copied onto the mount has not become a database and is removed; for other ways to bring one in "
            "see 'litefs import'")
        .kv("file", name)
        .error(taken.error());
  }
  end(name);
}

void CopiesIn::unlinked(const std::string& name) {
  {
    MutexLock lock(mutex_);
    open_.erase(name);
    if (!copies_.contains(name)) return;
  }
  std::shared_ptr<Database> database = node_.store().find(name);
  Status cancelled = database->cancel_copy();
  if (!cancelled.ok()) log_.warning("cannot forget a copy that was deleted").kv("file", name).error(cancelled.error());
  end(name);
}

}  // namespace litefs
