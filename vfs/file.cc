#include "vfs/file.h"

#include <atomic>
#include <cstring>

#include "sqlite/locks.h"
#include "sqlite/wal.h"
#include "vfs/answers.h"

namespace litefs {
namespace {

using State = VfsFile::State;

constinit std::atomic<int> open_count{0};

VfsFile* of(sqlite3_file* file) { return reinterpret_cast<VfsFile*>(file); }
State& state_of(sqlite3_file* file) { return *of(file)->state; }
sqlite3_file* real_of(sqlite3_file* file) { return of(file)->real(); }
const sqlite3_io_methods& methods_of(sqlite3_file* file) { return *real_of(file)->pMethods; }

int refuse_fork(sqlite3_file* file, int code) {
  return refuse(code, state_of(file).name.text(),
                "this process was forked from the one that opened it, and cannot use it");
}

int refuse_error(sqlite3_file* file, const Error& error, int code) {
  return refuse(io_code(error, code), state_of(file).name.text(), error.message());
}

int refuse_writer(sqlite3_file* file, const Error& error) {
  return refuse_error(file, error, error.code() == ErrorCode::kReadOnly ? SQLITE_READONLY : SQLITE_IOERR_LOCK);
}

// Puts the call to the database, then does it where it has not been done. No exception gets out into SQLite.
template <class Ask, class Do>
int ask_then_do(sqlite3_file* file, int error_code, const Ask& ask, const Do& act) {
  if (state_of(file).binding->forked()) return refuse_fork(file, error_code);
  try {
    Result<bool> done = ask(*state_of(file).door);
    if (!done.ok()) return refuse_error(file, done.error(), error_code);
    return done.value() ? SQLITE_OK : act();
  } catch (const std::exception& error) {
    return refuse(error_code, state_of(file).name.text(), error.what());
  }
}

std::string index_path(const State& state) {
  return state.binding->root() + "/" + state.name.database + "-shm";
}

void use_index(State& state) {
  if (state.uses_index) return;
  state.binding->files().use_index(index_path(state));
  state.uses_index = true;
}

void leave_index(State& state) {
  if (state.uses_index) state.binding->files().leave_index(index_path(state));
  state.uses_index = false;
}

int close_file(sqlite3_file* f) {
  State& state = state_of(f);
  const bool forked = state.binding->forked();
  const int code = methods_of(f).xClose(real_of(f));
  f->pMethods = nullptr;
  open_count.fetch_sub(1);
  // In a forked process nothing but the descriptor is ours; what leads to the node is left as it is.
  if (forked) return code;
  std::unique_ptr<State> owned(&state);
  leave_index(state);
  if (state.id) state.binding->files().leave_database(*state.id);
  return code;
}

int read_file(sqlite3_file* f, void* out, int size, sqlite3_int64 at) {
  if (state_of(f).binding->forked()) return refuse_fork(f, SQLITE_IOERR_READ);
  return methods_of(f).xRead(real_of(f), out, size, at);
}

// A frame is written in two calls: its header, then its page.
void note_frame(State& state, ByteView data) {
  if (data.size() == kWalFrameHeaderBytes) {
    state.commit_follows = load_be32(data.data() + 4) != 0;
  } else if (state.commit_follows) {
    state.commit_follows = false;
    state.door->commit_frame_written();
  }
}

int write_file(sqlite3_file* f, const void* data, int size, sqlite3_int64 at) {
  State& state = state_of(f);
  const ByteView bytes(static_cast<const uint8_t*>(data), static_cast<size_t>(size));
  return ask_then_do(
      f, SQLITE_IOERR_WRITE,
      [&](DatabaseDoor& door) { return door.before_write(state.name.kind, static_cast<uint64_t>(at), bytes); },
      [&] {
        const int code = methods_of(f).xWrite(real_of(f), data, size, at);
        if (code == SQLITE_OK && state.name.kind == FileKind::kWal) note_frame(state, bytes);
        return code;
      });
}

int truncate_file(sqlite3_file* f, sqlite3_int64 size) {
  const FileKind kind = state_of(f).name.kind;
  const uint64_t size_bytes = static_cast<uint64_t>(size);
  return ask_then_do(
      f, SQLITE_IOERR_TRUNCATE, [&](DatabaseDoor& door) { return door.before_resize(kind, size_bytes); },
      [&] {
        const int code = methods_of(f).xTruncate(real_of(f), size);
        if (code == SQLITE_OK) state_of(f).door->resized(kind, size_bytes);
        return code;
      });
}

int sync_file(sqlite3_file* f, int flags) {
  const FileKind kind = state_of(f).name.kind;
  return ask_then_do(
      f, SQLITE_IOERR_FSYNC, [&](DatabaseDoor& door) { return door.before_sync(kind); },
      [&] {
        const int code = methods_of(f).xSync(real_of(f), flags);
        Status synced;
        if (code != SQLITE_OK) synced = Error(ErrorCode::kIo, "SQLite's sync answers " + std::to_string(code));
        state_of(f).door->synced(kind, synced);
        return code;
      });
}

int file_size(sqlite3_file* f, sqlite3_int64* size) { return methods_of(f).xFileSize(real_of(f), size); }

int lock_file(sqlite3_file* f, int level) {
  State& state = state_of(f);
  if (state.binding->forked()) return refuse_fork(f, SQLITE_IOERR_LOCK);
  // SHARED is a reader's, and EXCLUSIVE alone is who plays back a journal or closes last.
  if (level == SQLITE_LOCK_RESERVED) {
    if (Status may = state.door->may_write(); !may.ok()) return refuse_writer(f, may.error());
  }
  return methods_of(f).xLock(real_of(f), level);
}

int unlock_file(sqlite3_file* f, int level) { return methods_of(f).xUnlock(real_of(f), level); }

int check_reserved(sqlite3_file* f, int* out) {
  if (state_of(f).binding->forked()) return refuse_fork(f, SQLITE_IOERR_CHECKRESERVEDLOCK);
  return methods_of(f).xCheckReservedLock(real_of(f), out);
}

// What of a pragma's words is the journal mode that cannot be captured; null: none.
const char* uncapturable(const char* pragma, const char* value) {
  if (!pragma || !value || sqlite3_stricmp(pragma, "journal_mode") != 0) return nullptr;
  for (const char* mode : {"memory", "off"}) {
    if (sqlite3_stricmp(value, mode) == 0) return mode;
  }
  return nullptr;
}

int control_pragma(sqlite3_file* f, char** words) {
  const char* mode = uncapturable(words[1], words[2]);
  if (!mode) return methods_of(f).xFileControl(real_of(f), SQLITE_FCNTL_PRAGMA, words);
  words[0] = sqlite3_mprintf(
      "journal_mode=%s is not possible on a database of litefs: without a journal on disk a transaction can neither be "
      "captured for the replicas nor be taken back; use WAL, DELETE, TRUNCATE or PERSIST",
      mode);
  return refuse(SQLITE_ERROR, state_of(f).name.text(), words[0] ? words[0] : "journal_mode");
}

int control_file(sqlite3_file* f, int op, void* argument) {
  if (state_of(f).binding->forked()) return SQLITE_IOERR;
  switch (op) {
    case SQLITE_FCNTL_PRAGMA: return control_pragma(f, static_cast<char**>(argument));
    case kControlDatabaseName:
      *static_cast<const char**>(argument) = state_of(f).name.database.c_str();
      return SQLITE_OK;
    case SQLITE_FCNTL_BEGIN_ATOMIC_WRITE:
    case SQLITE_FCNTL_COMMIT_ATOMIC_WRITE:
    case SQLITE_FCNTL_ROLLBACK_ATOMIC_WRITE: return SQLITE_NOTFOUND;
    case SQLITE_FCNTL_VFSNAME: {
      const int code = methods_of(f).xFileControl(real_of(f), op, argument);
      char** name = static_cast<char**>(argument);
      if (code == SQLITE_OK) *name = sqlite3_mprintf("litefs/%z", *name);
      return code;
    }
    case SQLITE_FCNTL_CKPT_START: state_of(f).door->checkpoint_begins(); [[fallthrough]];
    default: return methods_of(f).xFileControl(real_of(f), op, argument);
  }
}

int sector_size(sqlite3_file* f) { return methods_of(f).xSectorSize(real_of(f)); }

// A write that the device makes atomic needs no journal, and nothing would show that it is a transaction.
int device_characteristics(sqlite3_file* f) {
  constexpr int kAtomic = SQLITE_IOCAP_ATOMIC | SQLITE_IOCAP_ATOMIC512 | SQLITE_IOCAP_ATOMIC1K | SQLITE_IOCAP_ATOMIC2K |
                          SQLITE_IOCAP_ATOMIC4K | SQLITE_IOCAP_ATOMIC8K | SQLITE_IOCAP_ATOMIC16K |
                          SQLITE_IOCAP_ATOMIC32K | SQLITE_IOCAP_ATOMIC64K | SQLITE_IOCAP_BATCH_ATOMIC;
  return methods_of(f).xDeviceCharacteristics(real_of(f)) & ~kAtomic;
}

// ---- the wal-index ----

int map_index(sqlite3_file* f, int region, int size, int extend, void volatile** out) {
  State& state = state_of(f);
  if (state.binding->forked()) return refuse_fork(f, SQLITE_IOERR_SHMMAP);
  use_index(state);
  const int code = methods_of(f).xShmMap(real_of(f), region, size, extend, out);
  if (code != SQLITE_OK || state.index_told) return code;
  Status told = state.door->index_mapped();
  if (!told.ok()) return refuse_error(f, told.error(), SQLITE_IOERR_SHMMAP);
  state.index_told = true;
  return code;
}

// Whether it is a writer that asks, by walTryBeginRead and sqlite3WalBeginWriteTransaction: who begins to write has a
// read lock. Who has none checkpoints, or wants to recover the index, and comes through without it.
bool begins_write(const State& state, int at, int flags) {
  return at == 0 && (flags & SQLITE_SHM_LOCK) && (flags & SQLITE_SHM_EXCLUSIVE) && state.read_locks != 0;
}

void note_locks(State& state, int at, int n, int flags) {
  const bool locks = flags & SQLITE_SHM_LOCK;
  if (flags & SQLITE_SHM_SHARED) {
    constexpr uint32_t kReadLocks = ((1u << kWalReaders) - 1) << (wal_read_lock(0) - kShmLockBase);
    const uint32_t mask = (((1u << n) - 1) << at) & kReadLocks;
    state.read_locks = locks ? state.read_locks | mask : state.read_locks & ~mask;
  } else if (at == 0) {
    locks ? state.door->write_locked() : state.door->write_unlocked();
  }
}

int lock_index(sqlite3_file* f, int at, int n, int flags) {
  State& state = state_of(f);
  if (state.binding->forked()) return refuse_fork(f, SQLITE_IOERR_SHMLOCK);
  if (begins_write(state, at, flags)) {
    if (Status may = state.door->may_write(); !may.ok()) return refuse_writer(f, may.error());
  }
  const int code = methods_of(f).xShmLock(real_of(f), at, n, flags);
  if (code == SQLITE_OK) note_locks(state, at, n, flags);
  return code;
}

void index_barrier(sqlite3_file* f) { methods_of(f).xShmBarrier(real_of(f)); }

int unmap_index(sqlite3_file* f, int remove) {
  State& state = state_of(f);
  if (state.binding->forked()) return methods_of(f).xShmUnmap(real_of(f), 0);
  if (remove) {
    Status drained = state.door->before_index_unlink();
    // Then it stays, and so does the WAL, by the same drain.
    if (!drained.ok()) {
      refuse_error(f, drained.error(), SQLITE_IOERR);
      remove = 0;
    }
  }
  const int code = methods_of(f).xShmUnmap(real_of(f), remove);
  if (state.index_told) {
    Status told = state.door->index_unmapped();
    if (!told.ok()) refuse_error(f, told.error(), SQLITE_IOERR);  // the next opening of -wal asks again
  }
  state.index_told = false;
  state.read_locks = 0;
  leave_index(state);
  return code;
}

int fetch_page(sqlite3_file* f, sqlite3_int64 at, int size, void** out) {
  if (state_of(f).binding->forked()) return refuse_fork(f, SQLITE_IOERR_MMAP);
  return methods_of(f).xFetch(real_of(f), at, size, out);
}

int unfetch_page(sqlite3_file* f, sqlite3_int64 at, void* page) { return methods_of(f).xUnfetch(real_of(f), at, page); }

const sqlite3_io_methods kMethods = {3,
                                     close_file,
                                     read_file,
                                     write_file,
                                     truncate_file,
                                     sync_file,
                                     file_size,
                                     lock_file,
                                     unlock_file,
                                     check_reserved,
                                     control_file,
                                     sector_size,
                                     device_characteristics,
                                     map_index,
                                     lock_index,
                                     index_barrier,
                                     unmap_index,
                                     fetch_page,
                                     unfetch_page};

}  // namespace

int open_files() { return open_count.load(); }

void begin_shim(VfsFile* file, std::unique_ptr<VfsFile::State> state) {
  open_count.fetch_add(1);
  file->state = state.release();
  file->base.pMethods = &kMethods;
}

}  // namespace litefs
