// Input: a byte of flags, then the last segment of a log. Flag 1: envelopes' hashes are made right;
// flag 2: the records' too.
#include <xxhash.h>

#include <filesystem>

#include "changelog/fixture.h"
#include "changelog/fuzz.h"
#include "changelog/segment.h"

using namespace litefs;
using namespace litefs::test;

namespace {

Bytes make_segment(uint8_t flags, int entries) {
  RecordMaker maker;
  Bytes segment;
  uint64_t before_bytes = 0;
  for (int i = 0; i < entries; ++i) {
    MadeRecord record = maker.next();
    size_t at = segment.size();
    segment.resize(at + kEnvelopeBytes);
    encode_envelope({record.info, before_bytes}, at, segment.data() + at);
    segment.insert(segment.end(), record.bytes.begin(), record.bytes.end());
    before_bytes = segment.size() - at;
  }
  segment.insert(segment.begin(), flags);
  return segment;
}

void make_hashes_right(Bytes& segment, bool records_too) {
  for (size_t at = 0; segment.size() - at >= kEnvelopeBytes;) {
    uint8_t* envelope = segment.data() + at;
    store_le64(envelope + kEnvelopeBytes - 8, XXH3_64bits_withSeed(envelope, kEnvelopeBytes - 8, at));
    at += kEnvelopeBytes;
    uint64_t bytes = load_le64(envelope + 8);
    if (bytes < 8 || bytes > segment.size() - at) return;
    size_t hashed = static_cast<size_t>(bytes) - 8;
    if (records_too) store_le64(segment.data() + at + hashed, XXH3_64bits(segment.data() + at, hashed));
    at += static_cast<size_t>(bytes);
  }
}

// A directory for the whole run.
class Directory {
 public:
  Directory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "litefs-fuzz-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~Directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

std::vector<Bytes> litefs::test::fuzz_seeds() {
  std::vector<Bytes> seeds;
  for (uint8_t flags = 0; flags < 4; ++flags) {
    for (int entries : {1, 3}) seeds.push_back(make_segment(flags, entries));
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  static Directory directory;
  static std::unique_ptr<FileSystem> files = posix_file_system();
  Bytes segment(data + 1, data + size);
  if (data[0] & 1) make_hashes_right(segment, data[0] & 2);
  const std::string path = directory.path() + "/" + SegmentName{Epoch{1}, TxId{1}}.file();
  {
    std::unique_ptr<File> file = std::move(files->open(path, OpenMode::kCreate)).value();
    CHECK(file->write_at(0, segment).ok());
    CHECK(file->truncate(segment.size()).ok());
  }
  Result<std::unique_ptr<ChangeLog>> log =
      ChangeLog::open(*files, directory.path(), {}, std::nullopt, Log(null_log_sink()));
  if (!log.ok()) return 0;
  std::optional<Position> start = std::move(log.value()->oldest_before()).value();
  if (!start) return 0;
  // Opening has checked every entry: all can be read.
  std::unique_ptr<LogCursor> cursor = std::move(log.value()->read_after(*start)).value();
  size_t entries = 0;
  while (std::move(cursor->next()).value()) {
    RecordReader record = std::move(RecordReader::open(cursor->record())).value();
    CHECK(record.verify().ok());
    CHECK_EQ(record.after().value, cursor->info().position.checksum.value);
    ++entries;
  }
  CHECK(entries > 0);
  CHECK_LE(log.value()->size_bytes(), segment.size());
  return 0;
}
