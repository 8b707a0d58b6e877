#include "node/remote_door.h"

#include "sqlite/journal.h"

namespace litefs {

Result<Bytes> RemoteDoor::ask(GuestOperation operation, const FileName& file, const Detail& detail) {
  GuestRequest request;
  request.operation = operation;
  request.synced = synced_.exchange(false);
  request.name = file.text();
  request.number = detail.number;
  request.data = detail.data;
  Result<Bytes> answer = link_->call(request);
  if (!answer.ok() && request.synced) synced_ = true;
  return answer;
}

Status RemoteDoor::ask(GuestOperation operation, FileKind kind, uint64_t number) {
  TRY(ask(operation, FileName{name_, kind}, Detail{.number = number}));
  return {};
}

Result<bool> RemoteDoor::ask_to_do(GuestOperation operation, const FileName& file, const Detail& detail) {
  const Bytes done = TRY(ask(operation, file, detail));
  return !done.empty() && done[0] != 0;
}

Status RemoteDoor::may_write() {
  if (!is_primary()) return read_only();
  return link_->check_running(name_);
}

Error RemoteDoor::read_only() {
  const std::string host = link_->primary_host_name();
  return Error(ErrorCode::kReadOnly, "this node is a replica; the primary is " + (host.empty() ? "not known" : host));
}

Status RemoteDoor::open(bool create) { return ask(GuestOperation::kOpen, FileKind::kDatabase, create); }

// ---- the WAL and its index ----

Status RemoteDoor::wal_opened() { return is_primary() ? ask(GuestOperation::kWalOpened, FileKind::kWal) : Status(); }

Status RemoteDoor::index_mapped() {
  return is_primary() ? ask(GuestOperation::kIndexMapped, FileKind::kShm) : Status();
}

Status RemoteDoor::index_unmapped() {
  if (*index_users_ > 0 || !is_primary()) return {};
  return ask(GuestOperation::kIndexUnmapped, FileKind::kShm);
}

Status RemoteDoor::before_index_unlink() {
  return is_primary() ? ask(GuestOperation::kBeforeIndexUnlink, FileKind::kShm) : Status();
}

// ---- changing ----

Result<bool> RemoteDoor::before_write(FileKind kind, uint64_t offset_bytes, ByteView data) {
  if (!is_primary()) return false;
  if (kind == FileKind::kJournal) return before_journal_write(offset_bytes, data);
  // Once for a checkpoint: it moves nothing that was committed after it had begun.
  if (kind != FileKind::kDatabase || !checkpoint_asks_) return false;
  TRY(ask(GuestOperation::kDatabaseWrite, FileKind::kDatabase));
  checkpoint_asks_ = false;
  return false;
}

// That a journal begins is not told: at its end the host finds it. It must know of one that takes the place of another
// that was not final, of an end by zeroes, and of the super-journal's name.
Result<bool> RemoteDoor::before_journal_write(uint64_t offset_bytes, ByteView data) {
  bool tells = ends_super_name(offset_bytes, data);
  const bool header = offset_bytes == 0 && !data.empty();
  if (header && data.size() >= kJournalHeaderBytes) {
    tells = tells || !journal_is_begun(data) || TRY(journal_is_hot(files_, journal_path_));
  }
  bool done = false;
  if (tells) {
    const std::string bytes(data.begin(), data.end());
    done = TRY(ask_to_do(GuestOperation::kJournalWrite, FileName{name_, FileKind::kJournal},
                         Detail{.number = offset_bytes, .data = bytes}));
  }
  if (header) journal_active_ = journal_is_hot(data);
  return done;
}

Result<bool> RemoteDoor::before_resize(FileKind kind, uint64_t size_bytes) {
  if (!is_primary()) return false;
  switch (kind) {
    case FileKind::kDatabase: TRY(ask(GuestOperation::kDatabaseResize, kind, size_bytes)); break;
    case FileKind::kWal: TRY(ask(GuestOperation::kWalResize, kind, size_bytes)); break;
    case FileKind::kJournal: {
      if (size_bytes != 0) break;
      const bool done = TRY(ask_to_do(GuestOperation::kJournalTruncate, FileName{name_, kind}, Detail{}));
      journal_active_ = false;
      return done;
    }
    case FileKind::kShm:
    case FileKind::kSuperJournal: break;
  }
  return false;
}

Result<bool> RemoteDoor::before_sync(FileKind kind) {
  if (!is_primary() || kind == FileKind::kSuperJournal) return false;
  synced_ = true;
  // Of a WAL without an index the host follows what is in the file, and must know what a sync has settled.
  if (kind == FileKind::kWal && *index_users_ == 0) {
    return ask_to_do(GuestOperation::kWalSync, FileName{name_, kind}, Detail{});
  }
  // In WAL mode, where a checkpoint syncs it; in the others the transaction's end tells.
  if (kind == FileKind::kDatabase && !journal_active_) TRY(ask(GuestOperation::kDatabaseSync, kind));
  return false;
}

Result<bool> RemoteDoor::before_unlink(const FileName& file, bool sync) {
  if (!is_primary()) return read_only();
  const bool done = TRY(ask_to_do(GuestOperation::kUnlink, file, Detail{.number = sync}));
  if (file.kind == FileKind::kJournal) journal_active_ = false;
  return done;
}

}  // namespace litefs
