#include "db/log_replay.h"

#include <algorithm>

#include "changelog/record.h"
#include "sqlite/header.h"

namespace litefs::test {

std::string LogReplay::follow(Database& database) {
  Result<std::unique_ptr<LogCursor>> cursor = database.read_log_after(position_);
  if (!cursor.ok()) return cursor.error().message();
  for (;;) {
    Result<bool> next = cursor.value()->next();
    if (!next.ok()) return next.error().message();
    if (!next.value()) return "";
    std::string wrong = take(cursor.value()->record());
    if (!wrong.empty()) return wrong;
    position_ = cursor.value()->info().position;
    ++records_;
  }
}

std::string LogReplay::take(RecordSource& source) {
  Result<RecordReader> opened = RecordReader::open(source);
  if (!opened.ok()) return opened.error().message();
  RecordReader& reader = opened.value();
  const RecordHeader& header = reader.header();
  if (header.before != position_.checksum) return "a record does not follow the one before it";
  if (header.flags & RecordHeader::kCreate) pages_.clear();
  if (header.page_size != 0) page_size_ = header.page_size;
  if (pages_.size() < header.size_after) pages_.resize(header.size_after, Bytes(page_size_));
  for (;;) {
    Result<std::optional<EncodedPage>> page = reader.next();
    if (!page.ok()) return page.error().message();
    if (!page.value()) break;
    Bytes image(page_size_);
    Bytes& held = pages_[page.value()->pgno - 1];
    Status decoded = codec_.decode(page.value()->encoding, page.value()->bytes, held, image);
    if (!decoded.ok()) return decoded.error().message();
    if (page_hash(page.value()->pgno, image) != page.value()->hash) return "a page does not meet its hash";
    held = std::move(image);
  }
  pages_.resize(header.size_after);
  Checksum sum;
  for (size_t i = 0; i < pages_.size(); ++i) {
    Pgno pgno = static_cast<Pgno>(i + 1);
    if (pgno != lock_page(page_size_)) sum ^= page_hash(pgno, pages_[i]);
  }
  return sum == reader.after() ? "" : "the pages do not meet the record's checksum";
}

std::string LogReplay::difference(const std::string& path) const {
  auto files = posix_file_system();
  Bytes all = files->read_all(path, 1u << 30).value();
  if (all.empty()) return pages_.empty() ? "" : "the file is empty";
  Result<DatabaseHeader> header = DatabaseHeader::parse(all);
  if (!header.ok()) return header.error().message();
  if (header.value().page_size != page_size_) return "the page sizes differ";
  Pgno size = header.value().effective_size(all.size());
  if (size != pages_.size()) {
    return "the file has " + std::to_string(size) + " pages, the log " + std::to_string(pages_.size());
  }
  all.resize(static_cast<size_t>(size) * page_size_);
  mask_local_bytes(MutableByteView(all).first(page_size_));
  for (Pgno pgno = 1; pgno <= size; ++pgno) {
    if (!std::equal(pages_[pgno - 1].begin(), pages_[pgno - 1].end(), all.begin() + (pgno - 1) * page_size_)) {
      return "page " + std::to_string(pgno) + " of " + std::to_string(size) + " differs";
    }
  }
  return "";
}

}  // namespace litefs::test
