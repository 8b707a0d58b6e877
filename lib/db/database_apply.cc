// Database on a replica: from records to the files. Every record goes to the log first; what the log has beyond the
// files is then applied, one WAL transaction for as many records as are there.
#include <algorithm>

#include "db/database.h"
#include "db/snapshot_load.h"
#include "sqlite/header.h"

namespace litefs {
namespace {

// Decoded pages that one WAL transaction gathers from several records.
constexpr size_t kChangeBytes = 4u << 20;
// A record beyond this is decoded straight into the WAL.
constexpr size_t kStreamedRecordBytes = 1u << 20;
// Checkpoint when the WAL has this much that is not in the database file.
constexpr size_t kCheckpointBytes = 16u << 20;
constexpr uint32_t kCheckpointFramesMin = 64;

class FileRecordSource final : public RecordSource {
 public:
  FileRecordSource(File& file, uint64_t size_bytes) : file_(file), size_bytes_(size_bytes) {}
  Status read(uint64_t offset_bytes, MutableByteView out) override { return file_.read_exactly(offset_bytes, out); }
  uint64_t size_bytes() const override { return size_bytes_; }

 private:
  File& file_;
  uint64_t size_bytes_;
};

LogEntryInfo info_of(const RecordReader& reader, const Position& before) {
  LogEntryInfo info;
  info.before_epoch = before.epoch;
  info.position = Position{reader.header().epoch, reader.header().txid_last, reader.after()};
  info.before = reader.header().before;
  info.txid_first = reader.header().txid_first;
  info.wall_ms = reader.header().wall_ms;
  return info;
}

}  // namespace

// What one WAL transaction will hold.
struct Database::Change {
  ControlPoint after;
  size_t records = 0;
  size_t bytes = 0;
  bool streamed = false;                      // its pages are in the writer already
  std::unordered_map<Pgno, Bytes> pages;      // masked images
  std::unordered_map<Pgno, Checksum> hashes;  // of `pages` and of streamed ones
};

Status Database::check_follows(const RecordReader& reader, const Position& position) {
  const RecordHeader& header = reader.header();
  auto diverged = [&](const std::string& why) {
    return Error(ErrorCode::kDiverged, "record " + hex16(header.txid_first.value) + " of '" + name() +
                                           "' does not follow " + position_text(position) + ": " + why);
  };
  if (header.txid_first.value > position.txid.value + 1) {
    return Error(ErrorCode::kInvalid, "records are missing between " + position_text(position) + " and record " +
                                          hex16(header.txid_first.value) + " of '" + name() + "'");
  }
  if (header.txid_first.value != position.txid.value + 1) return diverged("another TXID is next");
  if (header.before != position.checksum) return diverged("it was made on another state");
  if (header.epoch < position.epoch) return diverged("it is of an older epoch");
  if (header.flags & RecordHeader::kCreate) return {};
  if (header.database != control_->state().id && !(position == Position()))
    return diverged("it is of another database");
  return {};
}

Status Database::apply(const std::vector<Bytes>& records) {
  MutexLock lock(mutex_);
  TRY(usable());
  size_t next = 0;
  // After a reconnection the first ones may be here already; whether the rest continues them is checked below.
  while (next < records.size() && TRY(have_already(records[next]))) ++next;
  for (; load_ && next < records.size(); ++next) {
    MemoryRecordSource source{ByteView(records[next])};
    RecordReader reader = TRY(RecordReader::open(source));
    TRY(reader.verify());
    TRY(load_->apply(source, codec_));
    TRY(publish_load_when_complete());
  }
  std::vector<ChangeLog::Entry> entries;
  Position position = log_->last() ? log_->last()->position : control_->state().current.position;
  for (; next < records.size(); ++next) {
    MemoryRecordSource source{ByteView(records[next])};
    RecordReader reader = TRY(RecordReader::open(source));
    TRY(reader.verify());
    if (entries.empty()) {
      TRY(check_follows(reader, position));
    } else if (reader.header().before != position.checksum ||
               reader.header().txid_first.value != position.txid.value + 1) {
      return Error(ErrorCode::kDiverged, "records of '" + name() + "' do not follow each other");
    }
    entries.push_back(ChangeLog::Entry{info_of(reader, position), ByteView(records[next])});
    position = entries.back().info.position;
  }
  if (!entries.empty()) {
    TRY(log_->append(entries));
    publish_status();
  }
  return load_ ? Status() : catch_up();
}

Result<bool> Database::have_already(const Bytes& record) {
  MemoryRecordSource source{ByteView(record)};
  RecordReader reader = TRY(RecordReader::open(source));
  TxId have = load_          ? load_->position().txid
              : log_->last() ? log_->last()->position.txid
                             : control_->state().current.position.txid;
  return reader.header().txid_last <= have;
}

Status Database::begin_large_record() {
  MutexLock lock(mutex_);
  TRY(usable());
  incoming_ = TRY(env_.files.open(paths_.meta() + "/incoming", OpenMode::kCreate));
  TRY(incoming_->truncate(0));
  incoming_bytes_ = 0;
  return {};
}

Status Database::append_large_record(ByteView piece) {
  MutexLock lock(mutex_);
  if (!incoming_)
    return Error(ErrorCode::kInvalid, "a piece of a record of '" + name() + "' came without its beginning");
  TRY(incoming_->write_at(incoming_bytes_, piece));
  incoming_bytes_ += piece.size();
  return {};
}

void Database::abort_large_record() {
  MutexLock lock(mutex_);
  if (!incoming_) return;
  std::string path = incoming_->path();
  incoming_.reset();
  Status removed = env_.files.remove(path);
  if (!removed.ok()) env_.log.warning("could not remove a partial record").error(removed.error());
}

Status Database::finish_large_record() {
  Status finished;
  {
    MutexLock lock(mutex_);
    if (!incoming_)
      return Error(ErrorCode::kInvalid, "the end of a record of '" + name() + "' came without its beginning");
    finished = take_incoming();
  }
  abort_large_record();
  if (!finished.ok()) return finished;
  return apply({});
}

Status Database::take_incoming() {
  FileRecordSource source(*incoming_, incoming_bytes_);
  RecordReader reader = TRY(RecordReader::open(source));
  TRY(reader.verify());
  if (load_) {
    TRY(load_->apply(source, codec_));
    return publish_load_when_complete();
  }
  const Position position = log_->last() ? log_->last()->position : control_->state().current.position;
  TRY(check_follows(reader, position));
  TRY(log_->begin_large());
  Bytes piece(256u << 10);
  for (uint64_t at = 0; at < incoming_bytes_; at += piece.size()) {
    piece.resize(static_cast<size_t>(std::min<uint64_t>(piece.size(), incoming_bytes_ - at)));
    Status copied = source.read(at, piece);
    if (copied.ok()) copied = log_->append_large(piece);
    if (!copied.ok()) {
      log_->abort_large();
      return copied;
    }
  }
  return log_->commit_large(info_of(reader, position));
}

Status Database::attach() {
  MutexLock lock(mutex_);
  TRY(usable());
  TRY(catch_up());
  if (control_->state().current.size_pages != 0) TRY(attach_writer());
  if (!load_) set_state(DatabaseState::kReady, "");
  return {};
}

// Becomes the WAL's writer, when the database exists and this is not yet so.
Status Database::attach_writer() {
  if (writer_) return {};
  writer_ = TRY(open_writer(control_->state().page_size));
  use_writer();
  return {};
}

Result<std::unique_ptr<WalWriter>> Database::open_writer(uint32_t page_size) {
  // Before anybody can open them the real files are locked, not the mount's.
  std::unique_ptr<LockDoor> locks =
      offline_ ? TRY(direct_lock_door(env_.files, paths_.database())) : TRY(env_.lock_doors.open(name()));
  // Any first call opens -shm by that door, or makes it there, where its name is not known as missing then.
  TRY(locks->try_lock(LockFile::kShm, kDmsByte, 1, LockKind::kNone));
  WalWriterFiles files;
  files.database = TRY(env_.files.open(paths_.database(), OpenMode::kReadWrite));
  files.wal = TRY(env_.files.open(paths_.wal(), OpenMode::kCreate));
  files.shm = TRY(env_.files.open(paths_.shm(), OpenMode::kCreate));
  FileInfo like = TRY(files.database->info());
  TRY(env_.files.set_owner(paths_.wal(), like.uid, like.gid, like.mode));
  TRY(env_.files.set_owner(paths_.shm(), like.uid, like.gid, like.mode));
  env_.observer.file_created(name() + "-wal");
  env_.observer.file_created(name() + "-shm");
  WalWriterOptions options;
  options.page_size = page_size;
  options.on_resize = [this] { return env_.observer.file_resized(name()); };
  return WalWriter::attach(std::move(files), std::move(locks), options, env_.random);
}

// The position is the one that writer_ has found.
void Database::use_writer() {
  ControlPoint point = control_->state().current;
  point.anchor = writer_->end();
  advance(point);
  attached_ = true;
  env_.observer.changed(name());  // opens may wait for this
}

Status Database::catch_up() {
  const bool behind = log_->last() && !(log_->last()->position == control_->state().current.position);
  if (!behind) return {};
  if (control_->state().current.size_pages != 0) TRY(attach_writer());
  Status redone = redo_from_log();
  if (!redone.ok()) {
    apply_cursor_.reset();
    if (writer_) writer_->abort();
    ErrorCode code = redone.error().code();
    if (code == ErrorCode::kCorrupt) return stop_with(redone.error());
  }
  return redone;
}

Status Database::redo_from_log() {
  if (!apply_cursor_) {
    apply_cursor_ = TRY(log_->read_after(control_->state().current.position));
    apply_cursor_waits_ = false;
  }
  for (;;) {
    Change change;
    change.after = control_->state().current;
    TRY(gather(change));
    if (change.records == 0) return {};
    if (control_->state().current.position == change.after.position) continue;  // a record that was done by itself
    TRY(publish_change(change));
    checkpoint_when_due();
  }
}

// Decodes records from the log into `change` until it is large enough.
Status Database::gather(Change& change) {
  while (change.bytes < kChangeBytes) {
    if (!apply_cursor_waits_ && !TRY(apply_cursor_->next())) return {};
    apply_cursor_waits_ = true;
    RecordSource& source = apply_cursor_->record();
    RecordReader reader = TRY(RecordReader::open(source));
    const bool alone = (reader.header().flags & (RecordHeader::kCreate | RecordHeader::kDrop)) ||
                       source.size_bytes() > kStreamedRecordBytes;
    if (alone && change.records > 0) return {};
    TRY(check_follows(reader, change.after.position));
    if (reader.header().flags & RecordHeader::kDrop) {
      TRY(apply_drop(reader));
      change.after = control_->state().current;
    } else if (reader.header().flags & RecordHeader::kCreate) {
      TRY(apply_create(reader));
      change.after = control_->state().current;
    } else {
      TRY(apply_record(reader, change, source.size_bytes() > kStreamedRecordBytes));
    }
    ++change.records;
    apply_cursor_waits_ = false;
    if (alone) return {};
  }
  return {};
}

Status Database::apply_record(RecordReader& reader, Change& change, bool streamed) {
  const uint32_t page_size = control_->state().page_size;
  const RecordHeader& header = reader.header();
  if (header.page_size != page_size) return Error(ErrorCode::kDiverged, "a record of another page size");
  if (streamed) {
    TRY(writer_->begin());
    change.streamed = true;
  }
  Checksum sum = header.before;
  auto hash_before = [&](Pgno pgno) NO_THREAD_SAFETY_ANALYSIS {
    auto it = change.hashes.find(pgno);
    return it != change.hashes.end() ? it->second : sums_->get(pgno);
  };
  Bytes image(page_size);
  for (;;) {
    std::optional<EncodedPage> page = TRY(reader.next());
    if (!page) break;
    auto held = change.pages.find(page->pgno);
    ByteView previous;
    if (held != change.pages.end()) {
      previous = held->second;
    } else if (page->encoding == PageEncoding::kPatch || page->encoding == PageEncoding::kDelta) {
      previous_.resize(page_size);
      TRY(writer_->read_page(page->pgno, previous_));
      if (page->pgno == 1) mask_local_bytes(previous_);
      previous = previous_;
    }
    TRY(codec_.decode(page->encoding, page->bytes, previous, image));
    if (page_hash(page->pgno, image) != page->hash) {
      return Error(ErrorCode::kDiverged, "page " + std::to_string(page->pgno) + " of record " +
                                             hex16(header.txid_first.value) + " of '" + name() +
                                             "' does not meet its hash: this copy differs from its primary's");
    }
    sum ^= hash_before(page->pgno);
    sum ^= page->hash;
    change.hashes[page->pgno] = page->hash;
    if (streamed) {
      TRY(add_page(page->pgno, image, header.size_after));
    } else if (held != change.pages.end()) {
      held->second.swap(image);
      image.resize(page_size);
    } else {
      change.bytes += page_size;
      change.pages.emplace(page->pgno, image);
    }
  }
  for (Pgno pgno = header.size_after + 1; pgno <= change.after.size_pages; ++pgno) {
    sum ^= hash_before(pgno);
    change.hashes[pgno] = Checksum{};
    change.pages.erase(pgno);
  }
  if (sum != reader.after()) {
    return Error(ErrorCode::kDiverged, "record " + hex16(header.txid_first.value) + " of '" + name() +
                                           "' leads to another checksum: this copy differs from its primary's");
  }
  change.after.position = Position{header.epoch, header.txid_last, reader.after()};
  change.after.size_pages = header.size_after;
  return {};
}

// Hands a masked page to the writer, page 1 with this node's own bytes.
Status Database::add_page(Pgno pgno, MutableByteView page, Pgno size_after) {
  if (pgno == 1)
    set_local_bytes(page, true, static_cast<uint32_t>(control_->state().current.position.txid.value) + 1, size_after);
  return writer_->add_page(pgno, page);
}

Status Database::publish_change(Change& change) {
  const ControlPoint before = control_->state().current;
  if (!change.streamed) {
    TRY(writer_->begin());
    for (auto& [pgno, page] : change.pages) {
      if (pgno <= change.after.size_pages) TRY(add_page(pgno, page, change.after.size_pages));
    }
  }
  bool any_page = std::any_of(change.hashes.begin(), change.hashes.end(),
                              [&](const auto& page) { return page.first <= change.after.size_pages; });
  if (!any_page) {
    // Only its size changed: a WAL transaction needs a page, so page 1 comes along.
    page_.resize(control_->state().page_size);
    TRY(writer_->read_page(1, page_));
    mask_local_bytes(page_);
    TRY(add_page(1, page_, change.after.size_pages));
  }
  TRY(sums_->reserve(std::max(change.after.size_pages, before.size_pages)));
  change.after.anchor = TRY(writer_->prepare(change.after.size_pages));
  ControlState state = control_->state();
  state.planned_kind = PlannedKind::kWal;
  state.planned = change.after;
  control_->store(state);
  TRY(writer_->publish());
  for (const auto& [pgno, hash] : change.hashes) {
    if (pgno <= change.after.size_pages) sums_->set(pgno, hash);
  }
  sums_->shrink(change.after.size_pages);
  advance(change.after);
  return {};
}

void Database::checkpoint_when_due() {
  uint32_t due = std::max<uint32_t>(kCheckpointFramesMin, kCheckpointBytes / control_->state().page_size);
  if (writer_->frames_to_checkpoint() < due) return;
  Result<CheckpointOutcome> done = writer_->checkpoint(true);
  // A reader in the way is no error: the next due one moves on.
  if (!done.ok() && done.error().code() != ErrorCode::kBusy) {
    env_.log.warning("checkpoint failed").kv("database", name()).error(done.error());
  }
}

}  // namespace litefs
