// The file that is to be imported, as a SQLite connection with an open read transaction on its
// committed state.
//
// A file that has nothing pending beside it, or a WAL that an application has open, is read where
// it is. What is a pipe, and what needs a recovery (a journal beside it, a WAL without its index),
// is first copied, with its -wal and -journal and under SQLite's SHARED lock, into a directory of
// our own, and SQLite recovers the copy: the file itself is never changed. Thread rule: the main
// thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "env/file.h"
#include "fuse/command.h"
#include "fuse/sqlite_connection.h"

namespace litefs {

class ImportSource {
 public:
  // `file` "-" is standard input. `staging_dir` is made; another import that uses it is kBusy, and
  // what a killed one left there is removed. kInvalid: no SQLite database, or an encrypted one;
  // kBusy: somebody writes it and does not let go within `wait`.
  static Result<std::unique_ptr<ImportSource>> open(FileSystem& files, const std::string& file,
                                                    const std::string& staging_dir, std::chrono::milliseconds wait,
                                                    CommandContext& context);
  ~ImportSource();
  ImportSource(const ImportSource&) = delete;
  ImportSource& operator=(const ImportSource&) = delete;

  // PRAGMA integrity_check. kCorrupt, with what it found.
  Status check();

  SqliteConnection& connection() { return *connection_; }
  uint32_t page_size() const { return page_size_; }
  uint64_t size_pages() const { return size_pages_; }
  uint64_t size_bytes() const { return size_pages_ * page_size_; }
  bool is_wal() const { return is_wal_; }
  // For messages.
  const std::string& shown_name() const { return shown_name_; }

 private:
  ImportSource(FileSystem& files, CommandContext& context) : files_(files), context_(context) {}
  Status take_staging(const std::string& directory);
  Status clear_staging();
  Status stage_stream(int fd);
  Status stage_file(const std::string& file, std::chrono::milliseconds wait);
  Status copy_under_lock(const std::string& file, std::chrono::milliseconds wait);
  Result<bool> needs_copy(const std::string& file);
  Status begin(const std::string& path, SqliteConnection::Mode mode);
  std::string staged() const { return staging_dir_ + "/copy"; }

  FileSystem& files_;
  CommandContext& context_;
  std::string shown_name_;
  std::string staging_dir_;
  std::unique_ptr<File> staging_lock_;
  bool is_staged_ = false;
  std::unique_ptr<SqliteConnection> connection_;
  uint32_t page_size_ = 0;
  uint64_t size_pages_ = 0;
  bool is_wal_ = false;
};

}  // namespace litefs
