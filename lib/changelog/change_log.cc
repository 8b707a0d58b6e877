#include "changelog/change_log.h"

#include "changelog/log_cursor.h"
#include "changelog/log_recovery.h"
#include "changelog/log_state.h"
#include "changelog/segment.h"

namespace litefs {

namespace {

// Above this the buffer of a batch is given back after it.
constexpr size_t kBufferKeptBytes = 1u << 20;

class SegmentedChangeLog final : public ChangeLog {
 public:
  SegmentedChangeLog(FileSystem& files, const std::string& directory, const ChangeLogOptions& options)
      : files_(files), options_(options), state_(std::make_shared<LogState>(directory)) {}

  void start(RecoveredLog recovered) {
    MutexLock lock(state_->mutex);
    if (recovered.last) {
      state_->last = recovered.last->envelope.info;
      // Whether the log's last user synced what it wrote is not known.
      unsynced_ = true;
      directory_unsynced_ = true;
    }
    state_->segments = std::move(recovered.segments);
    active_ = std::move(recovered.file);
  }

  Status append(const std::vector<Entry>& entries) override {
    CHECK(!large_);
    if (entries.empty()) return {};
    TRY(check_usable());
    Place place = TRY(next_place());
    std::optional<SegmentEntry> before = place.before;
    buffer_.clear();
    for (const Entry& entry : entries) before = TRY(encode(entry, before, place));
    const SegmentEntry last = *before;
    if (place.is_new) {
      SegmentName name{entries.front().info.position.epoch, entries.front().info.txid_first};
      std::unique_ptr<File> file = TRY(create_segment(name));
      publish_segment(name, std::move(file), last);
    } else {
      Status written = active_->write_at(place.offset_bytes, buffer_);
      if (!written.ok()) return undo(written.error(), active_->truncate(place.offset_bytes));
      publish(last);
    }
    if (buffer_.capacity() > kBufferKeptBytes) buffer_ = Bytes();
    return {};
  }

  Status begin_large() override {
    CHECK(!large_);
    TRY(check_usable());
    Large large;
    large.place = TRY(next_place());
    if (large.place.is_new) {
      large.file = TRY(files_.open(unfinished_path(), OpenMode::kCreate));
      TRY(large.file->truncate(0));
    }
    large_ = std::move(large);
    return {};
  }

  Status append_large(ByteView piece) override {
    CHECK(large_.has_value());
    uint64_t offset_bytes = large_->place.offset_bytes + kEnvelopeBytes + large_->record_bytes;
    Status written = large_file().write_at(offset_bytes, piece);
    if (!written.ok()) {
      abort_large();
      return written;
    }
    large_->record_bytes += piece.size();
    return {};
  }

  Status commit_large(const LogEntryInfo& info) override {
    CHECK(large_.has_value());
    Status committed = commit_envelope(info);
    if (!committed.ok()) abort_large();
    return committed;
  }

  void abort_large() override {
    if (!large_) return;
    bool is_new = large_->place.is_new;
    uint64_t offset_bytes = large_->place.offset_bytes;
    large_.reset();
    Status undone = is_new ? files_.remove(unfinished_path()) : active_->truncate(offset_bytes);
    if (!undone.ok()) broken_ = undone.error();
  }

  Status sync() override {
    TRY(check_usable());
    TRY(sync_active());
    if (directory_unsynced_) TRY(breaking(files_.sync_directory(state_->directory)));
    directory_unsynced_ = false;
    return {};
  }

  Result<std::shared_ptr<LogSync>> begin_sync() override {
    TRY(check_usable());
    if (sync_ && !sync_->begun()) return std::shared_ptr<LogSync>();
    TRY(end_sync());
    // The name of a new segment comes seldom.
    if (directory_unsynced_) TRY(sync());
    if (unsynced_) sync_ = std::make_shared<LogSync>(active_);
    return sync_;
  }

  std::optional<LogEntryInfo> last() const override {
    MutexLock lock(state_->mutex);
    return state_->last;
  }

  Result<std::optional<Position>> oldest_before() override {
    std::optional<LogEntryInfo> oldest = TRY(find_oldest(files_, *state_));
    return oldest ? std::optional<Position>(position_before(*oldest)) : std::nullopt;
  }

  Result<std::optional<LogEntryInfo>> find(TxId txid) override {
    std::optional<FoundEntry> found = TRY(find_entry(files_, *state_, txid));
    return found ? std::optional<LogEntryInfo>(found->entry.envelope.info) : std::nullopt;
  }

  LogEnd end() const override {
    MutexLock lock(state_->mutex);
    if (state_->segments.empty()) return {};
    const Segment& segment = state_->segments.back();
    return {segment.name.epoch, segment.name.txid, segment.size_bytes, state_->last_entry_bytes()};
  }

  uint64_t size_bytes() const override {
    MutexLock lock(state_->mutex);
    return total_bytes();
  }

  Result<std::unique_ptr<LogCursor>> read_after(const Position& position) override {
    return make_cursor(files_, state_, position);
  }

  Status cut_after(const Position& position) override {
    CHECK(!large_);
    TRY(check_usable());
    std::optional<LogEntryInfo> newest = last();
    if (!newest || newest->position == position) return {};
    TRY(end_sync());
    if (position == Position{}) return clear();
    Result<FoundEntry> found = find_entry(files_, *state_, position);
    if (found.ok()) return breaking(cut_behind(found.value()));
    if (found.error().code() != ErrorCode::kNotFound) return found.error();
    std::optional<LogEntryInfo> oldest = TRY(find_oldest(files_, *state_));
    if (oldest && begins_at(*oldest, position)) return clear();
    return found.error();
  }

  Status clear() override {
    CHECK(!large_);
    TRY(check_usable());
    state_->cuts.fetch_add(1);
    active_.reset();
    sync_.reset();
    unsynced_ = false;
    return breaking(remove_behind(nullptr));
  }

  Result<size_t> trim(const Retention& retention) override {
    size_t removed = 0;
    for (;;) {
      std::optional<SegmentName> oldest = TRY(trimmable(retention));
      if (!oldest) break;
      if (retention.retiring) TRY(retention.retiring(TRY(positions_in(*oldest))));
      TRY(files_.remove(state_->path(*oldest)));
      MutexLock lock(state_->mutex);
      state_->segments.erase(state_->segments.begin());
      ++removed;
    }
    // Once and together: a segment that came back alone after a power cut would leave a gap behind
    // it.
    if (removed != 0) TRY(files_.sync_directory(state_->directory));
    return removed;
  }

 private:
  // Where the next entry goes.
  struct Place {
    bool is_new = false;  // the start of a new segment
    uint64_t offset_bytes = 0;
    std::optional<SegmentEntry> before;  // the newest entry
  };
  struct Large {
    Place place;
    std::unique_ptr<File> file;  // of a new segment
    uint64_t record_bytes = 0;
  };

  std::string unfinished_path() const { return state_->directory + "/" + kUnfinishedSegment; }
  File& large_file() { return large_->place.is_new ? *large_->file : *active_; }

  uint64_t total_bytes() const REQUIRES(state_->mutex) {
    uint64_t total = 0;
    for (const Segment& segment : state_->segments) total += segment.size_bytes;
    return total;
  }

  Status check_usable() const {
    if (!broken_) return {};
    return Error(ErrorCode::kIo, "the change log must be opened again after an error: " + broken_->message());
  }

  // After such an error files and memory may disagree.
  Status breaking(Status status) {
    if (!status.ok()) broken_ = status.error();
    return status;
  }

  // `error`, after an attempt to undo what it left behind.
  Error undo(const Error& error, const Status& undone) {
    if (!undone.ok()) broken_ = undone.error();
    return error;
  }

  // Before any other sync of the same file: the system tells of an error once.
  Status end_sync() {
    if (!sync_) return {};
    const std::shared_ptr<LogSync> sync = std::exchange(sync_, nullptr);
    const bool covers_all = !sync->begun();
    TRY(breaking(sync->finish()));
    if (covers_all) unsynced_ = false;
    return {};
  }

  Status sync_active() {
    TRY(end_sync());
    if (unsynced_) TRY(breaking(active_->sync()));
    unsynced_ = false;
    return {};
  }

  Result<Place> next_place() {
    Place place;
    bool was_full = false;
    {
      MutexLock lock(state_->mutex);
      if (!state_->segments.empty()) {
        place.offset_bytes = state_->segments.back().size_bytes;
        SegmentEntry before;
        before.offset_bytes = place.offset_bytes - state_->last_entry_bytes();
        before.envelope.info = *state_->last;
        place.before = before;
        was_full = place.offset_bytes >= options_.segment_bytes;
      }
    }
    // Before the next segment begins: only the last one can be torn.
    if (was_full) TRY(sync_active());
    place.is_new = was_full || !place.before;
    if (place.is_new) place.offset_bytes = 0;
    return place;
  }

  // The info as it goes into the envelope, once it is known to follow the entry before.
  Result<LogEntryInfo> complete(LogEntryInfo info, uint64_t record_bytes,
                                const std::optional<SegmentEntry>& before) const {
    info.record_bytes = record_bytes;
    if (before) info.before_epoch = before->envelope.info.position.epoch;
    if (info.txid_first.value == 0 || info.position.txid < info.txid_first || info.position.epoch < info.before_epoch) {
      return Error(ErrorCode::kInvalid,
                   "append to the change log: impossible position " + position_text(info.position));
    }
    if (before && position_before(info) != before->envelope.info.position) {
      return Error(ErrorCode::kInvalid, "append to the change log: " + position_text(info.position) +
                                            " does not follow " + position_text(before->envelope.info.position));
    }
    return info;
  }

  // Appends one entry to the buffer, whose start goes to `place`; answers the entry.
  Result<SegmentEntry> encode(const Entry& entry, const std::optional<SegmentEntry>& before, const Place& place) {
    RecordHeader header = TRY(decode_record_header(entry.record));
    if (entry.record.size() < RecordTrailer::kBytes) {
      return Error(ErrorCode::kInvalid, "append to the change log: a record without a trailer");
    }
    const uint8_t* trailer = entry.record.data() + entry.record.size() - RecordTrailer::kBytes;
    SegmentEntry encoded;
    encoded.offset_bytes = place.offset_bytes + buffer_.size();
    encoded.envelope.info = TRY(complete(entry.info, entry.record.size(), before));
    if (encoded.offset_bytes != 0) encoded.envelope.entry_before_bytes = before->size_bytes();
    TRY(check_record_agrees(encoded.envelope.info, header, RecordTrailer::load(trailer).after));
    size_t at = buffer_.size();
    buffer_.resize(at + kEnvelopeBytes);
    encode_envelope(encoded.envelope, encoded.offset_bytes, buffer_.data() + at);
    buffer_.insert(buffer_.end(), entry.record.begin(), entry.record.end());
    return encoded;
  }

  // Makes a segment of the buffer.
  Result<std::unique_ptr<File>> create_segment(const SegmentName& name) {
    const std::string path = state_->path(name);
    std::unique_ptr<File> file = TRY(files_.open(path, OpenMode::kCreateNew));
    Status written = file->write_at(0, buffer_);
    if (!written.ok()) return undo(written.error(), files_.remove(path));
    return file;
  }

  // From here on cursors see everything up to the end of `last`.
  void publish(const SegmentEntry& last) {
    unsynced_ = true;
    MutexLock lock(state_->mutex);
    state_->segments.back().size_bytes = last.end_bytes();
    state_->last = last.envelope.info;
  }

  // The same, in a new segment.
  void publish_segment(const SegmentName& name, std::unique_ptr<File> file, const SegmentEntry& last) {
    active_ = std::move(file);
    unsynced_ = true;
    directory_unsynced_ = true;
    MutexLock lock(state_->mutex);
    state_->segments.push_back({name, last.end_bytes()});
    state_->last = last.envelope.info;
  }

  Status commit_envelope(const LogEntryInfo& info) {
    const Place& place = large_->place;
    SegmentEntry entry;
    entry.offset_bytes = place.offset_bytes;
    entry.envelope.info = TRY(complete(info, large_->record_bytes, place.before));
    if (!place.is_new) entry.envelope.entry_before_bytes = place.before->size_bytes();
    SegmentReader reader(large_file(), entry.end_bytes());
    SegmentRecordSource source(reader, entry.record_offset_bytes(), large_->record_bytes);
    RecordReader record = TRY(RecordReader::open(source));
    TRY(check_record_agrees(entry.envelope.info, record.header(), record.after()));
    uint8_t envelope[kEnvelopeBytes];
    encode_envelope(entry.envelope, entry.offset_bytes, envelope);
    TRY(large_file().write_at(entry.offset_bytes, envelope));
    if (place.is_new) {
      SegmentName name{info.position.epoch, info.txid_first};
      TRY(files_.rename(unfinished_path(), state_->path(name)));
      publish_segment(name, std::move(large_->file), entry);
    } else {
      publish(entry);
    }
    large_.reset();
    return {};
  }

  // Removes the segments behind `kept`, or all: the newest first, so that a crash leaves a log
  // without a gap, and for good, as a segment that came back would be taken for the newest history.
  Status remove_behind(const SegmentName* kept) {
    for (;;) {
      SegmentName newest;
      {
        MutexLock lock(state_->mutex);
        if (state_->segments.empty()) break;
        newest = state_->segments.back().name;
      }
      if (kept && newest == *kept) break;
      TRY(files_.remove(state_->path(newest)));
      MutexLock lock(state_->mutex);
      state_->segments.pop_back();
      state_->last.reset();
    }
    return files_.sync_directory(state_->directory);
  }

  Status cut_behind(const FoundEntry& found) {
    state_->cuts.fetch_add(1);
    active_ = TRY(files_.open(state_->path(found.segment), OpenMode::kReadWrite));
    TRY(remove_behind(&found.segment));
    publish(found.entry);
    TRY(active_->truncate(found.entry.end_bytes()));
    TRY(active_->sync());
    unsynced_ = false;
    return {};
  }

  // Behind each entry of the oldest segment.
  Result<std::vector<Position>> positions_in(const SegmentName& name) {
    std::unique_ptr<File> file = TRY(files_.open(state_->path(name), OpenMode::kReadOnly));
    SegmentReader reader(*file, TRY(file->info()).size_bytes);
    std::vector<Position> positions;
    for (uint64_t at = 0; at < reader.limit_bytes();) {
      SegmentEntry entry = TRY(read_entry(reader, at));
      positions.push_back(entry.envelope.info.position);
      at = entry.end_bytes();
    }
    return positions;
  }

  // The oldest segment, when it is to be removed.
  Result<std::optional<SegmentName>> trimmable(const Retention& retention) {
    std::optional<SegmentName> nothing;
    SegmentName oldest;
    Segment second;
    uint64_t bytes;
    {
      MutexLock lock(state_->mutex);
      if (state_->segments.size() < 2) return nothing;
      oldest = state_->segments[0].name;
      second = state_->segments[1];
      bytes = total_bytes();
    }
    auto over = [bytes](uint64_t bound) { return bound != 0 && bytes > bound; };
    if (over(retention.bytes_hard_max)) return std::optional<SegmentName>(oldest);
    TxId newest_txid{second.name.txid.value - 1};
    if (retention.keep_after && newest_txid > *retention.keep_after) return nothing;
    if (over(retention.bytes_max)) return std::optional<SegmentName>(oldest);
    if (retention.older_than_wall_ms == 0) return nothing;
    std::unique_ptr<File> file = TRY(files_.open(state_->path(second.name), OpenMode::kReadOnly));
    SegmentReader reader(*file, second.size_bytes);
    int64_t wall_ms = TRY(read_entry(reader, 0)).envelope.info.wall_ms;
    if (wall_ms >= retention.older_than_wall_ms) return nothing;
    return std::optional<SegmentName>(oldest);
  }

  FileSystem& files_;
  const ChangeLogOptions options_;
  const std::shared_ptr<LogState> state_;
  std::shared_ptr<File> active_;  // the last segment's; none when the log is empty
  std::optional<Large> large_;
  std::shared_ptr<LogSync> sync_;    // of active_, to be done by another thread
  bool unsynced_ = false;            // active_, as far as is known here
  bool directory_unsynced_ = false;  // names of segments
  std::optional<Error> broken_;
  Bytes buffer_;  // a batch
};

}  // namespace

Status LogSync::finish() {
  MutexLock lock(mutex_);
  begun_ = true;
  if (!synced_) synced_ = file_->sync();
  return *synced_;
}

Result<std::unique_ptr<ChangeLog>> ChangeLog::open(FileSystem& files, const std::string& directory,
                                                   const ChangeLogOptions& options, std::optional<LogEnd> known_end,
                                                   const Log& log) {
  TRY(files.make_directories(directory));
  auto change_log = std::make_unique<SegmentedChangeLog>(files, directory, options);
  change_log->start(TRY(recover_log(files, directory, known_end, log)));
  return std::unique_ptr<ChangeLog>(std::move(change_log));
}

}  // namespace litefs
