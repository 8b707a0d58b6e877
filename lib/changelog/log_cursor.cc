#include "changelog/log_cursor.h"

namespace litefs {

namespace {

Error no_such_position(const Position& position) {
  return Error(ErrorCode::kNotFound, "the change log does not hold position " + position_text(position));
}

Error cut_error() { return Error(ErrorCode::kDiverged, "the change log was cut while it was being read"); }

class Cursor final : public LogCursor {
 public:
  Cursor(FileSystem& files, std::shared_ptr<const LogState> state, uint64_t cuts, const Position& position)
      : files_(files), state_(std::move(state)), cuts_(cuts), position_(position) {}

  // Goes on behind an entry, where the cursor's position is.
  void start_in(const SegmentName& name, std::unique_ptr<File> file, uint64_t offset_bytes) {
    name_ = name;
    file_ = std::move(file);
    reader_.emplace(*file_, offset_bytes);
    offset_bytes_ = offset_bytes;
  }

  Result<bool> next() override {
    source_.reset();
    for (;;) {
      if (was_cut()) return cut_error();
      if (reader_ && offset_bytes_ < reader_->limit_bytes()) {
        Status read = read_next();
        if (was_cut()) return cut_error();
        if (!read.ok()) return read.error();
        return true;
      }
      View view = TRY(look());
      if (reader_ && view.limit_bytes > offset_bytes_) {
        reader_->raise_limit(view.limit_bytes);
      } else if (view.successor) {
        // Nobody trims between two segments that are both listed.
        may_have_missed_ = !view.own_is_listed;
        TRY(enter(*view.successor));
      } else {
        // An idle cursor keeps nothing that many databases times many replicas could not afford.
        if (reader_) reader_->release();
        return false;
      }
    }
  }

  const LogEntryInfo& info() const override { return info_; }

  RecordSource& record() override {
    CHECK(source_.has_value());
    return *source_;
  }

 private:
  // The record of the current entry; a cut while it is read is noticed.
  class Source final : public RecordSource {
   public:
    Source(const Cursor& cursor, const SegmentRecordSource& inner) : cursor_(&cursor), inner_(inner) {}
    Status read(uint64_t offset_bytes, MutableByteView out) override {
      Status read = inner_.read(offset_bytes, out);
      if (cursor_->was_cut()) return cut_error();
      return read;
    }
    uint64_t size_bytes() const override { return inner_.size_bytes(); }

   private:
    const Cursor* cursor_;
    SegmentRecordSource inner_;
  };

  // What the log says of the cursor's segment and of the one after it.
  struct View {
    bool own_is_listed = false;  // it has not been trimmed
    uint64_t limit_bytes = 0;
    std::optional<SegmentName> successor;
  };

  bool was_cut() const { return state_->cuts.load() != cuts_; }

  Result<View> look() {
    View view;
    {
      MutexLock lock(state_->mutex);
      const std::vector<Segment>& segments = state_->segments;
      auto own =
          file_ ? std::lower_bound(segments.begin(), segments.end(), name_,
                                   [](const Segment& segment, const SegmentName& name) { return segment.name < name; })
                : segments.begin();
      view.own_is_listed = file_ && own != segments.end() && own->name == name_;
      if (view.own_is_listed) {
        view.limit_bytes = own->size_bytes;
        ++own;
      }
      if (own != segments.end()) view.successor = own->name;
    }
    // The last segment is never trimmed, so a trimmed one is as long as it will ever be.
    if (file_ && !view.own_is_listed) view.limit_bytes = TRY(file_->info()).size_bytes;
    return view;
  }

  Status enter(const SegmentName& name) {
    std::unique_ptr<File> file = TRY(files_.open(state_->path(name), OpenMode::kReadOnly));
    start_in(name, std::move(file), 0);
    return {};
  }

  Status read_next() {
    SegmentEntry entry = TRY(read_entry(*reader_, offset_bytes_));
    const LogEntryInfo& info = entry.envelope.info;
    bool is_oldest = offset_bytes_ == 0 && may_have_missed_;
    if (is_oldest ? !begins_at(info, position_) : position_before(info) != position_) {
      // The first entry that can still be read is a later one.
      if (is_oldest) return no_such_position(position_);
      return Error(ErrorCode::kCorrupt, "change log " + reader_->path() + " at byte " + std::to_string(offset_bytes_) +
                                            ": does not follow " + position_text(position_));
    }
    info_ = info;
    position_ = info.position;
    source_.emplace(*this, SegmentRecordSource(*reader_, entry.record_offset_bytes(), info.record_bytes));
    offset_bytes_ = entry.end_bytes();
    return {};
  }

  FileSystem& files_;
  const std::shared_ptr<const LogState> state_;
  const uint64_t cuts_;
  Position position_;  // the next entry begins here
  SegmentName name_;
  std::unique_ptr<File> file_;  // none before the first segment
  std::optional<SegmentReader> reader_;
  uint64_t offset_bytes_ = 0;     // of the next entry
  bool may_have_missed_ = false;  // segments before this one, which have been trimmed
  LogEntryInfo info_;
  std::optional<Source> source_;
};

// The entry that holds `txid`, from the end of the last segment towards its start, or from a segment's start towards
// its end.
using MaybeEntry = std::optional<SegmentEntry>;

Result<MaybeEntry> scan_back(SegmentReader& reader, uint64_t last_entry_bytes, TxId txid) {
  uint64_t end_bytes = reader.limit_bytes();
  uint64_t entry_bytes = last_entry_bytes;
  while (entry_bytes != 0 && entry_bytes <= end_bytes) {
    SegmentEntry entry = TRY(read_entry(reader, end_bytes - entry_bytes));
    if (entry.envelope.info.txid_first <= txid) return MaybeEntry(entry);
    end_bytes = entry.offset_bytes;
    entry_bytes = entry.envelope.entry_before_bytes;
  }
  return MaybeEntry();
}

Result<MaybeEntry> scan_forward(SegmentReader& reader, TxId txid) {
  for (uint64_t offset_bytes = 0; offset_bytes < reader.limit_bytes();) {
    SegmentEntry entry = TRY(read_entry(reader, offset_bytes));
    if (entry.envelope.info.position.txid >= txid) return MaybeEntry(entry);
    offset_bytes = entry.end_bytes();
  }
  return MaybeEntry();
}

}  // namespace

Result<std::optional<FoundEntry>> find_entry(FileSystem& files, const LogState& state, TxId txid) {
  Segment segment;
  uint64_t last_entry_bytes = 0;  // 0: scan forward
  {
    MutexLock lock(state.mutex);
    std::optional<size_t> index = state.find(txid);
    if (!index) return std::optional<FoundEntry>();
    segment = state.segments[*index];
    if (*index + 1 == state.segments.size() && state.last) {
      uint64_t newest = state.last->position.txid.value;
      if (txid.value > newest) return std::optional<FoundEntry>();
      if (newest - txid.value <= txid.value - segment.name.txid.value) last_entry_bytes = state.last_entry_bytes();
    }
  }
  FoundEntry found;
  found.segment = segment.name;
  found.file = TRY(files.open(state.path(segment.name), OpenMode::kReadOnly));
  SegmentReader reader(*found.file, segment.size_bytes);
  MaybeEntry entry =
      last_entry_bytes != 0 ? TRY(scan_back(reader, last_entry_bytes, txid)) : TRY(scan_forward(reader, txid));
  if (!entry) return std::optional<FoundEntry>();
  found.entry = *entry;
  return std::optional<FoundEntry>(std::move(found));
}

Result<FoundEntry> find_entry(FileSystem& files, const LogState& state, const Position& position) {
  std::optional<FoundEntry> found = TRY(find_entry(files, state, position.txid));
  if (!found || found->entry.envelope.info.position != position) return no_such_position(position);
  return std::move(*found);
}

Result<std::optional<LogEntryInfo>> find_oldest(FileSystem& files, const LogState& state) {
  for (;;) {
    Segment oldest;
    {
      MutexLock lock(state.mutex);
      if (state.segments.empty()) return std::optional<LogEntryInfo>();
      oldest = state.segments.front();
    }
    Result<std::unique_ptr<File>> file = files.open(state.path(oldest.name), OpenMode::kReadOnly);
    if (file.ok()) {
      SegmentReader reader(*file.value(), oldest.size_bytes);
      return std::optional<LogEntryInfo>(TRY(read_entry(reader, 0)).envelope.info);
    }
    if (file.error().code() != ErrorCode::kNotFound) return file.error();
    // Trimmed between the two steps: look again, unless it is missing from a log that still counts
    // on it.
    MutexLock lock(state.mutex);
    if (!state.segments.empty() && state.segments.front().name == oldest.name) return file.error();
  }
}

Result<std::unique_ptr<LogCursor>> make_cursor(FileSystem& files, std::shared_ptr<const LogState> state,
                                               const Position& position) {
  uint64_t cuts = state->cuts.load();
  auto cursor = std::make_unique<Cursor>(files, state, cuts, position);
  Result<FoundEntry> found = find_entry(files, *state, position);
  if (found.ok()) {
    FoundEntry& entry = found.value();
    cursor->start_in(entry.segment, std::move(entry.file), entry.entry.end_bytes());
    return std::unique_ptr<LogCursor>(std::move(cursor));
  }
  if (state->cuts.load() != cuts) return cut_error();
  if (found.error().code() != ErrorCode::kNotFound) return found.error();
  std::optional<LogEntryInfo> oldest = TRY(find_oldest(files, *state));
  if (oldest && !begins_at(*oldest, position)) return no_such_position(position);
  return std::unique_ptr<LogCursor>(std::move(cursor));
}

}  // namespace litefs
