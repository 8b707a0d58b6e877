#include "system/log_counters.h"

#include <cstring>
#include <filesystem>
#include <unordered_map>

#include "changelog/change_log.h"
#include "changelog/record.h"
#include "system/workload.h"

namespace litefs::test {

namespace {

constexpr size_t kReportedMax = 20;

// The number in the counter's row, if the page is the leaf that holds it. A page that merely
// carries bytes of it is not taken: the row must be a cell of a table leaf (file format document,
// section 1.6).
std::optional<int64_t> counter_in(ByteView page) {
  constexpr size_t kLeafHeaderBytes = 8;
  constexpr uint8_t kTableLeaf = 13;
  // Payload size, rowid, header size and three serial types precede the mark in its cell.
  constexpr size_t kBeforeMarkMin = 5;
  constexpr size_t kBeforeMarkMax = 12;
  if (page.size() < kLeafHeaderBytes || page[0] != kTableLeaf) return std::nullopt;
  size_t cells = load_be16(page.data() + 3);
  for (size_t i = 0; i < cells && kLeafHeaderBytes + 2 * i + 2 <= page.size(); i++) {
    size_t cell = load_be16(page.data() + kLeafHeaderBytes + 2 * i);
    for (size_t at = cell + kBeforeMarkMin; at <= cell + kBeforeMarkMax && at + 16 <= page.size(); at++) {
      if (std::memcmp(page.data() + at, kCounterMagic, kCounterMagicBytes) != 0) continue;
      int64_t value = 0;
      for (size_t b = 8; b < 16; b++) value = value << 8 | page[at + b];
      return value;
    }
  }
  return std::nullopt;
}

class Walk {
 public:
  CounterWalk result;

  Status apply(const LogEntryInfo& info, RecordSource& source) {
    RecordReader reader = TRY(RecordReader::open(source));
    Status verified = reader.verify();
    if (!verified) return verified;
    result.records++;
    if (info.txid_first.value != txid_ + 1) {
      fault("TXID " + std::to_string(info.txid_first.value) + " follows " + std::to_string(txid_));
    }
    txid_ = info.position.txid.value;
    const RecordHeader& header = reader.header();
    if (header.page_size != page_size_) pages_.clear();
    page_size_ = header.page_size;

    std::optional<int64_t> seen;
    while (std::optional<EncodedPage> page = TRY(reader.next())) {
      Bytes image(page_size_);
      Bytes& old = pages_[page->pgno];
      // Beyond the old size a page's previous image is empty.
      Status decoded = codec_.decode(page->encoding, page->bytes, old, image);
      if (!decoded) return decoded;
      if (page_hash(page->pgno, image) != page->hash) {
        return Error(ErrorCode::kCorrupt, "page " + std::to_string(page->pgno) + " has another hash");
      }
      old = std::move(image);
      std::optional<int64_t> value = counter_in(old);
      if (value) seen = value;
    }
    std::erase_if(pages_, [&](const auto& page) { return page.first > header.size_after; });
    if (seen) follow(*seen);
    return Status();
  }

  void fault(const std::string& what) {
    if (result.faults.size() < kReportedMax) result.faults.push_back(what);
  }

 private:
  // VACUUM rewrites the row with its old value; everything else raises it by one.
  void follow(int64_t value) {
    if (value != result.last && value != result.last + 1 && result.skipped.size() < kReportedMax) {
      result.skipped.push_back("the counter goes from " + std::to_string(result.last) + " to " + std::to_string(value));
    }
    result.last = value;
  }

  PageCodec codec_;
  std::unordered_map<Pgno, Bytes> pages_;
  uint32_t page_size_ = 0;
  uint64_t txid_ = 0;
};

Status walk_log(const std::string& directory, Walk& walk) {
  std::unique_ptr<FileSystem> files = posix_file_system();
  std::unique_ptr<ChangeLog> log =
      TRY(ChangeLog::open(*files, directory, ChangeLogOptions(), std::nullopt, Log(null_log_sink())));
  std::unique_ptr<LogCursor> cursor = TRY(log->read_after(Position()));
  while (TRY(cursor->next())) {
    Status applied = walk.apply(cursor->info(), cursor->record());
    if (!applied) {
      return applied.error().with_context("TXID " + std::to_string(cursor->info().position.txid.value));
    }
  }
  return Status();
}

}  // namespace

CounterWalk log_counters(const std::string& data_directory, const std::string& database, const std::string& scratch) {
  Walk walk;
  // A copy: opening a log cuts what looks like its torn tail.
  std::filesystem::remove_all(scratch);
  std::error_code error;
  std::filesystem::copy(data_directory + "/meta/" + database + "/log", scratch,
                        std::filesystem::copy_options::recursive, error);
  if (error) {
    walk.fault("there is no log of " + database + ": " + error.message());
    return std::move(walk.result);
  }
  Status walked = walk_log(scratch, walk);
  if (!walked) walk.fault(walked.error().message());
  return std::move(walk.result);
}

}  // namespace litefs::test
