// The requests of the mount and their answers: the one place where the file system's rules are
// written down.
//
// Applications see the directories and regular files of the data directory, of files those that the
// hooks let them see, and the hooks' virtual files (0444, contents made at each READ). Names that begin with
// a dot and are not virtual do not exist and cannot be made. There is nothing but files and
// directories: mknod, symlink and link are EPERM. A closed database can be renamed (it and its companions must be
// open nowhere and have no companion files: else EBUSY); every other rename, of a directory too, is EPERM, one over a
// file that exists what the hooks say. Extended attributes are not supported. Locks stay in the kernel: no handler, so
// that POSIX and OFD locks between all processes of the machine cost no request and die with their holder.
//
// Caches (FUSE.md, section 1). Names, missing names and attributes are the kernel's for a day;
// names that hooks hide, virtual files, and the attributes of -wal and -shm are not cached. Whoever
// changes the data directory behind the mount tells the kernel through the Notifier.
// Nor are a database's attributes cached while its journal is hot. When we die in the middle of a transaction its pages
// stay in the cache of those who have the database open, and the journal that takes them back is not found: SQLite
// takes a stat of its name that fails for its absence. But each read transaction in a rollback mode asks for the
// database's size, and a write drops the attributes: so it is refused there.
//
// Modes. NAME: passed through when its header says WAL at the first open, else cached, until the
// last close. -wal, -shm: passed through. -journal, super-journals: direct, as SQLite writes it once from front to
// end and reads it only to roll back: a cache would copy every page once more, and split a refused
// write into pieces.
// A journal that an application makes is passed through where the hooks expect its end to be an UNLINK, as SQLite
// writes three times a page: of a transaction of 200 pages they are three quarters of the requests. Elsewhere it is
// not: zeros in the header (PERSIST, EXCLUSIVE; the mode may change in mid-transaction) must be seen before they take
// effect.
//
// File handles carry no state (0); a directory's is the number of a listing taken when it was
// opened.
//
// Thread rule: serving threads and the thread of PendingOpens; attach() before any of them.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"
#include "fuse/device.h"
#include "fuse/hooks.h"
#include "fuse/node_table.h"
#include "fuse/pending_opens.h"

struct fuse_conn_info;
struct fuse_file_info;
struct fuse_lowlevel_ops;

namespace litefs {

struct CreateReply;
struct OpenReply;

inline constexpr size_t kListingsMax = 1024;

class Operations {
 public:
  struct Parts {
    int directory;  // the data directory
    NodeTable& nodes;
    PendingOpens& pending;
    MountHooks& hooks;
    // The thread that opens files for the node itself, through the mount: it sees hidden names, and
    // its opens are not put to before_open, which would wait for itself.
    pid_t own_client;
    Log log;
  };
  explicit Operations(Parts parts) : parts_(std::move(parts)) {}

  static const fuse_lowlevel_ops& table();
  void attach(Device& device) { device_ = &device; }

  // For PendingOpens: opens or creates the file, or refuses it, and answers.
  void finish_open(const OpenRequest& open, const Status& admitted);

 private:
  friend struct OperationsTable;
  using Request = fuse_req*;

  // operations.cc: names, attributes, listings
  static void init(void* device, fuse_conn_info* connection);
  void lookup(Request request, uint64_t parent, const std::string& name);
  void forget(uint64_t id, uint64_t lookups) { parts_.nodes.forget(id, lookups); }
  void getattr(Request request, uint64_t id);
  void setattr(Request request, uint64_t id, const struct stat& wanted, int which);
  void unlink(Request request, uint64_t parent, const std::string& name);
  struct RenameRequest {
    uint64_t parent = 0;
    std::string name;
    uint64_t new_parent = 0;
    std::string new_name;
    unsigned flags = 0;
  };
  void rename(Request request, const RenameRequest& rename);
  void statfs(Request request);

  // operations_directory.cc: directories
  void mkdir(Request request, uint64_t parent, const std::string& name, mode_t mode);
  void rmdir(Request request, uint64_t parent, const std::string& name);
  void opendir(Request request, uint64_t id, fuse_file_info* info);
  void readdir(Request request, size_t size, off_t offset, uint64_t listing);
  void releasedir(Request request, uint64_t listing);
  void fsyncdir(Request request, uint64_t id);

  // operations_open.cc: files
  void open(Request request, uint64_t id, int flags);
  void create(Request request, uint64_t parent, const std::string& name, mode_t mode, int flags);
  void release(Request request, uint64_t id);
  void read(Request request, uint64_t id, size_t size, off_t offset);
  void write(Request request, uint64_t id, ByteView data, off_t offset);
  void fsync(Request request, uint64_t id, bool data_only);

  bool is_own(Request request) const;
  enum class NameClass { kPlain, kVirtual, kDotted, kHidden };
  NameClass classify(const std::string& path);
  // The path of a name in a directory, or of a directory ("" is the root); an errno.
  int path_of(uint64_t parent, const std::string& name, std::string* path);
  int path_of_directory(uint64_t id, std::string* path);
  void lookup_virtual(Request request, const std::string& name);
  // Answers a LOOKUP and takes the lookup back when the kernel does not want the answer.
  void reply_entry(Request request, const NodeView& view, const struct stat& info, double entry_timeout_s);
  void reply_no_entry(Request request, double timeout_s);
  // The attributes as applications see them; an errno.
  int attributes(const NodeView& view, struct stat* info);
  int virtual_attributes(const FileNode& node, struct stat* info);
  // A regular file or directory; what else lies there does not exist.
  int stat_name(const std::string& path, struct stat* info);
  int stat_file(const std::string& path, struct stat* info);
  bool in_transaction(const std::string& database);
  // How long the kernel may keep them.
  double attribute_timeout_s(const FileNode& node);
  int change_attributes(const NodeView& view, const struct stat& wanted, int which);
  int rename_file(const RenameRequest& rename);
  // With the database's mutex held; companions' mutexes come after it.
  int check_closed(NameState& database) REQUIRES(database.mutex);
  struct Listing {
    std::string directory;
    std::vector<std::pair<std::string, bool>> names;  // and whether it is a directory
  };
  Listing list(const std::string& directory);
  int make_directory(Request request, const std::string& path, mode_t mode, struct stat* info);

  void submit(const OpenRequest& open, const FileName& file, bool create);
  int open_node(const OpenRequest& open, OpenReply* reply);
  int create_node(const OpenRequest& open, CreateReply* reply, uint64_t* id);
  // With the name's mutex held.
  int open_locked(NameState& name, NodeView view, bool write, OpenReply* reply) REQUIRES(name.mutex);
  // `wanted`: nothing is as the file's kind and header say.
  int open_backing(const NodeView& view, std::optional<IoMode> wanted, std::shared_ptr<const BackingFile>* file);
  int make_file(const OpenRequest& open, struct stat* info);
  void close_one(uint64_t id);
  void read_virtual(Request request, const FileNode& node, size_t size, off_t offset);

  Parts parts_;
  Device* device_ = nullptr;
  Mutex mutex_;
  uint64_t next_listing_ GUARDED_BY(mutex_) = 1;
  std::map<uint64_t, std::shared_ptr<const Listing>> listings_ GUARDED_BY(mutex_);
};

}  // namespace litefs
