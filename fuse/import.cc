#include "fuse/import.h"

#include <sqlite3.h>
#include <sys/stat.h>

#include "db/paths.h"
#include "env/process.h"
#include "fuse/import_source.h"
#include "fuse/sqlite_connection.h"
#include "node/local_requests.h"
#include "node/status.h"

namespace litefs {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLockRetry{50};
constexpr int kStepBytes = 1 << 20;
constexpr size_t kPositionBytesMax = 64;
// Every primary's mount has it.
constexpr const char* kMountSign = ".lag";

class Import {
 public:
  Import(FileSystem& files, const ImportRequest& request, CommandContext& context)
      : files_(files), request_(request), context_(context) {}

  Result<std::string> run() {
    // Before it is a part of a line that is sent.
    TRY(check_database_name(request_.name));
    TRY(ask_node());
    source_ =
        TRY(ImportSource::open(files_, request_.file, context_.node.data_dir() + "/import", request_.wait, context_));
    TRY(source_->check());
    TRY(open_destination());
    TRY(copy());
    TRY(set_mode());
    destination_.reset();
    Result<std::string> position = read_position();
    if (!position.ok()) {
      return Error(position.error().code(), "'" + request_.name +
                                                "' has the new content on this node, but its position "
                                                "cannot be had: " +
                                                position.error().message());
    }
    return "imported " + source_->shown_name() + " as " + request_.name + ": " + size_text(source_->size_bytes()) +
           ", at " + position.value();
  }

 private:
  // Asked again and again, as long as SQLite says that somebody is in the way.
  template <class Try>
  Status until_free(Try attempt) {
    const auto until = SteadyClock::now() + request_.wait;
    for (;;) {
      Status tried = attempt();
      if (tried.ok() || tried.error().code() != ErrorCode::kBusy) return tried;
      if (SteadyClock::now() >= until) return in_the_way();
      TRY(context_.wait(kLockRetry));
    }
  }

  Status ask_node() {
    std::string answer = TRY(context_.node.ask(import_request(request_.name)));
    const std::string ok = kLocalOk;
    if (answer.rfind(ok, 0) != 0 || answer.back() != '\n') {
      return Error(ErrorCode::kUnsupported, "the node answers in a way that is not understood");
    }
    path_ = answer.substr(ok.size(), answer.size() - ok.size() - 1);
    if (!path_.ends_with("/" + request_.name)) {
      return Error(ErrorCode::kUnsupported, "the node answers in a way that is not understood");
    }
    return check_directories(path_.substr(0, path_.size() - request_.name.size() - 1));
  }

  Status check_directories(const std::string& mount) {
    // The directory below the mount point is there in every container, and SQLite would make a
    // database in it.
    if (!TRY(files_.exists(mount + "/" + kMountSign))) {
      return Error(ErrorCode::kUnavailable,
                   "the node's mount at " + mount + " cannot be seen from here: run this where its applications run");
    }
    const std::string& name = request_.name;
    for (size_t end = name.find('/'); end != std::string::npos; end = name.find('/', end + 1)) {
      const std::string part = name.substr(0, end);
      Result<FileInfo> there = files_.info(mount + "/" + part);
      if (!there.ok() && there.error().code() == ErrorCode::kNotFound) {
        return Error(ErrorCode::kNotFound, "there is no directory '" + part +
                                               "' on the mount: make it first, as by mkdir " + mount + "/" + part);
      }
      if (!there.ok()) return there.error();
      if (S_ISDIR(there.value().mode)) continue;
      return Error(ErrorCode::kInvalid, "'" + part + "' is a database, and no directory for '" + name + "'");
    }
    return {};
  }

  Error in_the_way() {
    std::string who =
        process_list_text(processes_with_open({path_, path_ + "-wal", path_ + "-shm", path_ + "-journal"}));
    std::string text = "'" + request_.name + "' is in use";
    if (!who.empty()) text += " by " + who;
    if (needs_alone_) {
      text += "; it has pages of " + std::to_string(page_size_before_) + " bytes and " + source_->shown_name() +
              " of " + std::to_string(source_->page_size()) + ", so nobody else may have it open";
    }
    return Error(ErrorCode::kBusy, text + ". Nothing was changed");
  }

  Status open_destination() {
    destination_ = TRY(SqliteConnection::open(path_, SqliteConnection::Mode::kCreate));
    std::string mode;
    TRY(until_free([&] { return look_at_destination(&mode); }));
    wal_after_ = is_new_ ? source_->is_wal() : mode == "wal";
    // Durable before it is said to be done; and not one write a page where the cache can hold them.
    TRY(destination_->exec("PRAGMA synchronous=FULL"));
    TRY(destination_->exec("PRAGMA cache_size=-65536"));
    if (mode != "wal" || page_size_before_ == source_->page_size()) return {};
    // A WAL holds pages of one size. Leaving WAL needs the database alone, which is what a new size
    // needs anyway.
    needs_alone_ = true;
    TRY(until_free([&] { return destination_->exec("PRAGMA journal_mode=DELETE"); }));
    needs_alone_ = false;
    left_wal_ = true;
    return {};
  }

  Status look_at_destination(std::string* mode) {
    // It reads a file that may be locked, so it may be asked again.
    Result<std::string> pages = destination_->value("PRAGMA page_count");
    if (!pages.ok()) return pages.error();
    is_new_ = pages.value() == "0";
    *mode = TRY(destination_->value("PRAGMA journal_mode"));
    page_size_before_ = static_cast<uint32_t>(std::stoul(TRY(destination_->value("PRAGMA page_size"))));
    return {};
  }

  Status copy() {
    sqlite3_backup* raw = sqlite3_backup_init(destination_->handle(), "main", source_->connection().handle(), "main");
    if (!raw) return destination_->error(sqlite3_errcode(destination_->handle()));
    Status copied;
    {
      Progress progress(context_.err, context_.err_is_terminal, "importing " + request_.name);
      const int pages = std::max(1, kStepBytes / static_cast<int>(source_->page_size()));
      bool more = true;
      while (copied.ok() && more) {
        copied = until_free([&]() -> Status {
          int code = sqlite3_backup_step(raw, pages);
          more = code == SQLITE_OK;
          return more || code == SQLITE_DONE ? Status() : Status(backup_error(code));
        });
        if (copied.ok() && more) copied = context_.check_interrupted();
        uint64_t left = static_cast<uint64_t>(sqlite3_backup_remaining(raw)) * source_->page_size();
        progress.update(source_->size_bytes() - std::min(left, source_->size_bytes()), source_->size_bytes());
      }
    }
    // Of a copy that is not complete this rolls back.
    int finished = sqlite3_backup_finish(raw);
    if (copied.ok() && finished != SQLITE_OK) copied = backup_error(finished);
    return copied.ok() ? copied : Status(not_done(copied.error()));
  }

  // The backup's own code: the connections' may be of another call.
  Error backup_error(int code) {
    const int kind = code & 0xff;
    ErrorCode means = kind == SQLITE_BUSY || kind == SQLITE_LOCKED ? ErrorCode::kBusy
                      : kind == SQLITE_FULL                        ? ErrorCode::kNoSpace
                      : kind == SQLITE_CORRUPT                     ? ErrorCode::kCorrupt
                                                                   : ErrorCode::kIo;
    return Error(means, path_ + ": " + sqlite3_errstr(code) + " (" + std::to_string(code) + ")");
  }

  Error not_done(const Error& error) {
    std::string text = error.message();
    if (error.code() == ErrorCode::kCancelled || error.code() == ErrorCode::kNoSpace) {
      text += "; '" + request_.name + "' is as it was";
    } else if (error.code() != ErrorCode::kBusy) {
      // SQLite reports an I/O error also where the node died with the commit on its way.
      text +=
          "; '" + request_.name + "' is as it was, or wholly the new one where the node ended. The node's log says why";
    }
    if (left_wal_ && !destination_->exec("PRAGMA journal_mode=WAL").ok()) {
      text += ". It has left WAL for this import and is in DELETE mode now";
    }
    return Error(error.code(), text);
  }

  Status set_mode() {
    Status set;
    if (wal_after_ && (is_new_ || left_wal_)) {
      set = until_free([&] { return destination_->exec("PRAGMA journal_mode=WAL"); });
    } else if (wal_after_) {
      // A WAL as large as the database need not wait for the next commit. Readers may be in the
      // way, and that is all.
      static_cast<void>(destination_->exec("PRAGMA wal_checkpoint(PASSIVE)").ok());
    }
    if (!set.ok()) {
      context_.err << "litefs: warning: '" << request_.name
                   << "' is imported, but could not be set to WAL: " << set.error().message() << std::endl;
    }
    return {};
  }

  // From NAME-pos, which answers when the commit has been captured.
  Result<std::string> read_position() {
    Bytes text(kPositionBytesMax);
    std::unique_ptr<File> file = TRY(files_.open(path_ + "-pos", OpenMode::kReadOnly));
    text.resize(TRY(file->read_at(0, text)));
    std::string position(text.begin(), text.end());
    while (!position.empty() && position.back() == '\n') position.pop_back();
    return position;
  }

  FileSystem& files_;
  const ImportRequest& request_;
  CommandContext& context_;
  std::string path_;  // on the mount
  std::unique_ptr<ImportSource> source_;
  std::unique_ptr<SqliteConnection> destination_;
  bool is_new_ = false;
  bool wal_after_ = false;
  bool left_wal_ = false;  // for the import alone
  bool needs_alone_ = false;
  uint32_t page_size_before_ = 0;
};

}  // namespace

Result<std::string> import_database(FileSystem& files, const ImportRequest& request, CommandContext& context) {
  return Import(files, request, context).run();
}

}  // namespace litefs
