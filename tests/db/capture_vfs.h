// A SQLite VFS over "unix" that calls a Database at the moments at which the mount does, and can die at any operation.
//
// One application and the node's capture in one process, without a mount: what the front ends do is done here, so that
// millions of transactions can be watched and every step can be killed. Death means that from then on nothing reaches
// the files any more: operations answer SQLITE_IOERR. A Killed that comes out of the database's own files counts too.
// Thread rule: one thread.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>

#include "db/database.h"

namespace litefs::test {

struct CaptureVfsPlan {
  uint64_t kill_at = 0;  // the operation, counted from 1, at which the application dies; 0: never
  bool after = false;    // the operation is done first
  uint64_t fail_at = 0;  // the operation that fails, after the capture was asked, and is not done; 0: none
};

class CaptureVfs {
 public:
  // Registered under `name` until it is destroyed; all connections must be closed by then.
  explicit CaptureVfs(const std::string& name);
  ~CaptureVfs();
  CaptureVfs(const CaptureVfs&) = delete;
  CaptureVfs& operator=(const CaptureVfs&) = delete;

  // Whose capture is asked, by the file's name without directory. Nobody is asked before the first call.
  using Find = std::function<std::shared_ptr<Database>(const std::string& name)>;
  void set_databases(Find find);
  // Who is asked before a super-journal is deleted, by its name.
  void set_group(std::function<Status(const std::string& super_journal)> group);
  // Whether writes to the database files are hidden from the capture, as with a passed-through file.
  void set_unseen(bool unseen);
  void plan(const CaptureVfsPlan& plan);
  // Changes of files since plan().
  uint64_t operations() const;
  bool dead() const;
  void die();
  // The last refusal of the capture; empty: none since the last call.
  std::string take_refusal();

  struct State;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace litefs::test
