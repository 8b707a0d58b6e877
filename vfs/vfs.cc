// The SQLite VFS "litefs": a shim over "unix" (litefs/litefs.h: sqlite3_litefs_register).
//
// What it is asked to open of a database lies in DATA/db and is opened by "unix", whose file is then behind ours
// (vfs/file.h); temporary files are "unix"'s alone. There is one registration in a process, as SQLite has one list of
// VFSs and may hold on to one of them at any time: so it is never freed. A forked process has none until it registers.
#include <atomic>

#include "env/owned_descriptor.h"
#include "litefs/litefs.h"
#include "vfs/answers.h"
#include "vfs/file.h"
#include "vfs/registration.h"
#include "vfs/sqlite_api.h"

namespace litefs {
namespace {

constexpr const char* kVfsName = "litefs";

// What SQLite's list of VFSs leads to.
struct Registered {
  sqlite3_vfs vfs{};
  sqlite3_vfs* real = nullptr;  // set before the first file is opened, then constant
};

Registered& registered() {
  static Registered& one = *new Registered;
  return one;
}

sqlite3_vfs* real_vfs() { return registered().real; }

// The node that it is registered for in this process. A forked one has a Registration of its own: the mutex of before
// may have been held when it was made.
struct Registration {
  explicit Registration(bool is_forked) : forked(is_forked) {}

  const uint32_t generation = fork_generation();
  const bool forked;  // and before the fork there was one
  Mutex mutex;
  std::shared_ptr<Binding> binding GUARDED_BY(mutex);  // null: no node
  std::atomic<NodeStarter> starter{nullptr};
  NodeUsers users;

  std::shared_ptr<Binding> bound() {
    MutexLock lock(mutex);
    return binding;
  }
};

Registration& registration() {
  static constinit std::atomic<Registration*> current{nullptr};
  Registration* now = current.load();
  while (!now || now->generation != fork_generation()) {
    auto next = std::make_unique<Registration>(now != nullptr);
    if (current.compare_exchange_strong(now, next.get())) return *next.release();
  }
  return *now;
}

const char* no_node() {
  return registration().forked ? "this process was forked from the one that opened the node, and has none of its own"
                               : kNoNode;
}

// ---- opening ----

Result<std::unique_ptr<VfsFile::State>> prepare(std::shared_ptr<Binding> binding, const char* path, int flags) {
  std::optional<FileName> name = binding->file_at(path);
  const bool is_database = flags & SQLITE_OPEN_MAIN_DB;
  // SQLite opens other databases' journals as if they were super-journals (pager_delsuper), so the name tells.
  if (!name || is_database != (name->kind == FileKind::kDatabase)) {
    return Error(ErrorCode::kInvalid, "it is not a file of this node's");
  }
  auto state = std::make_unique<VfsFile::State>();
  state->door = binding->door(name->database);
  state->name = *name;
  state->binding = std::move(binding);
  if (!is_database) {
    const bool writes = name->kind == FileKind::kJournal || name->kind == FileKind::kSuperJournal;
    if (!writes || !(flags & SQLITE_OPEN_READWRITE)) return state;
    // Only a replica refuses it: the files of a stopped database may be read, and its journal played back.
    const Status may = state->door->may_write();
    if (!may.ok() && may.error().code() == ErrorCode::kReadOnly) return may.error();
    return state;
  }
  if (sqlite3_uri_boolean(path, "nolock", 0)) {
    return Error(ErrorCode::kInvalid, "nolock=1 is not possible: the node and other connections rely on the locks");
  }
  const bool exists = TRY(state->binding->files().exists(path));
  TRY(state->door->open(!exists && (flags & SQLITE_OPEN_CREATE)));
  return state;
}

int open_real(VfsFile* file, VfsFile::State& state, const char* path, int flags, int* out_flags) {
  int code = SQLITE_CANTOPEN;
  auto open = [&] {
    code = real_vfs()->xOpen(real_vfs(), path, file->real(), flags, out_flags);
    return code == SQLITE_OK;
  };
  if (state.name.kind != FileKind::kDatabase) {
    open();
    return code;
  }
  auto used = state.binding->files().use_database(path, open);
  if (used.ok()) {
    state.id = used.value();
    return code;
  }
  if (code == SQLITE_OK) file->real()->pMethods->xClose(file->real());
  return refuse(SQLITE_CANTOPEN, state.name.text(), used.error().message());
}

int open_ours(std::shared_ptr<Binding> binding, const char* path, VfsFile* file, int flags, int* out_flags) {
  auto prepared = prepare(std::move(binding), path, flags);
  if (!prepared.ok()) return refuse(open_code(prepared.error()), path, prepared.error().message());
  std::unique_ptr<VfsFile::State> state = std::move(prepared).value();
  const int code = open_real(file, *state, path, flags, out_flags);
  if (code != SQLITE_OK) return code;
  if (state->name.kind == FileKind::kWal) {
    Status followed = state->door->wal_opened();
    if (!followed.ok()) {
      file->real()->pMethods->xClose(file->real());
      return refuse(open_code(followed.error()), path, followed.error().message());
    }
  }
  begin_shim(file, std::move(state));
  return SQLITE_OK;
}

int open_file(sqlite3_vfs*, const char* path, sqlite3_file* f, int flags, int* out_flags) {
  VfsFile* file = reinterpret_cast<VfsFile*>(f);
  file->base.pMethods = nullptr;
  constexpr int kOurs = SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL | SQLITE_OPEN_SUPER_JOURNAL;
  // Ours is larger, so a file of "unix" alone fits in its place.
  if (!path || !(flags & kOurs)) return real_vfs()->xOpen(real_vfs(), path, f, flags, out_flags);
  try {
    std::shared_ptr<Binding> binding = registration().bound();
    if (!binding) return refuse(SQLITE_CANTOPEN, path, no_node());
    if (binding->forked()) {
      return refuse(SQLITE_CANTOPEN, path, "this process was forked from the one that opened the node");
    }
    NodeUser user(registration().users);
    if (!user) return refuse(SQLITE_CANTOPEN, path, kEnding);
    return open_ours(std::move(binding), path, file, flags, out_flags);
  } catch (const std::exception& error) {
    return refuse(SQLITE_CANTOPEN, path, error.what());
  }
}

// ---- names ----

int delete_ours(Binding& binding, const FileName& name, const char* path, int sync) {
  // SQLite removes the journal that it has; of the others it does not always know whether they are there.
  if (name.kind != FileKind::kJournal) {
    int there = 0;
    const int asked = real_vfs()->xAccess(real_vfs(), path, SQLITE_ACCESS_EXISTS, &there);
    if (asked != SQLITE_OK) return refuse(SQLITE_IOERR_DELETE, name.text(), "whether it is there cannot be told");
    if (!there) return real_vfs()->xDelete(real_vfs(), path, sync);
  }
  std::shared_ptr<MemberDoor> door = binding.door(name.database);
  Result<bool> done = door->before_unlink(name, sync != 0);
  if (!done.ok()) return refuse(io_code(done.error(), SQLITE_IOERR_DELETE), name.text(), done.error().message());
  if (done.value()) return SQLITE_OK;
  int code = real_vfs()->xDelete(real_vfs(), path, sync);
  // A host that has died since may have done it: what was asked of it has happened.
  if (code == SQLITE_IOERR_DELETE_NOENT && name.kind == FileKind::kJournal) code = SQLITE_OK;
  if (code == SQLITE_OK || code == SQLITE_IOERR_DIR_FSYNC) door->unlinked(name.kind);
  return code;
}

int delete_file(sqlite3_vfs*, const char* path, int sync) {
  try {
    std::shared_ptr<Binding> binding = registration().bound();
    // Only a connection of before a fork can be there without one.
    if (!binding) return refuse(SQLITE_IOERR_DELETE, path, no_node());
    std::optional<FileName> name = binding->file_at(path);
    if (!name) return real_vfs()->xDelete(real_vfs(), path, sync);
    if (binding->forked()) return refuse(SQLITE_IOERR_DELETE, path, "this process was forked");
    return delete_ours(*binding, *name, path, sync);
  } catch (const std::exception& error) {
    return refuse(SQLITE_IOERR_DELETE, path, error.what());
  }
}

int full_pathname(sqlite3_vfs*, const char* name, int size, char* out) {
  try {
    Result<std::shared_ptr<Binding>> binding = node_for(name);
    if (!binding.ok()) return refuse(SQLITE_CANTOPEN, name, binding.error().message());
    Result<Binding::DatabasePath> found = binding.value()->database_path(name);
    if (!found.ok()) return refuse(SQLITE_CANTOPEN, name, found.error().message());
    const std::string& path = found.value().path;
    if (path.size() >= static_cast<size_t>(size)) return refuse(SQLITE_CANTOPEN, name, "its path is too long");
    sqlite3_snprintf(size, out, "%s", path.c_str());
    // SQLite refuses a link where SQLITE_OPEN_NOFOLLOW asks for that.
    return found.value().by_link ? SQLITE_OK_SYMLINK : SQLITE_OK;
  } catch (const std::exception& error) {
    return refuse(SQLITE_CANTOPEN, name, error.what());
  }
}

int access_file(sqlite3_vfs*, const char* path, int flags, int* out) {
  return real_vfs()->xAccess(real_vfs(), path, flags, out);
}
void* dl_open(sqlite3_vfs*, const char* path) { return real_vfs()->xDlOpen(real_vfs(), path); }
void dl_error(sqlite3_vfs*, int size, char* out) { real_vfs()->xDlError(real_vfs(), size, out); }
void (*dl_sym(sqlite3_vfs*, void* library, const char* symbol))(void) {
  return real_vfs()->xDlSym(real_vfs(), library, symbol);
}
void dl_close(sqlite3_vfs*, void* library) { real_vfs()->xDlClose(real_vfs(), library); }
int randomness(sqlite3_vfs*, int size, char* out) { return real_vfs()->xRandomness(real_vfs(), size, out); }
int sleep_for(sqlite3_vfs*, int us) { return real_vfs()->xSleep(real_vfs(), us); }
int current_time(sqlite3_vfs*, double* out) { return real_vfs()->xCurrentTime(real_vfs(), out); }
int current_time_int64(sqlite3_vfs*, sqlite3_int64* out) { return real_vfs()->xCurrentTimeInt64(real_vfs(), out); }
int last_error(sqlite3_vfs*, int size, char* out) { return real_vfs()->xGetLastError(real_vfs(), size, out); }
int set_system_call(sqlite3_vfs*, const char* name, sqlite3_syscall_ptr call) {
  return real_vfs()->xSetSystemCall(real_vfs(), name, call);
}
sqlite3_syscall_ptr get_system_call(sqlite3_vfs*, const char* name) {
  return real_vfs()->xGetSystemCall(real_vfs(), name);
}
const char* next_system_call(sqlite3_vfs*, const char* name) { return real_vfs()->xNextSystemCall(real_vfs(), name); }

// ---- registration ----

void fill(sqlite3_vfs& vfs, sqlite3_vfs& real) {
  vfs.iVersion = 3;
  vfs.szOsFile = static_cast<int>(sizeof(VfsFile)) + real.szOsFile;
  vfs.mxPathname = real.mxPathname;
  vfs.zName = kVfsName;
  vfs.xOpen = open_file;
  vfs.xDelete = delete_file;
  vfs.xAccess = access_file;
  vfs.xFullPathname = full_pathname;
  vfs.xDlOpen = dl_open;
  vfs.xDlError = dl_error;
  vfs.xDlSym = dl_sym;
  vfs.xDlClose = dl_close;
  vfs.xRandomness = randomness;
  vfs.xSleep = sleep_for;
  vfs.xCurrentTime = current_time;
  vfs.xGetLastError = last_error;
  vfs.xCurrentTimeInt64 = current_time_int64;
  vfs.xSetSystemCall = set_system_call;
  vfs.xGetSystemCall = get_system_call;
  vfs.xNextSystemCall = next_system_call;
}

// As register_vfs. Not under the registration's mutex: SQLite may begin here,
// and what SQLITE_EXTRA_INIT names may register, too.
int find_real(sqlite3_vfs*& real) {
  if (const int code = initialize_sqlite(); code != SQLITE_OK) return code;
  if (is_taken()) return SQLITE_BUSY;
  real = sqlite3_vfs_find("unix");
  return real && real->iVersion >= 3 ? SQLITE_OK : SQLITE_ERROR;
}

void stand_on(sqlite3_vfs* real) {
  Registered& vfs = registered();
  if (vfs.vfs.zName) return;
  vfs.real = real;
  fill(vfs.vfs, *real);
}

int bind(Registration& one, litefs_node& node) REQUIRES(one.mutex) {
  if (one.binding) return &one.binding->handle() == &node ? SQLITE_OK : SQLITE_BUSY;
  // Inherited ones: SQLite would take the locks that the parent has by them for this process's.
  if (open_files() > 0) return SQLITE_BUSY;
  one.binding = std::make_shared<Binding>(node);
  node.set_before_close([&node]() -> Status {
    if (unregister_node(&node) == SQLITE_OK) return {};
    return Error(ErrorCode::kBusy, "SQLite connections are open by the VFS; close them first");
  });
  return SQLITE_OK;
}

}  // namespace

bool is_taken() {
  const sqlite3_vfs* there = sqlite3_vfs_find(kVfsName);
  return there && there != &registered().vfs;
}

int register_vfs(bool make_default, NodeStarter starter) {
  sqlite3_vfs* real = nullptr;
  if (const int code = find_real(real); code != SQLITE_OK) return code;
  Registration& one = registration();
  MutexLock lock(one.mutex);
  stand_on(real);
  one.starter = starter;
  return sqlite3_vfs_register(&registered().vfs, make_default);
}

int bind_node(litefs_node* node) {
  Registration& one = registration();
  MutexLock lock(one.mutex);
  return bind(one, *node);
}

int unregister_node(litefs_node* node) {
  if (const int code = initialize_sqlite(); code != SQLITE_OK) return code;  // as in find_real
  Registration& one = registration();
  MutexLock lock(one.mutex);
  if (!one.binding || &one.binding->handle() != node) return SQLITE_OK;
  // Every open file has it, and whoever is about to open one.
  if (one.binding.use_count() > 1) return SQLITE_BUSY;
  // Whoever could start a node again still needs it. And a process that ends asks nothing of SQLite any more.
  if (!one.starter) sqlite3_vfs_unregister(&registered().vfs);
  one.binding.reset();
  return SQLITE_OK;
}

Result<std::shared_ptr<Binding>> node_for(const char* name) {
  if (NodeStarter starter = registration().starter) TRY(starter(name));
  std::shared_ptr<Binding> binding = registration().bound();
  if (!binding) return Error(ErrorCode::kUnavailable, no_node());
  return binding;
}

NodeUsers& node_users() { return registration().users; }

}  // namespace litefs

using namespace litefs;

extern "C" int sqlite3_litefs_register(litefs_node* node, int make_default) {
  if (!node || node->forked()) return node ? SQLITE_ERROR : SQLITE_MISUSE;
  if (!node->member()) return SQLITE_MISUSE;
  sqlite3_vfs* real = nullptr;
  if (const int code = find_real(real); code != SQLITE_OK) return code;
  try {
    Registration& one = registration();
    MutexLock lock(one.mutex);
    if (const int code = bind(one, *node); code != SQLITE_OK) return code;
    stand_on(real);
    return sqlite3_vfs_register(&registered().vfs, make_default);
  } catch (const std::bad_alloc&) {
    return SQLITE_NOMEM;
  }
}

extern "C" int sqlite3_litefs_unregister(litefs_node* node) {
  if (!node) return SQLITE_MISUSE;
  return node->forked() ? SQLITE_ERROR : unregister_node(node);
}
