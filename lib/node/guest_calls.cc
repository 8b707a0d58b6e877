#include "node/guest_calls.h"

#include "db/paths.h"
#include "node/local_door.h"
#include "sqlite/journal.h"

namespace litefs {
namespace {

Bytes yes() { return Bytes{1}; }

Bytes encoded(const Position& position) {
  Bytes bytes;
  ByteWriter out(bytes);
  put_position(out, position);
  return bytes;
}

Bytes state_of(InProcessNode& node) {
  GuestState state;
  state.role = node.node().role();
  state.primary_host_name = node.node().primary_host_name();
  for (const std::shared_ptr<Database>& database : node.node().store().all()) {
    if (database->state() != DatabaseState::kStopped) continue;
    const DatabaseInfo info = database->info();
    state.stopped.emplace_back(info.name, info.detail);
  }
  return encode(state);
}

Bytes positions_of(InProcessNode& node) {
  const std::vector<std::shared_ptr<Database>> all = node.node().store().all();
  Bytes bytes;
  ByteWriter out(bytes);
  out.varint(all.size());
  for (const std::shared_ptr<Database>& database : all) {
    out.string(database->name());
    put_position(out, database->position());
  }
  return bytes;
}

// What a guest's connections do to one file.
class FileCall {
 public:
  FileCall(InProcessNode& node, const FileName& name, const GuestRequest& request)
      : node_(node), name_(name), request_(request), door_(node, name.database, LocalDoor::For::kGuest) {}

  Result<Bytes> run() {
    if (request_.synced && door_.is_primary()) {
      if (auto database = door_.database(); database.ok()) database.value()->note_application_sync();
    }
    switch (request_.operation) {
      case GuestOperation::kJournalWrite: return write_journal();
      case GuestOperation::kJournalTruncate: return truncate_journal();
      case GuestOperation::kWalSync: return sync_wal();
      case GuestOperation::kUnlink: return unlink();
      default: TRY(ask()); return Bytes();
    }
  }

 private:
  Status ask() {
    switch (request_.operation) {
      case GuestOperation::kOpen: return door_.open(request_.number != 0);
      case GuestOperation::kWalOpened: return door_.wal_opened();
      case GuestOperation::kIndexMapped: return door_.index_mapped();
      case GuestOperation::kIndexUnmapped: return door_.index_unmapped();
      case GuestOperation::kBeforeIndexUnlink: return door_.before_index_unlink();
      case GuestOperation::kDatabaseWrite: return door_.is_primary() ? TRY(door_.database())->drain(true) : Status();
      case GuestOperation::kDatabaseResize: return resize(FileKind::kDatabase);
      case GuestOperation::kDatabaseSync: TRY(door_.before_sync(FileKind::kDatabase)); return Status();
      case GuestOperation::kWalResize: return resize(FileKind::kWal);
      default: return Error(ErrorCode::kInvalid, "an operation that is none on a file");
    }
  }

  Status resize(FileKind kind) {
    TRY(door_.before_resize(kind, request_.number));
    return {};
  }

  Result<Bytes> write_journal() {
    const ByteView data = as_bytes(request_.data);
    TRY(door_.before_write(FileKind::kJournal, request_.number, data));
    const bool final = request_.number == 0 && data.size() >= kJournalHeaderBytes && !journal_is_begun(data);
    if (!final || !door_.is_primary()) return Bytes{0};
    std::unique_ptr<File> journal = TRY(node_.files().open(path(), OpenMode::kReadWrite));
    TRY(journal->write_at(0, data));
    return yes();
  }

  Result<Bytes> truncate_journal() {
    TRY(door_.before_resize(FileKind::kJournal, 0));
    std::unique_ptr<File> journal = TRY(node_.files().open(path(), OpenMode::kReadWrite));
    TRY(journal->truncate(0));
    door_.resized(FileKind::kJournal, 0);
    return yes();
  }

  Result<Bytes> sync_wal() {
    std::unique_ptr<File> wal = TRY(node_.files().open(path(), OpenMode::kReadWrite));
    TRY(door_.before_sync(FileKind::kWal));
    const Status synced = wal->sync();
    door_.synced(FileKind::kWal, synced);
    TRY(synced);
    return yes();
  }

  // Who asks again, as the process that he asked first has died, may find it done.
  Result<Bytes> unlink() {
    if (!TRY(node_.files().exists(path()))) return yes();
    TRY(door_.before_unlink(name_, request_.number != 0));
    TRY(node_.files().remove_if_there(path()));
    if (request_.number != 0) TRY(node_.files().sync_directory(directory_of(path())));
    door_.unlinked(name_.kind);
    return yes();
  }

  std::string path() const { return node_.root() + "/" + name_.text(); }

  InProcessNode& node_;
  const FileName& name_;
  const GuestRequest& request_;
  LocalDoor door_;
};

}  // namespace

Result<Bytes> answer_guest(InProcessNode& node, const GuestRequest& request) {
  switch (request.operation) {
    case GuestOperation::kState: return state_of(node);
    case GuestOperation::kStatus: return encode(node.node().status());
    case GuestOperation::kPosition: return encoded(TRY(node.position(request.name, request.number != 0)));
    case GuestOperation::kPositions: return positions_of(node);
    case GuestOperation::kWaitPosition: {
      TRY(node.wait_position(request.name, request.position, std::chrono::milliseconds(request.number)));
      return Bytes();
    }
    default: {
      const FileName name = FileName::parse(request.name);
      TRY(check_database_name(name.database));
      return FileCall(node, name, request).run();
    }
  }
}

}  // namespace litefs
