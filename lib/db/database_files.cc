// Database on a replica: changes that replace whole files (creation, deletion).
#include <sys/stat.h>

#include "db/database.h"
#include "db/snapshot_load.h"
#include "sqlite/header.h"

namespace litefs {

// The first record of a database, or one that replaces all of it: a new file, written aside, synced, renamed.
Status Database::apply_create(RecordReader& reader) {
  const RecordHeader& header = reader.header();
  if (header.page_size == 0 || header.size_after == 0)
    return Error(ErrorCode::kCorrupt, "a creating record without pages");
  std::unique_ptr<SnapshotLoad> copy =
      TRY(SnapshotLoad::create(env_.files, {.path = paths_.load(), .id = header.database, .start = Position()}));
  Bytes piece;
  Bytes image(header.page_size);
  for (;;) {
    std::optional<EncodedPage> page = TRY(reader.next());
    if (!page) break;
    TRY(codec_.decode(page->encoding, page->bytes, ByteView(), image));
    if (page_hash(page->pgno, image) != page->hash)
      return Error(ErrorCode::kCorrupt, "a record's page does not meet its hash");
    piece.clear();
    ByteWriter w(piece);
    w.le32(header.page_size);
    w.le32(page->pgno);
    w.bytes(image);
    TRY(copy->add_pages(piece));
  }
  copy->set_position(Position{header.epoch, header.txid_last, reader.after()});
  copy->set_target(copy->position());
  if (copy->size_pages() != header.size_after) return Error(ErrorCode::kCorrupt, "a creating record lacks pages");
  TRY(copy->complete());
  return rename_into_place(*copy);
}

// Makes the copy the database's file. Connections on an older file get an error at their next statement.
Status Database::rename_into_place(SnapshotLoad& copy) {
  Bytes page(copy.page_size());
  TRY(copy.read_page(1, page));
  mask_local_bytes(page);
  set_local_bytes(page, true, static_cast<uint32_t>(copy.position().txid.value), copy.size_pages());
  TRY(copy.write_page(1, page));
  TRY(copy.file().truncate(static_cast<uint64_t>(copy.size_pages()) * copy.page_size()));
  TRY(copy.file().sync());
  TRY(sums_->reserve(copy.size_pages()));
  ControlState state = control_->state();
  state.planned_kind = PlannedKind::kRename;
  state.planned = ControlPoint{copy.position(), copy.size_pages(), WalAnchor()};
  state.planned_id = copy.id();
  state.planned_page_size = copy.page_size();
  control_->store(state);
  Result<FileInfo> like = env_.files.info(paths_.database());
  TRY(remove_companions());
  TRY(put_file_in_place(like.ok() ? &like.value() : nullptr));
  sums_->shrink(0);
  for (Pgno pgno = 1; pgno <= copy.size_pages(); ++pgno) {
    if (pgno != lock_page(copy.page_size())) sums_->set(pgno, copy.hash(pgno));
  }
  state.id = copy.id();
  state.page_size = copy.page_size();
  control_->store(state);
  advance(state.planned);
  env_.observer.file_created(name());
  return attach_writer();
}

DatabaseDirectories Database::directories() {
  return {env_.files, paths_.root(), [this](const std::string& name) { env_.observer.file_created(name); }};
}

// Renames the loaded file to the database's name. A database that was there keeps its owner (`like`); a new one gets
// that of the directory, so that whoever runs the applications decides by one chown who may use them.
Status Database::put_file_in_place(const FileInfo* like) {
  // Another database's removal may take the directory away again, while it is empty.
  constexpr int kTries = 10;
  Status placed;
  for (int i = 0; i < kTries; ++i) {
    placed = try_put_file_in_place(like);
    if (placed.ok()) return env_.files.sync_directory(directory_of(paths_.database()));
    if (placed.error().code() != ErrorCode::kNotFound) break;
  }
  Result<FileInfo> in_the_way = env_.files.info(paths_.database());
  if (in_the_way.ok() && S_ISDIR(in_the_way.value().mode)) {
    return Error(ErrorCode::kBusy, paths_.database() + " is a directory with other databases");
  }
  return placed;
}

Status Database::try_put_file_in_place(const FileInfo* like) {
  TRY(make_parents(directories(), name()));
  const FileInfo above = TRY(env_.files.info(directory_of(paths_.database())));
  const FileInfo& owner = like ? *like : above;
  TRY(env_.files.set_owner(paths_.load(), owner.uid, owner.gid, like ? like->mode : 0664));
  return env_.files.rename(paths_.load(), paths_.database());
}

// Poisons and removes -wal and -shm, and lets go of them.
Status Database::remove_companions() {
  writer_.reset();
  attached_ = false;
  Result<std::unique_ptr<File>> shm = env_.files.open(paths_.shm(), OpenMode::kReadWrite);
  if (shm.ok()) TRY(poison_wal_index(*shm.value()));
  return remove_companion_files();
}

Status Database::remove_companion_files() {
  for (const char* suffix : {"-wal", "-shm", "-journal"}) {
    Status removed = env_.files.remove(paths_.database() + suffix);
    if (removed.ok()) env_.observer.file_removed(name() + suffix);
    if (!removed.ok() && removed.error().code() != ErrorCode::kNotFound) return removed;
  }
  return {};
}

Status Database::remove_files(const Position& after) {
  ControlState state = control_->state();
  state.planned_kind = PlannedKind::kRemove;
  state.planned = ControlPoint{after, 0, WalAnchor()};
  control_->store(state);
  TRY(remove_companions());
  TRY(env_.files.remove_if_there(paths_.database()));
  sums_->shrink(0);
  advance(state.planned);
  env_.observer.file_removed(name());
  return remove_empty_parents(directories(), name());
}

Status Database::apply_drop(RecordReader& reader) {
  TRY(remove_files(Position{reader.header().epoch, reader.header().txid_last, reader.after()}));
  env_.log.info("database deleted by its primary").kv("database", name());
  return {};
}

Status Database::set_aside_locked(const std::string& why) {
  TRY(keep_lost(why));
  TRY(remove_files(Position()));
  TRY(clear_log());
  advance(control_->state().current);
  return {};
}

Status Database::set_aside_and_remove(const std::string& why) {
  MutexLock lock(mutex_);
  TRY(usable());
  return set_aside_locked(why);
}

}  // namespace litefs
