// Database on a replica: changes that replace whole files (creation, deletion, loads), and what is kept under lost/.
#include <sys/stat.h>

#include <algorithm>

#include "db/database.h"
#include "db/snapshot_load.h"
#include "sqlite/header.h"

namespace litefs {
namespace {
constexpr int64_t kProgressLogNs = 5'000'000'000;
}

// The first record of a database, or one that replaces all of it: a new file, written aside, synced, renamed.
Status Database::apply_create(RecordReader& reader) {
  const RecordHeader& header = reader.header();
  if (header.page_size == 0 || header.size_after == 0) return Error(ErrorCode::kCorrupt, "a creating record without pages");
  std::unique_ptr<SnapshotLoad> copy =
      TRY(SnapshotLoad::create(env_.files, paths_.load(), header.database, Position(), 0));
  Bytes piece;
  Bytes image(header.page_size);
  for (;;) {
    std::optional<EncodedPage> page = TRY(reader.next());
    if (!page) break;
    TRY(codec_.decode(page->encoding, page->bytes, ByteView(), image));
    if (page_hash(page->pgno, image) != page->hash) return Error(ErrorCode::kCorrupt, "a record's page does not meet its hash");
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
  TRY(sums_->reserve(copy.size_pages()));
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

// Renames the loaded file to the database's name. A database that was there keeps its owner (`like`); a new one gets that
// of the directory, so that whoever runs the applications decides by one chown who may use them.
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
  Status removed = env_.files.remove(paths_.database());
  if (!removed.ok() && removed.error().code() != ErrorCode::kNotFound) return removed;
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

// Keeps the database as it is now as a file of its own, before it is overwritten or removed.
Status Database::keep_lost(const std::string& why) {
  const ControlState& state = control_->state();
  if (state.current.size_pages == 0) return {};
  TRY(env_.files.make_directories(paths_.lost()));
  const std::string path = paths_.lost() + "/" + hex16(state.current.position.epoch.value) + "-" +
                           hex16(state.current.position.txid.value) + "-" +
                           hex16(state.current.position.checksum.value) + ".db";
  if (!TRY(env_.files.exists(path))) {
    const std::string beside = path + ".new";
    OnDisk disk;
    if (!writer_) disk = TRY(look_at_files());
    std::unique_ptr<File> copy = TRY(env_.files.open(beside, OpenMode::kCreate));
    TRY(copy->truncate(0));
    Bytes page(state.page_size);
    for (Pgno pgno = 1; pgno <= state.current.size_pages; ++pgno) {
      if (pgno == lock_page(state.page_size)) continue;
      Status read = writer_ ? writer_->read_page(pgno, page) : read_on_disk(disk, pgno, page);
      TRY(read);
      if (pgno == 1) {
        mask_local_bytes(page);
        // Rollback format: it opens anywhere, read-only media included.
        set_local_bytes(page, false, 1, state.current.size_pages);
      }
      TRY(copy->write_at(static_cast<uint64_t>(pgno - 1) * page.size(), page));
    }
    TRY(copy->sync());
    TRY(env_.files.rename(beside, path));
    TRY(env_.files.sync_directory(paths_.lost()));
    file_.reset();
  }
  env_.log.warning("database kept aside before it is replaced").kv("database", name()).kv("why", why).kv("file", path);
  return {};
}

Status Database::set_aside_locked(const std::string& why) {
  TRY(keep_lost(why));
  TRY(remove_files(Position()));
  TRY(log_->clear());
  apply_cursor_.reset();
  advance(control_->state().current);
  return {};
}

Status Database::set_aside_and_remove(const std::string& why) {
  MutexLock lock(mutex_);
  TRY(usable());
  return set_aside_locked(why);
}

Status Database::begin_load(DatabaseId id, const Position& start, uint64_t total_bytes) {
  MutexLock lock(mutex_);
  TRY(usable());
  if (control_->state().current.size_pages != 0) {
    TRY(attach_writer());
    TRY(keep_lost("the primary does not know its position " + position_text(control_->state().current.position)));
  }
  load_ = TRY(SnapshotLoad::create(env_.files, paths_.load(), id, start, total_bytes));
  load_started_ns_ = env_.clock.monotonic_ns();
  next_progress_log_ns_ = load_started_ns_ + kProgressLogNs;
  set_progress(0, std::max<uint64_t>(total_bytes, 1));
  set_state(DatabaseState::kLoading, "");
  env_.log.info("loading a copy from the primary").kv("database", name()).kv("bytes", total_bytes);
  return {};
}

Status Database::load_pages(ByteView piece) {
  MutexLock lock(mutex_);
  if (!load_) return Error(ErrorCode::kInvalid, "a piece of a copy of '" + name() + "' that was not begun");
  TRY(load_->add_pages(piece));
  const uint64_t total = std::max(load_->total_bytes(), load_->loaded_bytes());
  set_progress(load_->loaded_bytes(), total);
  const int64_t now_ns = env_.clock.monotonic_ns();
  if (now_ns >= next_progress_log_ns_) {
    const int64_t ms = std::max<int64_t>(1, (now_ns - load_started_ns_) / 1000000);
    const uint64_t bytes_per_s = std::max<uint64_t>(1, load_->loaded_bytes() * 1000 / static_cast<uint64_t>(ms));
    env_.log.info("loading")
        .kv("database", name())
        .kv("bytes", load_->loaded_bytes())
        .kv("of", total)
        .kv("bytes_per_s", bytes_per_s)
        .kv("seconds_left", (total - load_->loaded_bytes()) / bytes_per_s);
    next_progress_log_ns_ = now_ns + kProgressLogNs;
  }
  return {};
}

Status Database::end_load(const Position& consistent_at) {
  MutexLock lock(mutex_);
  if (!load_) return Error(ErrorCode::kInvalid, "the end of a copy of '" + name() + "' that was not begun");
  load_->set_target(consistent_at);
  return publish_load_when_complete();
}

bool Database::loading() {
  MutexLock lock(mutex_);
  return load_ != nullptr;
}

void Database::abort_load() {
  MutexLock lock(mutex_);
  abort_load_locked();
}

void Database::abort_load_locked() {
  if (!load_) return;
  load_.reset();
  set_progress(0, 0);
  Status removed = env_.files.remove(paths_.load());
  if (!removed.ok() && removed.error().code() != ErrorCode::kNotFound) {
    env_.log.warning("could not remove a partial copy").error(removed.error());
  }
  set_state(attached_ || control_->state().current.size_pages == 0 ? DatabaseState::kReady : DatabaseState::kOpening, "");
}

Status Database::publish_load_when_complete() {
  if (!TRY(load_->complete())) return {};
  if (load_->size_pages() == 0) {
    TRY(log_->clear());
    apply_cursor_.reset();
    TRY(remove_files(load_->position()));
  } else if (control_->state().current.size_pages != 0 && control_->state().page_size == load_->page_size()) {
    TRY(publish_load_as_transaction());
  } else {
    TRY(log_->clear());
    apply_cursor_.reset();
    TRY(rename_into_place(*load_));
  }
  env_.log.info("copy from the primary complete")
      .kv("database", name())
      .kv("bytes", load_->loaded_bytes())
      .kv("ms", (env_.clock.monotonic_ns() - load_started_ns_) / 1000000)
      .kv("position", position_text(control_->state().current.position));
  abort_load_locked();  // the file is in place or of no more use
  return {};
}

// Readers have the database open: they keep their snapshot, and the copy is one WAL transaction.
Status Database::publish_load_as_transaction() {
  TRY(attach_writer());
  TRY(writer_->begin());
  ControlState state = control_->state();
  Bytes page(state.page_size);
  const Pgno size_after = load_->size_pages();
  for (Pgno pgno = 1; pgno <= size_after; ++pgno) {
    if (pgno == lock_page(state.page_size)) continue;
    if (pgno != 1 && sums_->get(pgno) == load_->hash(pgno)) continue;
    TRY(load_->read_page(pgno, page));
    TRY(add_page(pgno, page, size_after));
  }
  state.planned_kind = PlannedKind::kLoad;
  state.planned = ControlPoint{load_->position(), size_after, TRY(writer_->prepare(size_after))};
  state.planned_id = load_->id();
  state.planned_page_size = load_->page_size();
  control_->store(state);
  TRY(writer_->publish());
  TRY(sums_->reserve(size_after));
  for (Pgno pgno = 1; pgno <= size_after; ++pgno) sums_->set(pgno, load_->hash(pgno));
  sums_->shrink(size_after);
  TRY(log_->clear());
  apply_cursor_.reset();
  state.id = load_->id();
  control_->store(state);
  advance(state.planned);
  checkpoint_when_due();
  return {};
}

}  // namespace litefs
