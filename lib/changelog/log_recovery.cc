#include "changelog/log_recovery.h"

namespace litefs {

namespace {

Result<std::vector<Segment>> list_segments(FileSystem& files, const std::string& directory, const Log& log) {
  std::vector<Segment> segments;
  for (const std::string& file : TRY(files.list(directory))) {
    const std::string path = directory + "/" + file;
    if (file == kUnfinishedSegment) {
      log.warning("removed an unfinished change log segment").kv("path", path);
      TRY(files.remove(path));
    }
    // The list is sorted, and so are epochs and TXIDs written in hex.
    std::optional<SegmentName> name = SegmentName::parse(file);
    if (name) segments.push_back({*name, TRY(files.info(path)).size_bytes});
  }
  return segments;
}

// The last entry before the owner's known end; nothing when that is not the end of an entry here.
Result<std::optional<SegmentEntry>> entry_at_known_end(SegmentReader& reader, const SegmentName& name,
                                                       const LogEnd& end) {
  std::optional<SegmentEntry> nothing;
  if (end.segment_epoch != name.epoch || end.segment_txid != name.txid || end.offset_bytes > reader.limit_bytes() ||
      end.last_entry_bytes < kEnvelopeBytes || end.last_entry_bytes > end.offset_bytes) {
    return nothing;
  }
  Result<SegmentEntry> entry = read_entry(reader, end.offset_bytes - end.last_entry_bytes);
  if (!entry.ok()) {
    if (entry.error().code() != ErrorCode::kCorrupt) return entry.error();
    return nothing;
  }
  if (entry.value().end_bytes() != end.offset_bytes) return nothing;
  return std::optional<SegmentEntry>(entry.value());
}

// The next complete entry behind `before`, or at the segment's start: kCorrupt where there is none.
Result<SegmentEntry> read_complete(SegmentReader& reader, const std::optional<SegmentEntry>& before) {
  SegmentEntry entry = TRY(read_entry(reader, before ? before->end_bytes() : 0));
  if (before) TRY(check_follows(entry, *before, reader.path()));
  TRY(check_record(reader, entry));
  return entry;
}

// The segment's last complete entry, counted from its first one or from `known`; nothing when it
// has none. `why` becomes what is wrong with what follows.
Result<std::optional<SegmentEntry>> last_complete(SegmentReader& reader, const SegmentName& name,
                                                  std::optional<SegmentEntry> known, std::string& why) {
  std::optional<SegmentEntry> last = known;
  while (!last || last->end_bytes() < reader.limit_bytes()) {
    Result<SegmentEntry> next = read_complete(reader, last);
    if (!next.ok()) {
      if (next.error().code() != ErrorCode::kCorrupt) return next.error();
      why = next.error().message();
      break;
    }
    last = next.value();
    const LogEntryInfo& info = last->envelope.info;
    if (last->offset_bytes == 0 && SegmentName{info.position.epoch, info.txid_first} != name) {
      return Error(ErrorCode::kCorrupt,
                   "change log " + reader.path() + " at byte 0: not the entry that the file is named by");
    }
  }
  return last;
}

}  // namespace

Result<RecoveredLog> recover_log(FileSystem& files, const std::string& directory,
                                 const std::optional<LogEnd>& known_end, const Log& log) {
  RecoveredLog recovered;
  recovered.segments = TRY(list_segments(files, directory, log));
  while (!recovered.segments.empty()) {
    Segment& segment = recovered.segments.back();
    const std::string path = directory + "/" + segment.name.file();
    std::unique_ptr<File> file = TRY(files.open(path, OpenMode::kReadWrite));
    SegmentReader reader(*file, segment.size_bytes);
    std::optional<SegmentEntry> known;
    if (known_end) known = TRY(entry_at_known_end(reader, segment.name, *known_end));
    std::string why;
    std::optional<SegmentEntry> last = TRY(last_complete(reader, segment.name, known, why));
    if (last) {
      uint64_t torn_bytes = segment.size_bytes - last->end_bytes();
      if (torn_bytes != 0) {
        log.warning("cut the torn end of a change log")
            .kv("path", path)
            .kv("offset", last->end_bytes())
            .kv("bytes", torn_bytes)
            .kv("reason", why);
        TRY(file->truncate(last->end_bytes()));
        segment.size_bytes = last->end_bytes();
      }
      recovered.last = last;
      recovered.file = std::move(file);
      break;
    }
    // A crash between a rotation and the end of its first entry: the segment before is the last
    // one.
    log.warning("removed a change log segment without a complete entry")
        .kv("path", path)
        .kv("bytes", segment.size_bytes)
        .kv("reason", why);
    TRY(files.remove(path));
    recovered.segments.pop_back();
  }
  return recovered;
}

}  // namespace litefs
