#include "db/capture_vfs.h"

#include <cstring>
#include <functional>
#include <map>

#include "faulty_file_system.h"
#include "test.h"

namespace litefs::test {

namespace {

enum class Kind { kDatabase, kJournal, kWal, kSuper, kOther };

struct Name {
  std::string database;
  Kind kind = Kind::kOther;
};

Name parse(const char* path, int flags) {
  std::string text = path ? path : "";
  text = text.substr(text.rfind('/') + 1);
  auto without = [&](const std::string& suffix) { return text.substr(0, text.size() - suffix.size()); };
  if (flags & SQLITE_OPEN_MAIN_DB) return {text, Kind::kDatabase};
  if (flags & SQLITE_OPEN_SUPER_JOURNAL || text.find("-mj") != std::string::npos) {
    return {text.substr(0, text.rfind("-mj")), Kind::kSuper};
  }
  if (text.ends_with("-journal")) return {without("-journal"), Kind::kJournal};
  if (text.ends_with("-wal")) return {without("-wal"), Kind::kWal};
  return {text, Kind::kOther};
}

}  // namespace

struct CaptureVfs::State {
  sqlite3_vfs vfs{};
  sqlite3_vfs* real = nullptr;
  std::string name;
  Find find;
  std::function<Status(const std::string&)> group;
  bool unseen = false;
  CaptureVfsPlan plan;
  uint64_t operations = 0;
  bool dead = false;
  std::string refusal;

  struct Journal {
    bool unseen = false;  // the capture does not see what is written to it
    int opens = 0;
  };
  std::map<std::string, std::shared_ptr<Journal>> journals;  // that lie there, by path

  std::shared_ptr<Database> database(const Name& file) { return find ? find(file.database) : nullptr; }

  // Puts the operation to the capture, then does it, dying where the plan says.
  template <class Ask, class Do>
  int change(int error, const Ask& ask, const Do& act) {
    if (dead) return error;
    try {
      Status status = ask();
      if (!status.ok()) {
        refusal = status.error().message();
        return error;
      }
    } catch (const Killed&) {
      dead = true;
      return error;
    }
    const bool hit = ++operations == plan.kill_at;
    if (operations == plan.fail_at) return error;
    if (hit && !plan.after) dead = true;
    if (dead) return error;
    int code = act();
    if (hit) {
      dead = true;
      return error;
    }
    return code;
  }
  template <class Tell>
  void tell(const Tell& tell) {
    if (dead) return;
    try {
      tell();
    } catch (const Killed&) {
      dead = true;
    }
  }
};

namespace {

using State = CaptureVfs::State;

struct File {
  sqlite3_file base;
  State* state;
  Name* name;
  sqlite3_file* real;
  std::shared_ptr<State::Journal>* journal;  // null: the file is none
};

File* of(sqlite3_file* file) { return reinterpret_cast<File*>(file); }

int x_close(sqlite3_file* f) {
  File* file = of(f);
  int code = file->real->pMethods->xClose(file->real);
  if (file->journal && --(*file->journal)->opens == 0) {
    std::shared_ptr<Database> db = file->state->database(*file->name);
    if (db) file->state->tell([&] { (void)db->journal_closed().ok(); });
  }
  delete file->journal;
  delete file->name;
  return code;
}
int x_read(sqlite3_file* f, void* out, int size, sqlite3_int64 at) {
  return of(f)->real->pMethods->xRead(of(f)->real, out, size, at);
}
int x_write(sqlite3_file* f, const void* data, int size, sqlite3_int64 at) {
  File* file = of(f);
  State& state = *file->state;
  std::shared_ptr<Database> db = state.database(*file->name);
  ByteView bytes(static_cast<const uint8_t*>(data), static_cast<size_t>(size));
  return state.change(
      SQLITE_IOERR_WRITE,
      [&]() -> Status {
        if (!db) return {};
        if (file->journal && (*file->journal)->unseen) return {};
        if (file->name->kind == Kind::kJournal) return db->before_journal_write(static_cast<uint64_t>(at), bytes);
        if (file->name->kind == Kind::kDatabase && !state.unseen) {
          return db->before_database_write(static_cast<uint64_t>(at), bytes);
        }
        return {};
      },
      [&] { return file->real->pMethods->xWrite(file->real, data, size, at); });
}
int x_truncate(sqlite3_file* f, sqlite3_int64 size) {
  File* file = of(f);
  State& state = *file->state;
  std::shared_ptr<Database> db = state.database(*file->name);
  int code = state.change(
      SQLITE_IOERR_TRUNCATE,
      [&]() -> Status {
        if (!db) return {};
        if (file->name->kind == Kind::kDatabase) return db->before_database_resize(static_cast<uint64_t>(size));
        if (file->name->kind == Kind::kWal) return db->drain(true);
        if (file->name->kind == Kind::kJournal && size == 0) return db->capture_file();
        return {};
      },
      [&] { return file->real->pMethods->xTruncate(file->real, size); });
  if (db && code == SQLITE_OK && file->name->kind == Kind::kJournal && size == 0) {
    state.tell([&] { db->journal_cut(); });
  }
  return code;
}
int x_sync(sqlite3_file* f, int) {
  File* file = of(f);
  State& state = *file->state;
  std::shared_ptr<Database> db = state.database(*file->name);
  // Not passed on: no power cut is simulated, and a sync costs time.
  return state.change(
      SQLITE_IOERR_FSYNC,
      [&]() -> Status {
        if (!db) return {};
        db->note_application_sync();
        if (file->name->kind == Kind::kJournal) return db->before_journal_sync();
        return file->name->kind == Kind::kDatabase ? db->before_database_sync() : Status();
      },
      [] { return SQLITE_OK; });
}
int x_size(sqlite3_file* f, sqlite3_int64* size) { return of(f)->real->pMethods->xFileSize(of(f)->real, size); }
int x_lock(sqlite3_file* f, int level) { return of(f)->real->pMethods->xLock(of(f)->real, level); }
int x_unlock(sqlite3_file* f, int level) { return of(f)->real->pMethods->xUnlock(of(f)->real, level); }
int x_reserved(sqlite3_file* f, int* out) { return of(f)->real->pMethods->xCheckReservedLock(of(f)->real, out); }
int x_control(sqlite3_file* f, int op, void* arg) {
  if (op == SQLITE_FCNTL_SIZE_HINT || op == SQLITE_FCNTL_CHUNK_SIZE) return SQLITE_OK;  // not seen by a mount
  return of(f)->real->pMethods->xFileControl(of(f)->real, op, arg);
}
int x_sector(sqlite3_file* f) { return of(f)->real->pMethods->xSectorSize(of(f)->real); }
int x_device(sqlite3_file* f) {
  return of(f)->real->pMethods->xDeviceCharacteristics(of(f)->real) & ~SQLITE_IOCAP_BATCH_ATOMIC;
}
int x_shm_map(sqlite3_file* f, int region, int size, int extend, void volatile** out) {
  File* file = of(f);
  if (file->state->dead) return SQLITE_IOERR_SHMMAP;
  int code = file->real->pMethods->xShmMap(file->real, region, size, extend, out);
  std::shared_ptr<Database> db = file->state->database(*file->name);
  if (db && code == SQLITE_OK) file->state->tell([&] { (void)db->tail_opened(true).ok(); });
  return code;
}
int x_shm_lock(sqlite3_file* f, int at, int n, int flags) {
  return of(f)->real->pMethods->xShmLock(of(f)->real, at, n, flags);
}
void x_shm_barrier(sqlite3_file* f) { of(f)->real->pMethods->xShmBarrier(of(f)->real); }
int x_shm_unmap(sqlite3_file* f, int remove) {
  File* file = of(f);
  std::shared_ptr<Database> db = file->state->database(*file->name);
  if (db && remove) {
    file->state->tell([&] { (void)db->drain(true).ok(); });
    file->state->tell([&] { db->index_closed(); });
  }
  return file->real->pMethods->xShmUnmap(file->real, remove && !file->state->dead);
}

const sqlite3_io_methods kMethods = {2,          x_close,       x_read,      x_write,   x_truncate, x_sync,   x_size,
                                     x_lock,     x_unlock,      x_reserved,  x_control, x_sector,   x_device, x_shm_map,
                                     x_shm_lock, x_shm_barrier, x_shm_unmap, nullptr,   nullptr};

State& state_of(sqlite3_vfs* vfs) { return *static_cast<State*>(vfs->pAppData); }

int v_open(sqlite3_vfs* vfs, const char* path, sqlite3_file* f, int flags, int* out) {
  State& state = state_of(vfs);
  File* file = of(f);
  file->base.pMethods = nullptr;
  Name name = parse(path, flags);
  if (state.dead) return SQLITE_CANTOPEN;
  file->real = reinterpret_cast<sqlite3_file*>(file + 1);
  int exists = 0;
  if (name.kind == Kind::kJournal) state.real->xAccess(state.real, path, SQLITE_ACCESS_READWRITE, &exists);
  int code = state.real->xOpen(state.real, path, file->real, flags, out);
  if (code != SQLITE_OK) return code;
  file->journal = nullptr;
  file->state = &state;
  file->name = new Name(name);
  file->base.pMethods = &kMethods;
  std::shared_ptr<Database> db = state.database(name);
  if (db && name.kind == Kind::kWal) state.tell([&] { (void)db->tail_opened(false).ok(); });
  if (name.kind == Kind::kJournal) {
    std::shared_ptr<State::Journal>& journal = state.journals[path];
    if (!journal) journal = std::make_shared<State::Journal>();
    // As the mount decides it: when the first opens it.
    if (journal->opens++ == 0) journal->unseen = !exists && db && db->journal_may_be_unseen();
    if (db) state.tell([&] { (void)db->journal_opened(journal->unseen).ok(); });
    file->journal = new std::shared_ptr<State::Journal>(journal);
  }
  return code;
}
int v_delete(sqlite3_vfs* vfs, const char* path, int sync) {
  State& state = state_of(vfs);
  Name name = parse(path, 0);
  std::shared_ptr<Database> db = state.database(name);
  const bool ours = db && (name.kind == Kind::kJournal || name.kind == Kind::kWal);
  int code = state.change(
      SQLITE_IOERR_DELETE,
      [&]() -> Status {
        if (name.kind == Kind::kSuper && state.group)
          return state.group(std::string(path).substr(std::string(path).rfind('/') + 1));
        if (!ours) return {};
        const auto log_sync = sync ? Database::SyncLog::kNow : Database::SyncLog::kLater;
        return name.kind == Kind::kJournal ? db->capture_file(log_sync) : db->before_wal_unlink();
      },
      [&] { return state.real->xDelete(state.real, path, sync); });
  if (ours && code == SQLITE_OK) {
    state.journals.erase(path);
    state.tell([&] { name.kind == Kind::kJournal ? db->journal_unlinked() : db->tail_unlinked(); });
  }
  return code;
}
int v_access(sqlite3_vfs* vfs, const char* path, int flags, int* out) {
  return state_of(vfs).real->xAccess(state_of(vfs).real, path, flags, out);
}
int v_full(sqlite3_vfs* vfs, const char* path, int size, char* out) {
  return state_of(vfs).real->xFullPathname(state_of(vfs).real, path, size, out);
}
int v_random(sqlite3_vfs* vfs, int size, char* out) {
  return state_of(vfs).real->xRandomness(state_of(vfs).real, size, out);
}
int v_sleep(sqlite3_vfs* vfs, int us) { return state_of(vfs).real->xSleep(state_of(vfs).real, us); }
int v_time(sqlite3_vfs* vfs, double* now) { return state_of(vfs).real->xCurrentTime(state_of(vfs).real, now); }
int v_error(sqlite3_vfs* vfs, int size, char* out) {
  return state_of(vfs).real->xGetLastError(state_of(vfs).real, size, out);
}

}  // namespace

CaptureVfs::CaptureVfs(const std::string& name) : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.name = name;
  state.real = sqlite3_vfs_find("unix");
  REQUIRE(state.real);
  sqlite3_vfs& vfs = state.vfs;
  vfs.iVersion = 1;
  vfs.szOsFile = static_cast<int>(sizeof(File)) + state.real->szOsFile;
  vfs.mxPathname = state.real->mxPathname;
  vfs.zName = state.name.c_str();
  vfs.pAppData = state_.get();
  vfs.xOpen = v_open;
  vfs.xDelete = v_delete;
  vfs.xAccess = v_access;
  vfs.xFullPathname = v_full;
  vfs.xRandomness = v_random;
  vfs.xSleep = v_sleep;
  vfs.xCurrentTime = v_time;
  vfs.xGetLastError = v_error;
  REQUIRE(sqlite3_vfs_register(&vfs, 0) == SQLITE_OK);
}

CaptureVfs::~CaptureVfs() { sqlite3_vfs_unregister(&state_->vfs); }

void CaptureVfs::set_databases(Find find) { state_->find = std::move(find); }
void CaptureVfs::set_group(std::function<Status(const std::string&)> group) { state_->group = std::move(group); }
void CaptureVfs::set_unseen(bool unseen) { state_->unseen = unseen; }
void CaptureVfs::plan(const CaptureVfsPlan& plan) {
  state_->plan = plan;
  state_->operations = 0;
}
uint64_t CaptureVfs::operations() const { return state_->operations; }
bool CaptureVfs::dead() const { return state_->dead; }
void CaptureVfs::die() { state_->dead = true; }
std::string CaptureVfs::take_refusal() { return std::exchange(state_->refusal, ""); }

}  // namespace litefs::test
