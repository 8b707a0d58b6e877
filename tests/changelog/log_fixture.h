// A change log in a directory of its own, and what should be in it.
#pragma once

#include "changelog/fixture.h"
#include "test.h"

namespace litefs::test {

// `record` in pieces of an awkward size.
inline Status append_in_pieces(ChangeLog& log, const MadeRecord& record) {
  TRY(log.begin_large());
  ByteView rest(record.bytes);
  while (!rest.empty()) {
    size_t size = std::min<size_t>(rest.size(), 777);
    TRY(log.append_large(rest.first(size)));
    rest = rest.subspan(size);
  }
  return log.commit_large(record.info);
}

class LogFixture {
 public:
  explicit LogFixture(uint64_t segment_bytes = 16u << 20) : options{segment_bytes} { reopen(); }

  Result<std::unique_ptr<ChangeLog>> open(std::optional<LogEnd> known_end = std::nullopt) {
    return ChangeLog::open(*files, directory(), options, known_end, Log(sink));
  }
  void reopen(std::optional<LogEnd> known_end = std::nullopt) {
    log.reset();
    sink->lines.clear();
    log = std::move(open(known_end)).value();
  }
  std::string directory() const { return dir.file("log"); }

  // Appends `count` records, one at a time.
  void append(size_t count, size_t pages = 1) {
    for (size_t i = 0; i < count; ++i) {
      records.push_back(maker.next(pages));
      REQUIRE(log->append({records.back().entry()}).ok());
    }
  }

  // Position before entry `index`, which may be one past the last.
  Position position_before(size_t index) const { return index == 0 ? Position() : records[index - 1].info.position; }

  // Whether `cursor` yields the records from `first` to `end`, and then the log's end.
  bool yields(LogCursor& cursor, size_t first, size_t end) {
    for (size_t i = first; i < end; ++i) {
      Result<bool> more = cursor.next();
      if (!more.ok() || !more.value()) return false;
      if (!same_info(cursor.info(), records[i].info)) return false;
      if (read_record(cursor.record()).value() != records[i].bytes) return false;
    }
    Result<bool> more = cursor.next();
    return more.ok() && !more.value();
  }
  bool yields(LogCursor& cursor, size_t first) { return yields(cursor, first, records.size()); }

  std::unique_ptr<LogCursor> cursor_at(size_t index) {
    return std::move(log->read_after(position_before(index))).value();
  }

  std::vector<std::string> segments() { return files->list(directory()).value(); }
  std::string segment_path(size_t index) { return directory() + "/" + segments()[index]; }
  Bytes segment_bytes(size_t index) { return files->read_all(segment_path(index), 1u << 30).value(); }
  void write_file(const std::string& path, ByteView bytes) {
    std::unique_ptr<File> file = std::move(files->open(path, OpenMode::kCreate)).value();
    REQUIRE(file->write_at(0, bytes).ok());
    REQUIRE(file->truncate(bytes.size()).ok());
  }
  void flip_byte(const std::string& path, uint64_t offset_bytes) {
    std::unique_ptr<File> file = std::move(files->open(path, OpenMode::kReadWrite)).value();
    uint8_t byte;
    REQUIRE(file->read_exactly(offset_bytes, MutableByteView(&byte, 1)).ok());
    byte ^= 0x40;
    REQUIRE(file->write_at(offset_bytes, ByteView(&byte, 1)).ok());
  }

  TempDir dir;
  std::unique_ptr<FileSystem> files = posix_file_system();
  ChangeLogOptions options;
  std::shared_ptr<LinesSink> sink = std::make_shared<LinesSink>();
  std::unique_ptr<ChangeLog> log;
  RecordMaker maker;
  std::vector<MadeRecord> records;
};

}  // namespace litefs::test
