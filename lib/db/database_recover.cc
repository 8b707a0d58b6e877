// Database at start: from whatever a crash left to files, log, page sums and control that agree (DESIGN section 12).
//
// The files are fenced: nobody else has them open. Which state they are in is known by the WAL's end (the anchor of
// control) within one boot of the machine; after a power cut, or when somebody changed them meanwhile, by their
// content: every page is hashed, and the checksum is looked for in the log.
#include <sys/stat.h>

#include <algorithm>

#include "db/database.h"
#include "sqlite/header.h"
#include "sqlite/journal.h"

namespace litefs {
namespace {
constexpr Pgno kProgressPages = 4096;
}

// What was committed before a start belongs to the epoch in which it was written. Control may be behind the log.
Epoch Database::last_epoch() {
  const Epoch epoch = control_->state().current.position.epoch;
  const std::optional<LogEntryInfo> last = log_->last();
  return last ? std::max(epoch, last->position.epoch) : epoch;
}

Status Database::start_primary(Epoch epoch) {
  MutexLock lock(mutex_);
  if (started_) return {};
  CHECK(fenced_off_);
  is_replica_ = false;
  start_epoch_ = epoch;
  epoch_ = last_epoch();
  behind_log_ = control_->state().applied_last;  // until all of the log is in the files
  TRY(recover_files());
  const bool rollback_mode = in_rollback_mode();
  TRY(log_meets_files());
  if (log_->last() && control_->state().current.position.before(log_->last()->position)) {
    // The log decides: what it has beyond the files is brought into them (a power cut took the WAL's end).
    TRY(redo_offline());
    // Until an application sets another mode: in the one that it had set.
    if (rollback_mode && control_->state().current.size_pages != 0) TRY(make_rollback_mode());
  }
  if (behind_log_) {
    behind_log_ = false;
    advance(control_->state().current);
  }
  epoch_ = epoch;
  note_journal(0);
  tail_->set_anchor(control_->state().current.anchor);
  TRY(tail_->refresh());
  started_ = true;
  set_state(DatabaseState::kReady, "");
  publish_status();
  return {};
}

Status Database::start_replica() {
  MutexLock lock(mutex_);
  if (started_) return {};
  CHECK(fenced_off_);
  is_replica_ = false;  // leftovers of a time as a primary are captured first
  epoch_ = last_epoch();
  if (control_rebuilt_) {
    // What the log does not know is no transaction of a replica's.
    ControlState state = control_->state();
    state.applied_last = true;
    control_->store(state);
  }
  Status recovered = recover_files();
  if (!recovered.ok()) {
    const ErrorCode code = recovered.error().code();
    if (code == ErrorCode::kNotFound || code == ErrorCode::kCorrupt || code == ErrorCode::kInvalid) {
      TRY(salvage(recovered.error().message()));
    } else if (code == ErrorCode::kDiverged) {
      TRY(stand_apart_locked(recovered.error().message()));
    } else {
      return recovered;
    }
  }
  TRY(log_meets_files());
  is_replica_ = true;
  behind_log_ = false;
  if (control_->state().current.size_pages != 0) TRY(make_wal_mode());
  advance(control_->state().current);
  tail_->forget();
  file_.reset();
  started_ = true;
  publish_status();
  return {};
}

Status Database::ensure_replica() {
  {
    MutexLock lock(mutex_);
    if (started_) return {};
  }
  if (env_.attended && env_.attended() && TRY(is_open_elsewhere())) return start_live_replica();
  TRY(fence());
  return start_replica();
}

Status Database::recover_files() {
  bool same_boot = control_->existed() && control_->state().boot == boot_hash_;
  TRY(discard_unfinished_copy());
  TRY(finish_planned_file_change());
  if (same_boot) same_boot = TRY(sums_follow_log());
  if (TRY(env_.files.exists(paths_.journal()))) {
    bool recovered = false;
    if (!control_->state().applied_last) recovered = same_boot ? TRY(recover_interrupted()) : TRY(journal_came_back());
    if (!recovered) TRY(play_back_hot_journal());
    TRY(env_.files.remove_if_there(paths_.journal()));
  }
  OnDisk disk = TRY(look_at_files());
  const ControlPoint& current = control_->state().current;
  if (!disk.file_exists) {
    if (current.size_pages == 0) return {};
    if (std::optional<Position> dropped = TRY(dropped_since(current.position))) {
      sums_->shrink(0);
      advance(ControlPoint{*dropped, 0, WalAnchor()});
      return {};
    }
    return Error(ErrorCode::kNotFound, paths_.database() + " is gone, but its change log ends with a database of " +
                                           std::to_string(current.size_pages) +
                                           " pages: put the file back, or remove " + paths_.meta() +
                                           " to forget it, and start the node again");
  }
  const bool trusted = (same_boot || at_rest_with_sums()) && sums_->found_pages() >= current.size_pages;
  if (current.size_pages != 0 && control_->state().applied_last) {
    // A file that is not as a clean stop left it was written by somebody else, who may have checkpointed and removed
    // his WAL, so that the WAL's end tells nothing.
    const bool touched = control_->state().clean_mtime_ns != 0 && !at_rest_as_noted();
    return recover_applied(disk, trusted && !touched);
  }
  return recover_captured(disk, trusted);
}

// Where the log has the database removed last, after a position that control has of before that.
Result<std::optional<Position>> Database::dropped_since(const Position& position) {
  std::optional<Position> dropped;
  Result<std::unique_ptr<LogCursor>> cursor = log_->read_after(position);
  if (!cursor.ok()) return dropped;
  while (TRY(cursor.value()->next())) {
    const LogEntryInfo& info = cursor.value()->info();
    if (TRY(RecordReader::open(cursor.value()->record())).header().size_after == 0) dropped = info.position;
  }
  return dropped;
}

// A rename or removal of the database file that a crash interrupted.
Status Database::finish_planned_file_change() {
  ControlState state = control_->state();
  if (state.planned_kind == PlannedKind::kRemove) {
    for (const std::string& path : {paths_.database(), paths_.wal(), paths_.shm(), paths_.journal()}) {
      TRY(env_.files.remove_if_there(path));
    }
    if (state.applied_last) TRY(remove_empty_parents(directories(), name()));
    sums_->shrink(0);
    state.current = state.planned;
    state.planned_kind = PlannedKind::kNone;
    control_->store(state);
  }
  Result<FileInfo> there = env_.files.info(paths_.database());
  const bool directory_has_name = there.ok() && !S_ISREG(there.value().mode);
  if (state.planned_kind == PlannedKind::kRename && !directory_has_name) {
    if (TRY(env_.files.exists(paths_.load()))) {
      // It was whole and synced before it was planned.
      TRY(remove_companions());
      TRY(put_file_in_place(there.ok() ? &there.value() : nullptr));
    }
    state.id = state.planned_id;
    state.page_size = state.planned_page_size;
    state.current = state.planned;
    state.planned_kind = PlannedKind::kNone;
    state.boot = 0;  // the page sums may not be there yet: the content decides
    control_->store(state);
  }
  return {};
}

// Brings page sums and control up to the log's end: a SIGKILL may have come between the log and them. False: the
// log does not know control's position, so the content must decide.
Result<bool> Database::sums_follow_log() {
  if (!log_->last() || log_->last()->position == control_->state().current.position) return true;
  if (control_->state().applied_last) return true;  // there the files may be behind the log
  Result<std::unique_ptr<LogCursor>> cursor = log_->read_after(control_->state().current.position);
  if (!cursor.ok()) {
    if (cursor.error().code() == ErrorCode::kNotFound) return false;
    return cursor.error().with_context("the change log does not continue the control file's position");
  }
  while (TRY(cursor.value()->next())) {
    RecordReader reader = TRY(RecordReader::open(cursor.value()->record()));
    TRY(sums_take(reader));
    ControlState state = control_->state();
    state.id = reader.header().database;
    control_->store(state);
    advance(ControlPoint{cursor.value()->info().position, reader.header().size_after,
                         WalAnchor::load(cursor.value()->info().note.data())},
            reader.header().page_size);
  }
  return true;
}

// Enters the page hashes of one record.
Status Database::sums_take(RecordReader& reader) {
  if (reader.header().flags & RecordHeader::kCreate) sums_->shrink(0);
  TRY(sums_->reserve(reader.header().size_after));
  for (;;) {
    std::optional<EncodedPage> page = TRY(reader.next());
    if (!page) break;
    sums_->set(page->pgno, page->hash);
  }
  sums_->shrink(reader.header().size_after);
  return {};
}

Result<Database::OnDisk> Database::look_at_files() {
  OnDisk disk;
  file_.reset();
  Result<FileInfo> opened = open_file();
  if (!opened.ok()) {
    if (opened.error().code() == ErrorCode::kNotFound) return disk;
    return opened.error();
  }
  const FileInfo& info = opened.value();
  if (info.size_bytes == 0) return disk;
  uint8_t first[kDatabaseHeaderBytes];
  size_t n = TRY(file_->read_at(0, first));
  Result<DatabaseHeader> header = DatabaseHeader::parse(ByteView(first, n));
  if (!header.ok()) return header.error().with_context(paths_.database());
  disk.file_exists = true;
  disk.page_size = header.value().page_size;
  disk.wal_mode = header.value().is_wal();
  disk.size_pages = header.value().effective_size(info.size_bytes);
  Result<std::unique_ptr<File>> wal = env_.files.open(paths_.wal(), OpenMode::kReadOnly);
  if (!wal.ok()) {
    if (wal.error().code() == ErrorCode::kNotFound) return disk;
    return wal.error();
  }
  uint8_t bytes[kWalHeaderBytes];
  n = TRY(wal.value()->read_at(0, bytes));
  disk.wal_header = TRY(WalHeader::parse(ByteView(bytes, n)));
  if (!disk.wal_header) return disk;
  disk.wal = std::move(wal).value();
  disk.end = WalAnchor{disk.wal_header->salts, 0, disk.wal_header->checksum};
  std::vector<std::pair<Pgno, uint32_t>> pending;
  WalScanResult scan =
      TRY(scan_wal(*disk.wal, *disk.wal_header, disk.end, [&](uint32_t frame, const WalFrame& meaning, ByteView) {
        pending.emplace_back(meaning.pgno, frame);
        if (meaning.commit_size != 0) {
          for (auto [pgno, at] : pending) disk.frames.set(pgno, at);
          pending.clear();
        }
        return true;
      }));
  disk.end = scan.end;
  if (scan.size_pages != 0) disk.size_pages = scan.size_pages;
  return disk;
}

Status Database::read_on_disk(const OnDisk& disk, Pgno pgno, MutableByteView page) {
  if (uint32_t frame = disk.frames.get(pgno)) {
    return disk.wal->read_exactly(disk.wal_header->frame_offset(frame) + kWalFrameHeaderBytes, page);
  }
  return read_file_page(pgno, page);
}

bool Database::at_rest_as_noted() {
  const ControlState& state = control_->state();
  if (state.clean_mtime_ns == 0) return false;
  Result<FileInfo> info = open_file();
  if (!info.ok() || info.value().size_bytes != state.clean_size_bytes ||
      info.value().mtime_ns != state.clean_mtime_ns) {
    return false;
  }
  // A clock of some milliseconds gives two writes one time.
  std::optional<uint32_t> counter = read_change_counter();
  return counter == state.change_counter || (!counter && state.change_counter == 0);
}

// Whether a power cut has taken the end of the log, but not what control says of it.
bool Database::log_is_short() {
  const ControlState& state = control_->state();
  const std::optional<LogEntryInfo> last = log_->last();
  return state.boot != boot_hash_ && !state.applied_last && last && last->position.before(state.current.position);
}

// After another boot: the file is as control noted it, and so are the page sums, which a power cut may have left
// behind, and the log, which it may have left ahead. (On a replica it may be ahead of the files at any time.)
bool Database::at_rest_with_sums() {
  const ControlPoint& current = control_->state().current;
  const std::optional<LogEntryInfo> last = log_->last();
  if (!control_->state().applied_last && last && last->position != current.position) return false;
  if (!at_rest_as_noted()) return false;
  if (sums_->combined(current.size_pages) != current.position.checksum) return false;
  sums_->shrink(current.size_pages);
  return true;
}

// Hashes every page into the page sums; the answer is the checksum of the whole.
Result<Checksum> Database::rehash(const OnDisk& disk) {
  env_.log.info("hashing the whole database").kv("database", name()).kv("pages", disk.size_pages);
  sums_->shrink(0);
  TRY(sums_->reserve(disk.size_pages));
  Checksum sum;
  page_.resize(disk.page_size);
  for (Pgno pgno = 1; pgno <= disk.size_pages; ++pgno) {
    if (pgno == lock_page(disk.page_size)) continue;
    TRY(read_on_disk(disk, pgno, page_));
    if (pgno == 1) mask_local_bytes(page_);
    Checksum hash = page_hash(pgno, page_);
    sums_->set(pgno, hash);
    sum ^= hash;
    if (pgno % kProgressPages == 0) {
      set_progress(static_cast<uint64_t>(pgno) * disk.page_size,
                   static_cast<uint64_t>(disk.size_pages) * disk.page_size);
    }
  }
  set_progress(0, 0);
  return sum;
}

// This node captured last: the files may be ahead of the log (commits that were not captured), never behind, unless a
// power cut took their end.
Status Database::recover_captured(const OnDisk& disk, bool trusted) {
  const ControlPoint current = control_->state().current;
  if (!trusted && current.size_pages != 0) return recover_by_content(disk);
  if (current.size_pages == 0) return recover_unknown(disk);
  const bool has_frames = disk.end.frame != 0;
  if (!has_frames && current.anchor == WalAnchor()) {
    if (at_rest_as_noted()) return {};
    // Rollback modes, or another program while we were away: what differs is a transaction.
    begin_batch();
    return capture_file_locked();
  }
  if (has_frames && (current.anchor == WalAnchor() || current.anchor.salts != disk.end.salts)) {
    // A generation begun after everything captured had been moved into the file.
    return capture_leftover_frames(disk, WalAnchor{disk.end.salts, 0, disk.wal_header->checksum});
  }
  if (current.anchor.salts == disk.end.salts && current.anchor.frame <= disk.end.frame) {
    WalChecksum at_anchor = TRY(frame_checksum(disk, current.anchor.frame));
    if (at_anchor == current.anchor.checksum) return capture_leftover_frames(disk, current.anchor);
  }
  env_.log.warning("the WAL is not the one that was captured; comparing the whole database").kv("database", name());
  return recover_by_content(disk);
}

// A file where control has none: control is as it was before the first record, or somebody has put it there.
Status Database::recover_unknown(const OnDisk& disk) {
  const ControlState& state = control_->state();
  const std::optional<LogEntryInfo> last = log_->last();
  if (last && state.current.position.before(last->position) && !state.applied_last) {
    std::unique_ptr<LogCursor> cursor = TRY(last_entry());
    if (TRY(RecordReader::open(cursor->record())).header().size_after != 0) return recover_by_content(disk);
    advance(ControlPoint{last->position, 0, WalAnchor()});
  }
  return adopt_content(disk);
}

// The running checksum after a frame, as the frame itself stores it.
Result<WalChecksum> Database::frame_checksum(const OnDisk& disk, uint32_t frame) {
  if (frame == 0) return disk.wal_header->checksum;
  uint8_t header[kWalFrameHeaderBytes];
  TRY(disk.wal->read_exactly(disk.wal_header->frame_offset(frame), header));
  return WalChecksum{load_be32(header + 16), load_be32(header + 20)};
}

Status Database::capture_leftover_frames(const OnDisk& disk, const WalAnchor& from) {
  TRY(tail_->refresh());
  tail_->set_index_in_use(false);
  tail_->set_anchor(from);
  TxId before = control_->state().current.position.txid;
  TRY(drain_locked(true));  // what the index had published
  tail_->set_last_index(std::nullopt);
  TRY(drain_locked(true));  // and what the chain has behind it
  uint64_t captured = control_->state().current.position.txid.value - before.value;
  if (captured > 0) {
    env_.log.info("committed transactions of the last run captured")
        .kv("database", name())
        .kv("transactions", captured);
  }
  // Published frames whose checksums are wrong (wal_tail.cc): SQLite's recovery ends before them, and so would every
  // application's view. The log brings them back.
  if (control_->state().current.anchor.frame > disk.end.frame) return recover_by_content(disk);
  return {};
}

// A file that the log does not know: what it holds becomes the next transaction.
Status Database::adopt_content(const OnDisk& disk) {
  begin_batch();
  NewPages pages;
  pages.page_size = disk.page_size;
  pages.size_after = disk.size_pages;
  pages.replaces = true;
  for (Pgno p = 1; p <= disk.size_pages; ++p) pages.pgnos.push_back(p);
  pages.read = [&](size_t index, MutableByteView out)
                   NO_THREAD_SAFETY_ANALYSIS { return read_on_disk(disk, pages.pgnos[index], out); };
  TRY(record_changes(pages, disk.end));
  TRY(flush_batch());
  env_.log.info("database adopted").kv("database", name()).kv("pages", disk.size_pages);
  return {};
}

// Which state the files are in is asked of their content. Known to the log: that position. Unknown: on a node that
// captured last they become a transaction, on one that applied they have diverged.
Status Database::recover_by_content(const OnDisk& disk) {
  Checksum sum = TRY(rehash(disk));
  ControlState state = control_->state();
  state.page_size = disk.page_size;
  control_->store(state);
  std::optional<LogEntryInfo> last = log_->last();
  if (last && last->position.checksum == sum) {
    advance(ControlPoint{last->position, disk.size_pages, disk.end});
    return {};
  }
  if (state.current.position.checksum == sum && !log_is_short()) {
    advance(ControlPoint{state.current.position, disk.size_pages, disk.end});
    return {};
  }
  std::optional<Position> oldest = TRY(log_->oldest_before());
  if (oldest) {
    std::unique_ptr<LogCursor> cursor = TRY(log_->read_after(*oldest));
    std::optional<Position> found;
    if (oldest->checksum == sum) found = *oldest;
    while (TRY(cursor->next())) {
      if (cursor->info().position.checksum == sum) found = cursor->info().position;
    }
    if (found) {
      env_.log.info("the log is ahead of the files").kv("database", name()).kv("files", *found);
      behind_log_ = true;
      advance(ControlPoint{*found, disk.size_pages, disk.end});
      return {};
    }
  }
  if (state.applied_last) {
    return Error(ErrorCode::kDiverged, "the files of '" + name() + "' are in no state that its change log knows");
  }
  env_.log.warning("the files are in no state that the change log knows; recording them whole").kv("database", name());
  if (last) advance(ControlPoint{last->position, disk.size_pages, disk.end});
  return adopt_content(disk);
}

// This node applied last: the files are at the control's position, or at the one planned.
Status Database::recover_applied(const OnDisk& disk, bool trusted) {
  const ControlState state = control_->state();
  const WalAnchor& end = disk.end;
  const bool planned_wal = state.planned_kind == PlannedKind::kWal || state.planned_kind == PlannedKind::kLoad;
  if (trusted && planned_wal && end == state.planned.anchor) {
    if (state.planned_kind == PlannedKind::kLoad) return recover_by_planned_load(disk);
    Result<std::unique_ptr<LogCursor>> cursor = log_->read_after(state.current.position);
    if (!cursor.ok()) return recover_by_content(disk);
    while (control_->state().current.position != state.planned.position && TRY(cursor.value()->next())) {
      RecordReader reader = TRY(RecordReader::open(cursor.value()->record()));
      TRY(sums_take(reader));
      advance(ControlPoint{cursor.value()->info().position, reader.header().size_after, WalAnchor()});
    }
    if (control_->state().current.position != state.planned.position) return recover_by_content(disk);
    advance(state.planned);
    return {};
  }
  // A generation of ours that was begun and has no commit yet leaves the file as the one before it.
  const bool begun = planned_wal && end.frame == 0 && end.salts == state.planned.anchor.salts;
  const bool never_wal = end.frame == 0 && state.current.anchor.frame == 0;
  if (trusted && (end == state.current.anchor || begun || never_wal)) {
    advance(ControlPoint{state.current.position, state.current.size_pages, end});
    return {};
  }
  return recover_by_content(disk);
}

Status Database::recover_by_planned_load(const OnDisk& disk) {
  ControlState state = control_->state();
  Checksum sum = TRY(rehash(disk));
  if (sum != state.planned.position.checksum) {
    return Error(ErrorCode::kDiverged, "the copy loaded into '" + name() + "' does not meet its checksum");
  }
  state.id = state.planned_id;
  state.page_size = state.planned_page_size;
  control_->store(state);
  TRY(clear_log());
  advance(ControlPoint{state.planned.position, state.planned.size_pages, disk.end});
  return {};
}

// Brings what the log has beyond the files into them, before anybody opens them: as a WAL writer on the real
// files, so that a crash leaves them in one of the two states.
Status Database::redo_offline() {
  offline_ = true;
  behind_log_ = true;
  Status redone = control_->state().current.size_pages == 0 ? Status() : make_wal_mode();
  if (redone.ok() && control_->state().current.size_pages != 0) redone = attach_writer();
  if (redone.ok()) redone = redo_from_log();
  if (redone.ok() && writer_) {
    Result<CheckpointOutcome> done = writer_->checkpoint(true);
    if (!done.ok()) redone = done.error();
  }
  offline_ = false;
  writer_.reset();
  attached_ = false;
  apply_cursor_.reset();
  TRY(redone);
  return env_.files.remove_if_there(paths_.shm());
}

// Replicas keep every database in WAL. Nobody has the file open.
Status Database::make_wal_mode() {
  std::unique_ptr<File> file = TRY(env_.files.open(paths_.database(), OpenMode::kReadWrite));
  const uint32_t page_size = control_->state().page_size;
  Bytes page(page_size);
  size_t n = TRY(file->read_at(0, page));
  Result<DatabaseHeader> header = DatabaseHeader::parse(ByteView(page).first(std::min<size_t>(n, 100)));
  if (!header.ok()) return header.error().with_context(paths_.database());
  if (header.value().is_wal()) return {};
  mask_local_bytes(page);
  set_local_bytes(page, true, header.value().change_counter + 1, control_->state().current.size_pages);
  TRY(file->write_at(0, page));
  return file->sync();
}

// As a database is born, too; not what has no header of SQLite's.
bool Database::in_rollback_mode() {
  Result<std::optional<DatabaseHeader>> header = read_file_header();
  if (!header.ok()) return header.error().code() != ErrorCode::kInvalid;
  return !header.value() || !header.value()->is_wal();
}

// After redo_offline(): the WAL is checkpointed whole. Nobody has the file open.
Status Database::make_rollback_mode() {
  std::unique_ptr<File> file = TRY(env_.files.open(paths_.database(), OpenMode::kReadWrite));
  Bytes page(control_->state().page_size);
  TRY(file->read_exactly(0, page));
  DatabaseHeader header = TRY(DatabaseHeader::parse(ByteView(page).first(kDatabaseHeaderBytes)));
  mask_local_bytes(page);
  set_local_bytes(page, false, header.change_counter + 1, control_->state().current.size_pages);
  TRY(file->write_at(0, page));
  TRY(file->sync());
  for (const std::string& path : {paths_.wal(), paths_.shm()}) {
    TRY(env_.files.remove_if_there(path));
  }
  ControlPoint point = control_->state().current;
  point.anchor = WalAnchor();
  advance(point);
  note_file_at_rest();
  return {};
}

}  // namespace litefs
