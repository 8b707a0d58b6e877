#include "fuse/import_source.h"

#include <fcntl.h>
#include <poll.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "env/process.h"
#include "fuse/descriptor.h"
#include "sqlite/header.h"
#include "sqlite/locks.h"

namespace litefs {
namespace {

constexpr size_t kCopyBytes = 1u << 20;
constexpr std::chrono::milliseconds kLockRetry{50};
constexpr std::chrono::milliseconds kInputPoll{200};
// Virtual machine steps between two looks at signals and progress.
constexpr int kCheckSteps = 20000;

// How a file stood when it was looked at; nothing when it is not there.
std::optional<FileInfo> look(FileSystem& files, const std::string& path) {
  Result<FileInfo> info = files.info(path);
  return info.ok() ? std::optional<FileInfo>(info.value()) : std::nullopt;
}

bool same_file_unchanged(const std::optional<FileInfo>& a, const std::optional<FileInfo>& b) {
  if (!a || !b) return !a && !b;
  return a->inode == b->inode && a->size_bytes == b->size_bytes && a->mtime_ns == b->mtime_ns;
}

Error locked(const std::string& file) {
  std::string who = process_list_text(processes_with_open({file, file + "-wal", file + "-shm", file + "-journal"}));
  return Error(ErrorCode::kBusy, file + " is being written" + (who.empty() ? "" : " by " + who));
}

}  // namespace

Result<std::unique_ptr<ImportSource>> ImportSource::open(FileSystem& files, const std::string& file,
                                                         const std::string& staging_dir, std::chrono::milliseconds wait,
                                                         CommandContext& context) {
  std::unique_ptr<ImportSource> source(new ImportSource(files, context));
  source->shown_name_ = file == "-" ? "standard input" : file;
  TRY(source->take_staging(staging_dir));
  struct stat info = {};
  if (file == "-") {
    TRY(source->stage_stream(context.in_fd));
  } else if (stat(file.c_str(), &info) != 0) {
    return errno_error(errno, "open " + file);
  } else if (S_ISDIR(info.st_mode)) {
    return Error(ErrorCode::kInvalid, file + " is a directory");
  } else if (!S_ISREG(info.st_mode)) {
    Descriptor pipe(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    if (pipe.get() < 0) return errno_error(errno, "open " + file);
    TRY(source->stage_stream(pipe.get()));
  } else if (TRY(source->needs_copy(file))) {
    TRY(source->stage_file(file, wait));
  } else {
    Status begun = source->begin(file, SqliteConnection::Mode::kReadOnly);
    // What cannot be read without writing beside it (a read-only directory, a journal that came
    // this moment).
    if (!begun.ok() && begun.error().code() == ErrorCode::kReadOnly) begun = source->stage_file(file, wait);
    TRY(begun);
    return source;
  }
  if (!source->connection_) TRY(source->begin(source->staged(), SqliteConnection::Mode::kReadWrite));
  return source;
}

ImportSource::~ImportSource() {
  connection_.reset();
  // The next import removes what cannot be removed now.
  if (staging_lock_) static_cast<void>(clear_staging());
}

Status ImportSource::take_staging(const std::string& directory) {
  staging_dir_ = directory;
  TRY(files_.make_directories(directory));
  std::unique_ptr<File> lock = TRY(files_.open(directory + "/lock", OpenMode::kCreate));
  Status taken = lock->try_lock(0, 1, LockKind::kExclusive);
  if (!taken.ok()) {
    if (taken.error().code() != ErrorCode::kBusy) return taken;
    return Error(ErrorCode::kBusy, "another import is under way on this node");
  }
  staging_lock_ = std::move(lock);
  return clear_staging();
}

Status ImportSource::clear_staging() {
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
    TRY(files_.remove_if_there(staged() + suffix));
  }
  return {};
}

// What SQLite would have to recover, which it does by writing.
Result<bool> ImportSource::needs_copy(const std::string& file) {
  if (std::optional<FileInfo> journal = look(files_, file + "-journal"); journal && journal->size_bytes > 0)
    return true;
  // An index beside a WAL: somebody has it open, and reads and writes it with us by SQLite's rules.
  if (look(files_, file + "-shm")) return false;
  if (std::optional<FileInfo> wal = look(files_, file + "-wal"); wal && wal->size_bytes > 0) return true;
  std::unique_ptr<File> database = TRY(files_.open(file, OpenMode::kReadOnly));
  uint8_t first[kDatabaseHeaderBytes];
  size_t n = TRY(database->read_at(0, first));
  if (n == 0) return Error(ErrorCode::kInvalid, file + " is empty");
  Result<DatabaseHeader> header = DatabaseHeader::parse(ByteView(first, n));
  if (!header.ok()) return Error(ErrorCode::kInvalid, file + " is not a SQLite database, or it is encrypted");
  // SQLite makes a -wal and a -shm to read such a file.
  return header.value().is_wal();
}

Status ImportSource::stage_stream(int fd) {
  is_staged_ = true;
  std::unique_ptr<File> copy = TRY(files_.open(staged(), OpenMode::kCreate));
  TRY(copy->truncate(0));
  Progress progress(context_.err, context_.err_is_terminal, "reading " + shown_name_);
  Bytes buffer(kCopyBytes);
  for (uint64_t at = 0;;) {
    TRY(context_.check_interrupted());
    struct pollfd ready = {fd, POLLIN, 0};
    if (poll(&ready, 1, static_cast<int>(kInputPoll.count())) == 0) continue;
    ssize_t n = read(fd, buffer.data(), buffer.size());
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n < 0) return errno_error(errno, "read " + shown_name_);
    if (n == 0) return at > 0 ? Status() : Error(ErrorCode::kInvalid, shown_name_ + " is empty");
    TRY(copy->write_at(at, ByteView(buffer.data(), static_cast<size_t>(n))));
    at += static_cast<uint64_t>(n);
    progress.update(at, 0);
  }
}

Status ImportSource::stage_file(const std::string& file, std::chrono::milliseconds wait) {
  is_staged_ = true;
  connection_.reset();
  TRY(copy_under_lock(file, wait));
  return begin(staged(), SqliteConnection::Mode::kReadWrite);
}

Status ImportSource::copy_under_lock(const std::string& file, std::chrono::milliseconds wait) {
  std::unique_ptr<File> database = TRY(files_.open(file, OpenMode::kReadOnly));
  // unixLock's protocol: PENDING first, so that a writer who waits for its readers is let through.
  const auto until = std::chrono::steady_clock::now() + wait;
  for (;;) {
    Status taken = database->try_lock(kPendingByte, 1, LockKind::kShared);
    if (taken.ok()) taken = database->try_lock(kSharedFirst, kSharedSize, LockKind::kShared);
    TRY(database->try_lock(kPendingByte, 1, LockKind::kNone));
    if (taken.ok()) break;
    if (taken.error().code() != ErrorCode::kBusy) return taken;
    if (std::chrono::steady_clock::now() >= until) return locked(file);
    TRY(context_.wait(kLockRetry));
  }
  const std::string names[] = {"", "-wal", "-journal"};
  std::optional<FileInfo> before[std::size(names)];
  uint64_t total = 0;
  for (size_t i = 0; i < std::size(names); ++i) {
    before[i] = look(files_, file + names[i]);
    if (before[i]) total += before[i]->size_bytes;
  }
  Progress progress(context_.err, context_.err_is_terminal, "reading " + shown_name_);
  Bytes buffer(kCopyBytes);
  uint64_t done = 0;
  for (size_t i = 0; i < std::size(names); ++i) {
    if (!before[i]) continue;
    std::unique_ptr<File> from = TRY(files_.open(file + names[i], OpenMode::kReadOnly));
    std::unique_ptr<File> to = TRY(files_.open(staged() + names[i], OpenMode::kCreate));
    for (uint64_t at = 0;;) {
      TRY(context_.check_interrupted());
      size_t n = TRY(from->read_at(at, buffer));
      if (n == 0) break;
      TRY(to->write_at(at, ByteView(buffer).first(n)));
      at += n;
      done += n;
      progress.update(done, total);
    }
  }
  // A WAL is written without the lock that we hold.
  for (size_t i = 0; i < std::size(names); ++i) {
    if (!same_file_unchanged(before[i], look(files_, file + names[i]))) return locked(file);
  }
  return {};
}

Status ImportSource::begin(const std::string& path, SqliteConnection::Mode mode) {
  connection_ = TRY(SqliteConnection::open(path, mode));
  // A transaction that is read from: only then it stands on one state.
  Status begun = connection_->exec("BEGIN");
  Result<std::vector<std::string>> read = connection_->rows("SELECT count(*) FROM sqlite_schema");
  if (!read.ok()) begun = read.error();
  if (!begun.ok()) {
    if (begun.error().code() == ErrorCode::kInvalid) {
      return Error(ErrorCode::kInvalid, shown_name_ + " is not a SQLite database, or it is encrypted");
    }
    if (begun.error().code() == ErrorCode::kCorrupt) {
      return Error(ErrorCode::kCorrupt, shown_name_ + " is damaged: " + begun.error().message());
    }
    return begun;
  }
  page_size_ = static_cast<uint32_t>(std::stoul(TRY(connection_->value("PRAGMA page_size"))));
  size_pages_ = std::stoull(TRY(connection_->value("PRAGMA page_count")));
  is_wal_ = TRY(connection_->value("PRAGMA journal_mode")) == "wal";
  // Of a file without a page SQLite says that it is an empty database.
  if (size_pages_ == 0) return Error(ErrorCode::kInvalid, shown_name_ + " is empty");
  return {};
}

Status ImportSource::check() {
  struct State {
    ImportSource* source;
    Progress progress;
    Status interrupted;
  } state{this, {context_.err, context_.err_is_terminal, "checking " + shown_name_}, {}};
  sqlite3_progress_handler(
      connection_->handle(), kCheckSteps,
      [](void* argument) -> int {
        State& now = *static_cast<State*>(argument);
        now.interrupted = now.source->context_.check_interrupted();
        // Pages that SQLite had to read; it may come to some of them twice.
        int misses = 0, high = 0;
        sqlite3_db_status(now.source->connection_->handle(), SQLITE_DBSTATUS_CACHE_MISS, &misses, &high, 0);
        now.progress.update(static_cast<uint64_t>(misses) * now.source->page_size_, now.source->size_bytes());
        return now.interrupted.ok() ? 0 : 1;
      },
      &state);
  Result<std::vector<std::string>> found = connection_->rows("PRAGMA integrity_check");
  sqlite3_progress_handler(connection_->handle(), 0, nullptr, nullptr);
  TRY(state.interrupted);
  if (!found.ok()) {
    return Error(found.error().code(), shown_name_ + " cannot be checked: " + found.error().message());
  }
  if (found.value().size() == 1 && found.value()[0] == "ok") return {};
  std::string first = found.value().empty() ? "no answer" : found.value()[0];
  std::replace(first.begin(), first.end(), '\n', ' ');
  return Error(ErrorCode::kCorrupt,
               shown_name_ + " is damaged: " + first + (found.value().size() > 1 ? ", and more" : ""));
}

}  // namespace litefs
