// What the mount asks of whoever owns the databases behind it.
//
// The mount itself (mount.h) is a pass-through of directories of SQLite files; it knows open modes, the
// kernel's caches, node ids and threads, and nothing of replication. Every request that DESIGN section 5 and
// FUSE.md's table give a meaning is put to these hooks first; an error is the request's answer, by errno_table.h's
// table. Hooks with no effect make the bare pass-through that the benchmarks compare with.
//
// Names are paths relative to the mount: "a.db", "tenants/17/b.db-wal".
//
// Thread rule: called on serving threads, several at once; they may do disk I/O and take a database's
// mutex; they never touch the mount, wait for a file lock, a peer, or a kernel notification.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "sqlite/file_name.h"

namespace litefs {

class MountHooks {
 public:
  virtual ~MountHooks() = default;

  // An application (not the node itself) opens or creates a file. `done` is called once, now or later, from any
  // thread, with the answer; while it waits, no serving thread is held. The mount answers kBusy itself when
  // done is not called within its open deadline; a later call has no effect, and may come after the mount is gone.
  // Decide on a creation soon: until then the kernel has the directory locked, and every application that
  // asks for a name that the kernel does not know, or makes or removes one, waits too.
  struct Opening {
    FileName file;
    bool write = false;       // O_RDWR or O_WRONLY
    bool write_only = false;  // O_WRONLY, as SQLite never opens: cp, a shell's redirection
    bool create = false;      // the file does not exist yet
    uint32_t pid = 0;         // the application's thread, as the mounting process numbers it
  };
  virtual void before_open(const Opening& opening, std::function<void(Status)> done) = 0;
  // The file has been opened, by whomever; called before the kernel gets its answer.
  struct HowOpened {
    bool write = false;           // so that it may be written
    bool passed_through = false;  // and what is written to it will not be seen
  };
  virtual void opened(const FileName& file, const HowOpened& how) = 0;
  // The last open file of this name was closed; those that were unlinked under this name count too, but
  // for databases: of a deleted one nothing is told any more. The kernel tells of a close some time after it. Files
  // that are open when the mount stops are never told of. opened and closed of one name come one after the other, never
  // at the same time.
  virtual void closed(const FileName& file) = 0;

  // Before the bytes reach the real file. Passed-through files' writes are not seen. A -journal's write comes as the
  // application made it (up to 1 MiB), a cached database's may come in pieces of pages.
  virtual Status before_write(const FileName& file, uint64_t offset_bytes, ByteView data) = 0;
  virtual Status before_resize(const FileName& file, uint64_t size_bytes) = 0;
  virtual Status before_sync(const FileName& file) = 0;
  // The real file has been synced; `synced` says whether that worked.
  virtual void after_sync(const FileName& file, const Status& synced) = 0;
  virtual Status before_unlink(const FileName& file) = 0;
  virtual void after_unlink(const FileName& file) = 0;

  // A database's file is to get another name, which would be a database's too. `exists` says whether the new name is
  // there already, which cannot be allowed. Quick: decides by the names.
  struct Renaming {
    FileName from;
    FileName to;
    bool exists = false;
  };
  virtual Status may_rename(const Renaming& renaming) = 0;
  // Nobody has the file or its companions open, it has none of them, and nobody can open it before this returns.
  // Whatever the hook has made under the new name is replaced by the file itself.
  virtual Status before_rename(const Renaming& renaming) = 0;
  virtual void after_rename(const Renaming& renaming) = 0;

  // A directory is to be made or removed; `name` is a path. An error is the answer.
  virtual Status before_mkdir(const std::string& name) = 0;
  virtual Status before_rmdir(const std::string& name) = 0;

  // Files that exist only in the mount: ".primary", ".lag", "NAME-pos". The content of such a name now, or
  // nothing when there is no such file now. May drain a database (NAME-pos).
  virtual bool is_virtual_name(const std::string& name) = 0;
  virtual Result<std::optional<std::string>> virtual_file(const std::string& name) = 0;
  // Those that exist now in the root, for its listing. Other directories do not list theirs: `rm -r` would try to
  // remove them.
  virtual std::vector<std::string> virtual_names() = 0;

  // Whether a database's file may be shown and looked up (false: the name does not exist for applications, and cannot
  // be made: EBUSY). Asked of names that do not exist, too. The kernel may know the name from before: post
  // Notifier::Change::kEntry when the answer changes from true. The node itself sees hidden files through MountClient.
  // Must be quick, as every look-up asks.
  virtual bool is_visible(const FileName& file) = 0;

  // Whether the file changes only through the mount or with a notification: if not, the kernel does not keep its
  // attributes. Must be quick.
  virtual bool is_settled(const FileName& file) = 0;

  // Whether a -journal that an application is about to make may be passed through: its writes will not be seen.
  virtual bool may_pass_through(const FileName& journal) = 0;
};

// No effect: a bare pass-through.
std::unique_ptr<MountHooks> no_hooks();

}  // namespace litefs
