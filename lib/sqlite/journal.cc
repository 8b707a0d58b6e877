#include "sqlite/journal.h"

#include <algorithm>
#include <cstring>

#include "sqlite/header.h"

namespace litefs {
namespace {

constexpr uint8_t kMagic[8] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};
constexpr uint32_t kRecordsToEnd = 0xffffffff;
constexpr size_t kSuperTailBytes = 16;      // length, checksum, magic
constexpr size_t kSuperNameBytesMax = 512;  // MAX_PATHNAME of os_unix.c
// The sector size of a process that has not read a header yet, on storage with power-safe
// overwrite.
constexpr uint32_t kSectorBytesDefault = 512;
constexpr uint32_t kSectorBytesMin = 32;
constexpr uint32_t kSectorBytesMax = 65536;
constexpr uint64_t kWindowBytes = 64u << 10;

bool valid_sector_size(uint32_t bytes) {
  return bytes >= kSectorBytesMin && bytes <= kSectorBytesMax && (bytes & (bytes - 1)) == 0;
}

uint32_t record_checksum(ByteView page, uint32_t seed) {
  for (size_t i = page.size() - 200; i > 0; i = i > 200 ? i - 200 : 0) seed += page[i];
  return seed;
}

using RecordVisitor = std::function<Status(Pgno, ByteView, uint64_t offset_bytes)>;

// One pass over a journal's records, in order.
class JournalReader {
 public:
  JournalReader(File& journal, const RecordVisitor& visit) : journal_(journal), visit_(visit) {}

  // `begin` gets the first header before any record is visited.
  Result<std::optional<JournalHeader>> run(const std::function<Status(const JournalHeader&)>& begin) {
    size_ = TRY(journal_.info()).size_bytes;
    std::optional<JournalHeader> first = TRY(read_header(kSectorBytesDefault));
    if (!first) return first;
    if (first->page_size == 0) {
      return Error(ErrorCode::kUnsupported, journal_.path() + " does not say its page size");
    }
    // Who wrote this died before the header was synced, so before the database was touched.
    if (!valid_page_size(first->page_size) || !valid_sector_size(first->sector_size)) {
      return std::optional<JournalHeader>();
    }
    first_ = *first;
    TRY(begin(first_));
    record_bytes_ = first_.page_size + 8;
    for (JournalHeader segment = first_;;) {
      offset_ += first_.sector_size;
      if (!TRY(read_records(segment))) return first;
      uint64_t sector = first_.sector_size;
      offset_ = (offset_ + sector - 1) / sector * sector;
      std::optional<JournalHeader> next = TRY(read_header(first_.sector_size));
      if (!next) return first;
      segment = *next;
    }
  }

  // All of the journal, where it is small; else nothing. After run().
  Bytes take_whole() { return window_offset_ == 0 && window_.size() == size_ ? std::move(window_) : Bytes(); }

 private:
  // The bytes at offset_, fewer at the file's end; until the next call.
  Result<ByteView> view(size_t size) {
    if (offset_ < window_offset_ || offset_ + size > window_offset_ + window_.size()) {
      window_.resize(std::min(size_ - std::min(size_, offset_), std::max<uint64_t>(size, kWindowBytes)));
      window_offset_ = offset_;
      window_.resize(TRY(journal_.read_at(offset_, window_)));
    }
    const ByteView rest = ByteView(window_).subspan(offset_ - window_offset_);
    return rest.first(std::min(size, rest.size()));
  }

  // The header at offset_; nothing where the file has no room for its whole sector.
  Result<std::optional<JournalHeader>> read_header(uint32_t sector_bytes) {
    if (offset_ + sector_bytes > size_) return std::optional<JournalHeader>();
    return JournalHeader::parse(TRY(view(kJournalHeaderBytes)));
  }

  // False: the journal ends here.
  Result<bool> read_records(const JournalHeader& segment) {
    uint64_t records = segment.records;
    if (records == kRecordsToEnd) {
      records = (size_ - std::min<uint64_t>(size_, first_.sector_size)) / record_bytes_;
    }
    for (uint64_t i = 0; i < records; ++i) {
      const ByteView record = TRY(view(record_bytes_));
      if (record.size() < record_bytes_) return false;
      offset_ += record_bytes_;
      Pgno pgno = load_be32(record.data());
      if (pgno == 0 || pgno == lock_page(first_.page_size)) return false;
      // Before the checksum, as in SQLite: what is passed over need not be valid.
      if (pgno > first_.original_size) continue;
      ByteView page = record.subspan(4, first_.page_size);
      uint32_t stored = load_be32(record.data() + 4 + first_.page_size);
      if (stored != record_checksum(page, segment.checksum_seed)) return false;
      TRY(visit_(pgno, page, offset_ - record_bytes_ + 4));
    }
    return true;
  }

  File& journal_;
  const RecordVisitor& visit_;
  uint64_t size_ = 0;
  uint64_t offset_ = 0;
  JournalHeader first_;
  size_t record_bytes_ = 0;
  Bytes window_;
  uint64_t window_offset_ = 0;
};

// pager_truncate: cuts what is too long; lengthens only by whole pages.
Status set_original_size(File& database, const JournalHeader& header) {
  uint64_t now = TRY(database.info()).size_bytes;
  uint64_t original = static_cast<uint64_t>(header.original_size) * header.page_size;
  if (now > original || now + header.page_size <= original) TRY(database.truncate(original));
  return {};
}

}  // namespace

std::optional<JournalHeader> JournalHeader::parse(ByteView bytes) {
  if (bytes.size() < kJournalHeaderBytes) return std::nullopt;
  const uint8_t* p = bytes.data();
  if (std::memcmp(p, kMagic, sizeof kMagic) != 0) return std::nullopt;
  return JournalHeader{load_be32(p + 8), load_be32(p + 12), load_be32(p + 16), load_be32(p + 20), load_be32(p + 24)};
}

bool journal_is_hot(ByteView first_bytes) { return !first_bytes.empty() && first_bytes[0] != 0; }

Result<bool> journal_is_hot(FileSystem& files, const std::string& path) {
  const Result<FileInfo> there = files.info(path);
  if (there.ok() && there.value().size_bytes == 0) return false;
  std::unique_ptr<File> journal = TRY(files.open_if_there(path, OpenMode::kReadOnly));
  if (!journal) return false;
  uint8_t first[kJournalHeaderBytes];
  return journal_is_hot(ByteView(first, TRY(journal->read_at(0, first))));
}

bool journal_is_begun(ByteView first_bytes) {
  ByteView header = first_bytes.first(std::min(first_bytes.size(), kJournalHeaderBytes));
  return std::any_of(header.begin(), header.end(), [](uint8_t b) { return b != 0; });
}

Result<std::string> journal_super_name(File& journal) {
  uint64_t size = TRY(journal.info()).size_bytes;
  if (size < kSuperTailBytes) return std::string();
  uint8_t magic[sizeof kMagic];
  TRY(journal.read_exactly(size - sizeof magic, magic));
  if (std::memcmp(magic, kMagic, sizeof kMagic) != 0) return std::string();
  return super_name_before(journal, size - sizeof magic);
}

bool ends_super_name(uint64_t offset_bytes, ByteView data) {
  return offset_bytes != 0 && data.size() == sizeof kMagic && std::memcmp(data.data(), kMagic, sizeof kMagic) == 0;
}

Result<std::string> super_name_before(File& journal, uint64_t magic_offset_bytes) {
  constexpr size_t kEndBytes = kSuperTailBytes - sizeof kMagic;  // length and checksum
  if (magic_offset_bytes < kEndBytes) return std::string();
  uint8_t end[kEndBytes];
  TRY(journal.read_exactly(magic_offset_bytes - sizeof end, end));
  uint32_t length = load_be32(end);
  if (length == 0 || length > kSuperNameBytesMax || length > magic_offset_bytes - sizeof end) return std::string();
  std::string name(length, '\0');
  TRY(journal.read_exactly(magic_offset_bytes - sizeof end - length,
                           MutableByteView(reinterpret_cast<uint8_t*>(name.data()), length)));
  // Plain char on purpose: SQLite sums the machine's chars, signed or not.
  uint32_t sum = 0;
  for (char c : name) sum += static_cast<uint32_t>(c);
  if (sum != load_be32(end + 4)) return std::string();
  return std::string(name.c_str());  // up to a zero byte, as SQLite reads it
}

Result<std::optional<JournalHeader>> read_journal(File& journal,
                                                  const std::function<Status(Pgno pgno, ByteView original)>& visit) {
  RecordVisitor record = [&](Pgno pgno, ByteView original, uint64_t) { return visit(pgno, original); };
  return JournalReader(journal, record).run([](const JournalHeader&) { return Status(); });
}

Result<std::optional<JournalIndex>> JournalIndex::read(std::unique_ptr<File> journal) {
  JournalIndex index;
  RecordVisitor record = [&](Pgno pgno, ByteView, uint64_t offset_bytes) {
    index.places_.emplace(pgno, offset_bytes);
    return Status();
  };
  JournalReader reader(*journal, record);
  std::optional<JournalHeader> header = TRY(reader.run([](const JournalHeader&) { return Status(); }));
  if (!header) return std::optional<JournalIndex>();
  index.header_ = *header;
  index.whole_ = reader.take_whole();
  index.journal_ = std::move(journal);
  return std::optional<JournalIndex>(std::move(index));
}

Result<bool> JournalIndex::original(Pgno pgno, MutableByteView page) const {
  auto it = places_.find(pgno);
  if (it == places_.end() || page.size() != header_.page_size) return false;
  if (whole_.empty()) {
    TRY(journal_->read_exactly(it->second, page));
  } else {
    std::memcpy(page.data(), whole_.data() + it->second, page.size());
  }
  return true;
}

Result<bool> play_back_journal(File& journal, File& database) {
  if (TRY(database.info()).size_bytes == 0) return false;
  // What is read from the cache may not be on the device yet. It must be, before the database
  // changes: a power cut in the middle of this is repaired by doing it again.
  TRY(journal.sync());
  uint32_t page_size = 0;
  RecordVisitor restore = [&](Pgno pgno, ByteView original, uint64_t) {
    return database.write_at(static_cast<uint64_t>(pgno - 1) * page_size, original);
  };
  std::optional<JournalHeader> header = TRY(JournalReader(journal, restore).run([&](const JournalHeader& first) {
    page_size = first.page_size;
    return set_original_size(database, first);
  }));
  if (!header) return false;
  TRY(database.sync());
  return true;
}

}  // namespace litefs
