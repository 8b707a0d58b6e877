#include "fuse/export.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "db/paths.h"
#include "node/export_stream.h"
#include "node/local_requests.h"
#include "node/status.h"

namespace litefs {
namespace {

constexpr size_t kCopyBytes = 1u << 20;
constexpr std::chrono::milliseconds kOutputPoll{200};
// A database that is replaced or whose log is cut in the middle is copied again.
constexpr int kTries = 3;
constexpr std::chrono::seconds kTriesMax{30};

std::string temporary_directory() {
  const char* named = std::getenv("TMPDIR");
  return named && *named ? named : "/tmp";
}

class Export {
 public:
  Export(FileSystem& files, const ExportRequest& request, CommandContext& context)
      : files_(files), request_(request), context_(context), to_output_(request.file == "-") {
    const std::string process = std::to_string(getpid());
    copy_path_ =
        to_output_ ? temporary_directory() + "/litefs-export-" + process : request.file + ".litefs-export-" + process;
  }
  ~Export() {
    // Nothing is left when it has been renamed.
    static_cast<void>(files_.remove(copy_path_).ok());
  }

  Result<std::string> run() {
    // Before it is a part of a line that is sent.
    TRY(check_database_name(request_.name));
    if (!to_output_) TRY(check_target());
    const auto began = std::chrono::steady_clock::now();
    for (int i = 1;; ++i) {
      Status received = receive();
      if (received.ok()) break;
      // The node's reasons may pass, but those for which it has waited itself; what happened here does not.
      const bool waited = std::chrono::steady_clock::now() - began > kTriesMax;
      if (i == kTries || waited || received.error().code() != ErrorCode::kUnavailable) return received.error();
      TRY(context_.wait(std::chrono::milliseconds(100)));
    }
    if (to_output_) {
      TRY(copy_to_output());
    } else {
      TRY(check_target());
      TRY(files_.rename(copy_path_, request_.file));
      TRY(files_.sync_directory(directory_of(request_.file)));
    }
    return summary_;
  }

 private:
  Status check_target() {
    const std::string& file = request_.file;
    const std::string directory = directory_of(file);
    if (!files_.info(directory + "/.").ok()) {
      return Error(ErrorCode::kNotFound, "there is no directory " + directory);
    }
    TRY(check_replaced());
    for (const char* suffix : {"-wal", "-journal"}) {
      if (!TRY(files_.exists(file + suffix))) continue;
      return Error(ErrorCode::kExists, file + suffix + " exists, and SQLite would take it for a part of the new " +
                                           file + ": remove it first");
    }
    return {};
  }

  // What is in FILE's place is replaced by a rename, which must not take away anything else than a file.
  Status check_replaced() {
    const std::string& file = request_.file;
    Result<FileInfo> there = files_.info(file);
    if (!there.ok()) {
      return there.error().code() == ErrorCode::kNotFound ? Status() : Status(there.error());
    }
    if (S_ISLNK(there.value().mode)) {
      return Error(ErrorCode::kExists,
                   file + " is a symbolic link: name the file that it leads to, or '-' for standard output");
    }
    if (!S_ISREG(there.value().mode)) {
      return Error(ErrorCode::kExists,
                   file + " is no regular file, and is not replaced; '-' writes to standard output");
    }
    if (request_.force) return {};
    return Error(ErrorCode::kExists, file + " exists; --force replaces it");
  }

  Status receive() {
    ExportReceiver receiver(files_, copy_path_);
    Progress progress(context_.err, context_.err_is_terminal, "exporting " + request_.name);
    auto take = [&](ByteView bytes) -> Status {
      TRY(context_.check_interrupted());
      TRY(receiver.take(bytes));
      progress.update(receiver.received_bytes(), std::max(receiver.received_bytes(), receiver.total_bytes()));
      return {};
    };
    TRY(context_.node.receive(export_request(request_.name), take, [&] { return context_.check_interrupted(); }));
    TRY(receiver.finish());
    size_bytes_ = static_cast<uint64_t>(receiver.size_pages()) * receiver.page_size();
    summary_ =
        "exported " + request_.name + ": " + size_text(size_bytes_) + ", at " + position_text(receiver.position());
    return {};
  }

  Status copy_to_output() {
    std::unique_ptr<File> copy = TRY(files_.open(copy_path_, OpenMode::kReadOnly));
    // Its name goes now, so that nothing stays when whoever reads our output leaves.
    TRY(files_.remove(copy_path_));
    Progress progress(context_.err, context_.err_is_terminal, "writing " + request_.name);
    Bytes buffer(kCopyBytes);
    for (uint64_t at = 0;;) {
      size_t n = TRY(copy->read_at(at, buffer));
      if (n == 0) return {};
      TRY(write_output(ByteView(buffer).first(n)));
      at += n;
      progress.update(at, size_bytes_);
    }
  }

  Status write_output(ByteView bytes) {
    while (!bytes.empty()) {
      TRY(context_.check_interrupted());
      struct pollfd ready = {context_.out_fd, POLLOUT, 0};
      if (poll(&ready, 1, static_cast<int>(kOutputPoll.count())) == 0) continue;
      // A pipe that has room takes at least this much without blocking.
      ssize_t n = write(context_.out_fd, bytes.data(), std::min<size_t>(bytes.size(), 4096));
      if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (n < 0) return errno_error(errno, "write to standard output");
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return {};
  }

  FileSystem& files_;
  const ExportRequest& request_;
  CommandContext& context_;
  const bool to_output_;
  std::string copy_path_;
  std::string summary_;
  uint64_t size_bytes_ = 0;
};

}  // namespace

Result<std::string> export_database(FileSystem& files, const ExportRequest& request, CommandContext& context) {
  return Export(files, request, context).run();
}

}  // namespace litefs
