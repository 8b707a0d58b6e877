// Database on a primary: whole files that become it as one transaction. They come as copies that applications write
// onto the mount, and by a rename.
//
// A copy on its way is written without a journal and is no database yet. The file `copying` beside the control file
// says so; it is durable before the copy's first byte is taken, and while it is there whatever lies under the
// database's name is removed at the next start. When the last writer has closed the copy it is checked and synced, the
// mark goes, and the copy is recorded. A crash between the last two leaves a whole file that the log does not know,
// which a start adopts.
//
// A renamed database is first made under its new name, whole and recorded, then dropped under its old one. A crash in
// between leaves it under both names, never under none.
#include "db/database.h"
#include "sqlite/header.h"

namespace litefs {
namespace {

constexpr size_t kCopyBytes = 1u << 20;

// Whether a closed file holds a whole database: as many pages as its header says. A header that does not say (or is
// not to be trusted, by lockBtree's rule) could be that of a copy that was cut off, too.
Status check_whole(File& file) {
  FileInfo info = TRY(file.info());
  uint8_t first[kDatabaseHeaderBytes];
  size_t n = TRY(file.read_at(0, first));
  DatabaseHeader header = TRY(DatabaseHeader::parse(ByteView(first, n)));
  if (header.size_pages == 0 || header.change_counter != header.version_valid_for) {
    return Error(ErrorCode::kInvalid, "its header does not say how many pages it has");
  }
  const uint64_t whole_bytes = static_cast<uint64_t>(header.size_pages) * header.page_size;
  if (info.size_bytes < whole_bytes) {
    return Error(ErrorCode::kInvalid, "only " + std::to_string(info.size_bytes) + " of its " +
                                          std::to_string(whole_bytes) + " bytes are there");
  }
  return {};
}

}  // namespace

// What an older database of this name has left behind would be taken for the new one's: a WAL, or a hot journal. (In
// TRUNCATE and PERSIST modes one that is final stays.)
Status Database::check_alone() {
  if (TRY(env_.files.exists(paths_.wal()))) return Error(ErrorCode::kInvalid, paths_.wal() + " lies beside it");
  std::unique_ptr<File> journal = TRY(env_.files.open_if_there(paths_.journal(), OpenMode::kReadOnly));
  uint8_t first[kJournalHeaderBytes];
  if (!journal || !journal_is_hot(ByteView(first, TRY(journal->read_at(0, first))))) return {};
  return Error(ErrorCode::kInvalid, paths_.journal() + " lies beside it");
}

Status Database::begin_copy() {
  MutexLock lock(mutex_);
  TRY(usable());
  if (control_->state().current.size_pages != 0) return Error(ErrorCode::kExists, "'" + name() + "' is a database");
  TRY(TRY(env_.files.open(paths_.copying(), OpenMode::kCreate))->sync());
  TRY(env_.files.sync_directory(paths_.meta()));
  return env_.files.sync_directory(directory_of(paths_.meta()));
}

Status Database::end_copy_mark() {
  TRY(env_.files.remove_if_there(paths_.copying()));
  return env_.files.sync_directory(paths_.meta());
}

Status Database::cancel_copy() {
  MutexLock lock(mutex_);
  return end_copy_mark();
}

Status Database::finish_copy() {
  MutexLock lock(mutex_);
  TRY(usable());
  std::unique_ptr<File> file = TRY(env_.files.open_if_there(paths_.database(), OpenMode::kReadWrite));
  // Deleted while it was written; or nothing at all, which SQLite takes for an empty database.
  if (!file || TRY(file->info()).size_bytes == 0) return end_copy_mark();
  Status taken = check_alone();
  if (taken.ok()) taken = check_whole(*file);
  if (taken.ok()) taken = file->sync();
  if (taken.ok()) taken = env_.files.sync_directory(directory_of(paths_.database()));
  if (taken.ok()) taken = end_copy_mark();
  if (taken.ok()) taken = adopt_file();
  if (taken.ok() || control_->state().current.size_pages != 0) return taken;
  file_.reset();
  TRY(env_.files.remove_if_there(paths_.database()));
  env_.observer.file_removed(name());
  TRY(end_copy_mark());
  return taken;
}

// Records the file that is there as the database's creation. Nobody has it open; it has neither WAL nor journal.
Status Database::adopt_file() {
  OnDisk disk = TRY(look_at_files());
  if (!disk.file_exists) return Error(ErrorCode::kInvalid, paths_.database() + " is no SQLite database");
  TRY(forget_batch(adopt_content(disk)));
  note_file_at_rest();
  return log_->sync();
}

Status Database::discard_unfinished_copy() {
  if (!TRY(env_.files.exists(paths_.copying()))) return {};
  if (control_->state().current.size_pages == 0) {
    TRY(env_.files.remove_if_there(paths_.database()));
    TRY(env_.files.sync_directory(directory_of(paths_.database())));
    env_.log.warning("removed a copy that had not been written to its end").kv("database", name());
  }
  return end_copy_mark();
}

Status Database::adopt_copy_of(const std::string& path) {
  MutexLock lock(mutex_);
  TRY(usable());
  if (TRY(env_.files.exists(paths_.database()))) return Error(ErrorCode::kExists, paths_.database() + " exists");
  TRY(check_alone());
  std::unique_ptr<File> from = TRY(env_.files.open(path, OpenMode::kReadOnly));
  FileInfo info = TRY(from->info());
  {
    std::unique_ptr<File> copy = TRY(env_.files.open(paths_.load(), OpenMode::kCreate));
    TRY(copy->truncate(0));
    Bytes piece(kCopyBytes);
    for (uint64_t at = 0; at < info.size_bytes;) {
      size_t n = TRY(from->read_at(at, piece));
      if (n == 0) return Error(ErrorCode::kIo, path + " became shorter while it was copied");
      TRY(copy->write_at(at, ByteView(piece).first(n)));
      at += n;
    }
    TRY(env_.files.set_owner(paths_.load(), info.uid, info.gid, info.mode));
    TRY(copy->sync());
  }
  TRY(env_.files.rename(paths_.load(), paths_.database()));
  TRY(env_.files.sync_directory(directory_of(paths_.database())));
  Status adopted = adopt_file();
  if (adopted.ok() || control_->state().current.size_pages != 0) return adopted;
  file_.reset();
  TRY(env_.files.remove_if_there(paths_.database()));
  return adopted;
}

void Database::file_replaced() {
  MutexLock lock(mutex_);
  file_.reset();
  note_file_at_rest();
}

}  // namespace litefs
