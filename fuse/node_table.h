// What the kernel knows of the mount: nodes (its inodes) by small numbers, and the names they have.
//
// A node stands for one real file. Its id is never used twice; a name that is removed and made
// again gets a new node, also when that happened behind the mount (the real file's identity tells).
// The root is 1 and not in here; other directories are, and are never renamed. A node lives as long as the kernel
// counts lookups of it or files open on it. Its real file is held open exactly while applications have it open, under
// its name or not: 1,000 idle databases hold no descriptor.
//
// Two locks, NameState::mutex before the table's own (and of two names a database's before its
// companions'). A name's mutex serialises opening, closing,
// creating and unlinking under that name, and the hooks that are told of it; the table's is held
// for moments only. Thread rule: any thread.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "base/mutex.h"
#include "fuse/descriptor.h"
#include "fuse/device.h"
#include "fuse/hooks.h"

namespace litefs {

inline constexpr uint64_t kRootNode = 1;

// How the kernel reads and writes an open file (FUSE.md, section 2). One inode has one mode at a
// time.
enum class IoMode {
  kCached,       // through its page cache of the mount, requests to us for the rest
  kDirect,       // every read and write is a request
  kPassthrough,  // the real file itself; we see no read and no write
};

struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  bool operator==(const FileIdentity&) const = default;

  static FileIdentity of(const struct stat& info) { return {info.st_dev, info.st_ino}; }
};

// A real file, open while applications have the node open. Immutable.
class BackingFile {
 public:
  // `backing_id` is registered with `device`, or 0; it is taken back at the end.
  BackingFile(Descriptor fd, IoMode mode, Device& device, int backing_id)
      : fd_(std::move(fd)), mode_(mode), device_(device), backing_id_(backing_id) {}
  ~BackingFile() {
    if (backing_id_ > 0) device_.unregister_backing(backing_id_);
  }
  BackingFile(const BackingFile&) = delete;
  BackingFile& operator=(const BackingFile&) = delete;

  int fd() const { return fd_.get(); }
  IoMode mode() const { return mode_; }
  int backing_id() const { return backing_id_; }

 private:
  Descriptor fd_;
  IoMode mode_;
  Device& device_;
  int backing_id_;
};

// A name is a path relative to the mount, without a slash at either end.
struct NameState {
  explicit NameState(const std::string& name) : text(name), file(FileName::parse(name)) {}

  const std::string text;
  const FileName file;
  Mutex mutex;
  // Over all nodes that have or had this name; of databases only the one that has it.
  uint64_t open_files GUARDED_BY(mutex) = 0;
  CondVar closed;  // open_files has become 0
};

struct FileNode {
  uint64_t id = 0;
  std::shared_ptr<NameState> name;
  FileIdentity identity;  // nothing for a virtual file
  bool is_virtual = false;
  bool is_directory = false;
};

// A node and its state at one moment.
struct NodeView {
  FileNode node;
  std::shared_ptr<const BackingFile> file;  // null: not open
  bool unlinked = false;                    // the name is gone, or another file's

  // A database that was deleted: what is done with it does not concern the one that has its name now.
  bool is_deleted_database() const {
    return unlinked && !node.is_virtual && !node.is_directory && node.name->file.kind == FileKind::kDatabase;
  }
};

class NodeTable {
 public:
  // The state of a name, made when it is not there.
  std::shared_ptr<NameState> name(const std::string& text);

  std::optional<NodeView> find(uint64_t id);
  // The node of the real file or directory that `name` names now; counts one lookup. With name.mutex
  // held.
  NodeView look_up(const std::shared_ptr<NameState>& name, const struct stat& info) REQUIRES(name->mutex);
  NodeView look_up_virtual(const std::string& name);
  void forget(uint64_t id, uint64_t lookups);
  // The name's node, if there is one, has lost its name. With name.mutex held.
  void unlink(NameState& name) REQUIRES(name.mutex);
  // The node of `from` has the name `to` now. With from's mutex held.
  void rename(const NameState& from, const std::shared_ptr<NameState>& to);
  // 0: the kernel knows no node of this name.
  uint64_t id_of(const std::string& name);

  // One more open file on a node that find() gave, through `file`; with its name's mutex held.
  // False: the node's cached pages are not the real file's, as the last to have it open passed it
  // through. Nothing: there is no such node any more.
  std::optional<bool> add_open(uint64_t id, const std::shared_ptr<const BackingFile>& file);
  // With the name's mutex held. The real file is closed with the last one. False: there was none.
  bool remove_open(uint64_t id);

  size_t size();

 private:
  struct Entry {
    FileNode node;
    uint64_t lookups = 0;
    uint64_t opens = 0;
    std::shared_ptr<const BackingFile> file;
    bool unlinked = false;
    bool passed_through = false;  // since the kernel last filled its cache
  };
  struct Name {
    std::weak_ptr<NameState> state;
    uint64_t node = 0;
  };

  NodeView view(const Entry& entry) REQUIRES(mutex_);
  Entry& add(FileNode node) REQUIRES(mutex_);
  void drop_if_unused(uint64_t id) REQUIRES(mutex_);
  void lose_name(Entry& entry, NameState& name) REQUIRES(mutex_, name.mutex);
  void sweep_names() REQUIRES(mutex_);

  Mutex mutex_;
  uint64_t next_id_ GUARDED_BY(mutex_) = kRootNode + 1;
  std::unordered_map<uint64_t, Entry> nodes_ GUARDED_BY(mutex_);
  std::unordered_map<std::string, Name> names_ GUARDED_BY(mutex_);
};

}  // namespace litefs
