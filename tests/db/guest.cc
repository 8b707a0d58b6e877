#include "db/guest.h"

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <iostream>

#include "sqlite/journal.h"

namespace litefs::test {

// ---- this end ----

namespace {
constexpr char kAsks[] = "ask ";
}

Guest::Guest(const std::string& path, Host host) : host_(std::move(host)) {
  int in[2], out[2];
  REQUIRE(pipe2(in, O_CLOEXEC) == 0);
  REQUIRE(pipe2(out, O_CLOEXEC) == 0);
  const int parent = getpid();
  pid_ = fork();
  REQUIRE(pid_ >= 0);
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    dup2(in[0], 0);
    dup2(out[1], 1);
    execl("/proc/self/exe", "guest", "--guest", path.c_str(), nullptr);
    _exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  to_ = in[1];
  from_ = out[0];
  REQUIRE(run("") == "");
}

Guest::~Guest() { kill_now(); }

void Guest::kill_now() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
  ::close(to_);
  ::close(from_);
  pending_.clear();
}

void Guest::close() {
  CHECK(run(".close") == "");
  kill_now();
}

void Guest::send(const std::string& line) {
  const std::string text = line + "\n";
  if (write(to_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) FAIL("the guest is gone");
}

std::string Guest::receive() {
  for (;;) {
    if (size_t end = buffer_.find('\n'); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    char more[4096];
    ssize_t n = read(from_, more, sizeof more);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) FAIL("the guest has ended");
    buffer_.append(more, static_cast<size_t>(n));
  }
}

bool Guest::answer(const std::string& question) {
  Status answer;
  if (question.rfind(kAsks, 0) == 0) {
    const size_t space = question.find(' ', sizeof kAsks - 1);
    answer = host_(question.substr(sizeof kAsks - 1, space - (sizeof kAsks - 1)), question.substr(space + 1));
  }
  send(answer.ok() ? "ok" : "no");
  return answer.ok();
}

bool Guest::follow(int step) {
  for (;;) {
    const std::string line = receive();
    if (line[0] == '>') {
      rows_ += (rows_.empty() ? "" : "\n") + line.substr(1);
    } else if (line[0] == '=') {
      if (line != "=") rows_ += (rows_.empty() ? "" : "\n") + line.substr(1);
      return false;
    } else if (--step == 0) {
      pending_ = line.substr(1);
      return true;
    } else {
      answer(line.substr(1));
    }
  }
}

bool Guest::run_until(const std::string& sql, int step) {
  REQUIRE(!waiting());
  rows_.clear();
  send(sql);
  return follow(step);
}

bool Guest::step_on(int step) {
  answer(std::exchange(pending_, ""));
  return follow(step);
}

std::string Guest::go_on() {
  step_on(0);
  return rows_;
}

std::string Guest::run(const std::string& sql) {
  run_until(sql, 0);
  return rows_;
}

Status serve_guest(Database& database, const std::string& what) {
  if (what == "drain") return database.drain(true);
  if (what == "journal") {
    database.note_application_sync();
    return database.capture_file();
  }
  if (what == "wal-unlink") return database.before_wal_unlink();
  if (what == "wal-open") return database.tail_opened(false);
  if (what == "index-map") return database.tail_opened(true);
  if (what == "index-unmapped") database.index_closed();
  if (what == "wal-unlinked") database.tail_unlinked();
  if (what == "journal-cut") database.journal_cut();
  if (what == "journal-unlinked") database.journal_unlinked();
  return {};
}

// ---- the other process ----

namespace {

bool tell(const std::string& line) {
  std::cout << '?' << line << std::endl;
  std::string answer;
  return std::getline(std::cin, answer) && answer == "ok";
}

enum class Kind { kDatabase, kJournal, kWal, kSuper, kOther };

Kind kind_of(const std::string& path, int flags) {
  if (flags & SQLITE_OPEN_MAIN_DB) return Kind::kDatabase;
  if (path.ends_with("-journal")) return Kind::kJournal;
  if (path.ends_with("-wal")) return Kind::kWal;
  return path.find("-mj") != std::string::npos ? Kind::kSuper : Kind::kOther;
}

const char* word(Kind kind) {
  switch (kind) {
    case Kind::kDatabase: return "database";
    case Kind::kJournal: return "journal";
    case Kind::kWal: return "wal";
    case Kind::kSuper: return "super";
    case Kind::kOther: return "other";
  }
  return "?";
}

struct GuestFile {
  sqlite3_file base;
  sqlite3_file* real;
  Kind kind;
  std::string* database;  // its path
  bool mapped;
};

sqlite3_vfs* g_real = nullptr;
int g_wals = 0;  // open in this process

GuestFile* of(sqlite3_file* f) { return reinterpret_cast<GuestFile*>(f); }
const sqlite3_io_methods& real(sqlite3_file* f) { return *of(f)->real->pMethods; }

bool ask(const char* what, const std::string& path) { return tell(std::string(kAsks) + what + " " + path); }
// A change that no host is asked for: the test may stop us here.
bool step(const char* what, Kind kind) { return tell(std::string(what) + " " + word(kind)); }

int x_close(sqlite3_file* f) {
  if (of(f)->kind == Kind::kWal) --g_wals;
  int code = real(f).xClose(of(f)->real);
  delete of(f)->database;
  return code;
}
int x_read(sqlite3_file* f, void* out, int size, sqlite3_int64 at) { return real(f).xRead(of(f)->real, out, size, at); }
int x_write(sqlite3_file* f, const void* data, int size, sqlite3_int64 at) {
  GuestFile* file = of(f);
  bool allowed = true;
  if (file->kind == Kind::kDatabase && g_wals > 0) {
    allowed = ask("drain", *file->database);
  } else if (file->kind == Kind::kJournal && at == 0 && size >= static_cast<int>(kJournalHeaderBytes) &&
             !journal_is_begun(ByteView(static_cast<const uint8_t*>(data), static_cast<size_t>(size)))) {
    allowed = ask("journal", *file->database);
  }
  if (!allowed || !step("write", file->kind)) return SQLITE_IOERR_WRITE;
  return real(f).xWrite(file->real, data, size, at);
}
int x_truncate(sqlite3_file* f, sqlite3_int64 size) {
  GuestFile* file = of(f);
  bool allowed = true;
  const bool ends = file->kind == Kind::kJournal && size == 0;
  if ((file->kind == Kind::kDatabase && g_wals > 0) || file->kind == Kind::kWal)
    allowed = ask("drain", *file->database);
  if (ends) allowed = ask("journal", *file->database);
  if (!allowed || !step("truncate", file->kind)) return SQLITE_IOERR_TRUNCATE;
  const int code = real(f).xTruncate(file->real, size);
  if (ends && code == SQLITE_OK) ask("journal-cut", *file->database);
  return code;
}
int x_sync(sqlite3_file* f, int) {  // not passed on: no power cut is simulated
  return step("sync", of(f)->kind) ? SQLITE_OK : SQLITE_IOERR_FSYNC;
}
int x_size(sqlite3_file* f, sqlite3_int64* size) { return real(f).xFileSize(of(f)->real, size); }
int x_lock(sqlite3_file* f, int level) { return real(f).xLock(of(f)->real, level); }
int x_unlock(sqlite3_file* f, int level) { return real(f).xUnlock(of(f)->real, level); }
int x_reserved(sqlite3_file* f, int* out) { return real(f).xCheckReservedLock(of(f)->real, out); }
int x_control(sqlite3_file* f, int op, void* argument) { return real(f).xFileControl(of(f)->real, op, argument); }
int x_sector(sqlite3_file* f) { return real(f).xSectorSize(of(f)->real); }
int x_device(sqlite3_file* f) { return real(f).xDeviceCharacteristics(of(f)->real) & ~SQLITE_IOCAP_BATCH_ATOMIC; }
int x_shm_map(sqlite3_file* f, int region, int size, int extend, void volatile** out) {
  GuestFile* file = of(f);
  const int code = real(f).xShmMap(file->real, region, size, extend, out);
  if (code == SQLITE_OK && !file->mapped) file->mapped = ask("index-map", *file->database);
  return code;
}
int x_shm_lock(sqlite3_file* f, int at, int n, int flags) { return real(f).xShmLock(of(f)->real, at, n, flags); }
void x_shm_barrier(sqlite3_file* f) { real(f).xShmBarrier(of(f)->real); }
int x_shm_unmap(sqlite3_file* f, int remove) {
  GuestFile* file = of(f);
  if (remove && !ask("drain", *file->database)) remove = 0;
  const int code = real(f).xShmUnmap(file->real, remove);
  if (remove) ask("index-unmapped", *file->database);
  file->mapped = false;
  return code;
}

const sqlite3_io_methods kMethods = {2,          x_close,       x_read,      x_write,   x_truncate, x_sync,   x_size,
                                     x_lock,     x_unlock,      x_reserved,  x_control, x_sector,   x_device, x_shm_map,
                                     x_shm_lock, x_shm_barrier, x_shm_unmap, nullptr,   nullptr};

std::string database_of(const std::string& path, Kind kind) {
  if (kind == Kind::kJournal) return path.substr(0, path.rfind("-journal"));
  if (kind == Kind::kWal) return path.substr(0, path.rfind("-wal"));
  if (kind == Kind::kSuper) return path.substr(0, path.rfind("-mj"));
  return path;
}

int v_open(sqlite3_vfs*, const char* path, sqlite3_file* f, int flags, int* out) {
  GuestFile* file = of(f);
  file->base.pMethods = nullptr;
  file->real = reinterpret_cast<sqlite3_file*>(file + 1);
  const std::string name = path ? path : "";
  const Kind kind = kind_of(name, flags);
  if (kind == Kind::kJournal && !step("open", kind)) return SQLITE_CANTOPEN;
  int code = g_real->xOpen(g_real, path, file->real, flags, out);
  if (code != SQLITE_OK) return code;
  file->kind = kind;
  file->database = new std::string(database_of(name, kind));
  file->mapped = false;
  file->base.pMethods = &kMethods;
  if (kind == Kind::kWal) {
    ++g_wals;
    ask("wal-open", *file->database);
  }
  return code;
}
int v_delete(sqlite3_vfs*, const char* path, int sync) {
  const Kind kind = kind_of(path, 0);
  const std::string database = database_of(path, kind);
  const char* what = kind == Kind::kJournal ? "journal" : kind == Kind::kWal ? "wal-unlink" : "super";
  int there = 0;
  g_real->xAccess(g_real, path, SQLITE_ACCESS_EXISTS, &there);
  if (there && (!ask(what, kind == Kind::kSuper ? path : database) || !step("unlink", kind)))
    return SQLITE_IOERR_DELETE;
  const int code = g_real->xDelete(g_real, path, sync);
  if (there && code == SQLITE_OK && kind == Kind::kJournal) ask("journal-unlinked", database);
  if (there && code == SQLITE_OK && kind == Kind::kWal) ask("wal-unlinked", database);
  return code;
}
int v_access(sqlite3_vfs*, const char* path, int flags, int* out) { return g_real->xAccess(g_real, path, flags, out); }
int v_full(sqlite3_vfs*, const char* path, int size, char* out) {
  return g_real->xFullPathname(g_real, path, size, out);
}
int v_random(sqlite3_vfs*, int size, char* out) { return g_real->xRandomness(g_real, size, out); }
int v_sleep(sqlite3_vfs*, int us) { return g_real->xSleep(g_real, us); }
int v_time(sqlite3_vfs*, double* now) { return g_real->xCurrentTime(g_real, now); }
int v_error(sqlite3_vfs*, int size, char* out) { return g_real->xGetLastError(g_real, size, out); }

void register_vfs() {
  static sqlite3_vfs vfs;
  g_real = sqlite3_vfs_find("unix");
  vfs.iVersion = 1;
  vfs.szOsFile = static_cast<int>(sizeof(GuestFile)) + g_real->szOsFile;
  vfs.mxPathname = g_real->mxPathname;
  vfs.zName = "guest";
  vfs.xOpen = v_open;
  vfs.xDelete = v_delete;
  vfs.xAccess = v_access;
  vfs.xFullPathname = v_full;
  vfs.xRandomness = v_random;
  vfs.xSleep = v_sleep;
  vfs.xCurrentTime = v_time;
  vfs.xGetLastError = v_error;
  sqlite3_vfs_register(&vfs, 1);
}

int print_row(void*, int columns, char** values, char**) {
  std::cout << '>';
  for (int i = 0; i < columns; ++i) std::cout << (i ? "|" : "") << (values[i] ? values[i] : "NULL");
  std::cout << '\n';
  return 0;
}

}  // namespace

int guest_main(int argc, char** argv) {
  if (argc < 3 || std::strcmp(argv[1], "--guest") != 0) return -1;
  register_vfs();
  sqlite3* db = nullptr;
  int code = sqlite3_open_v2(argv[2], &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "guest");
  for (std::string line; std::getline(std::cin, line);) {
    char* message = nullptr;
    if (line == ".close") {
      code = sqlite3_close(std::exchange(db, nullptr));
    } else if (code == SQLITE_OK || db) {
      code = sqlite3_exec(db, line.c_str(), print_row, nullptr, &message);
    }
    std::cout << '=' << (code == SQLITE_OK ? "" : message ? message : sqlite3_errstr(code)) << std::endl;
    sqlite3_free(message);
  }
  return 0;
}

}  // namespace litefs::test
