#include "db/past_positions.h"

namespace litefs {
namespace {

constexpr size_t kEntryBytes = 24;

Result<Position> read_entry(File& file, uint64_t index) {
  uint8_t bytes[kEntryBytes];
  TRY(file.read_exactly(index * kEntryBytes, bytes));
  return Position{Epoch{load_le64(bytes)}, TxId{load_le64(bytes + 8)}, Checksum{load_le64(bytes + 16)}};
}

}  // namespace

Status PastPositions::add(const std::vector<Position>& positions) {
  std::unique_ptr<File> file = TRY(files_.open(path_, OpenMode::kCreate));
  uint64_t entries = TRY(file->info()).size_bytes / kEntryBytes;
  if (entries >= kPastEntriesMax) {
    TRY(drop_older_half(entries));
    file = TRY(files_.open(path_, OpenMode::kReadWrite));
    entries = TRY(file->info()).size_bytes / kEntryBytes;
  }
  TxId newest;
  if (entries != 0) newest = TRY(read_entry(*file, entries - 1)).txid;
  Bytes bytes;
  ByteWriter w(bytes);
  for (const Position& position : positions) {
    if (position.txid <= newest) continue;
    w.le64(position.epoch.value);
    w.le64(position.txid.value);
    w.le64(position.checksum.value);
  }
  return file->write_at(entries * kEntryBytes, bytes);
}

Status PastPositions::drop_older_half(uint64_t entries) {
  std::unique_ptr<File> file = TRY(files_.open(path_, OpenMode::kReadOnly));
  const uint64_t kept = kPastEntriesMax / 2;
  Bytes bytes(static_cast<size_t>(kept) * kEntryBytes);
  TRY(file->read_exactly((entries - kept) * kEntryBytes, bytes));
  return files_.write_atomically(path_, bytes);
}

Result<bool> PastPositions::has(const Position& position) {
  Result<std::unique_ptr<File>> file = files_.open(path_, OpenMode::kReadOnly);
  if (!file.ok() && file.error().code() == ErrorCode::kNotFound) return false;
  if (!file.ok()) return file.error();
  uint64_t first = 0;
  uint64_t end = TRY(file.value()->info()).size_bytes / kEntryBytes;
  while (first < end) {
    const uint64_t middle = first + (end - first) / 2;
    const Position found = TRY(read_entry(*file.value(), middle));
    if (found == position) return true;
    if (found.txid < position.txid) {
      first = middle + 1;
    } else {
      end = middle;
    }
  }
  return false;
}

Status PastPositions::clear() { return files_.remove_if_there(path_); }

}  // namespace litefs
