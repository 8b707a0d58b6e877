#include "sqlite/wal_index.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>

#include "sqlite/header.h"

namespace litefs {
namespace {

constexpr uint32_t kIndexVersion = 3007000;
constexpr uint32_t kPoisonVersion = 0xfefefefe;
constexpr int kPoisonTries = 100;
constexpr auto kPoisonRetry = std::chrono::microseconds(100);

// WalIndexHdr and WalCkptInfo of wal.c.
struct RawHeader {
  uint32_t version;
  uint32_t unused;
  uint32_t change;
  uint8_t initialised;
  uint8_t big_endian_checksum;
  uint16_t page_size;
  uint32_t max_frame;
  uint32_t size_pages;
  uint32_t frame_checksum[2];
  uint8_t salts[8];
  uint32_t checksum[2];
};
static_assert(sizeof(RawHeader) == kWalIndexHeaderBytes);

struct RawCheckpointInfo {
  uint32_t backfilled;
  uint32_t read_marks[5];
  uint8_t locks[8];
  uint32_t backfill_attempted;
  uint32_t unused;
};
static_assert(sizeof(RawCheckpointInfo) == kWalCheckpointInfoBytes);

constexpr size_t kInfoOffset = 2 * kWalIndexHeaderBytes;
constexpr size_t kEntriesOffset = kInfoOffset + kWalCheckpointInfoBytes;
constexpr uint32_t kBlockEntries = 4096;
constexpr uint32_t kFirstBlockEntries = kBlockEntries - kEntriesOffset / sizeof(Pgno);
constexpr uint32_t kSlots = 2 * kBlockEntries;
static_assert(kFirstBlockEntries == 4062);

uint32_t block_of(uint32_t frame) { return (frame + kBlockEntries - kFirstBlockEntries - 1) / kBlockEntries; }
uint32_t hash_of(Pgno pgno) { return (pgno * 383) & (kSlots - 1); }
uint32_t next_slot(uint32_t slot) { return (slot + 1) & (kSlots - 1); }

WalChecksum header_checksum(const RawHeader& raw) {
  return wal_checksum(false, ByteView(reinterpret_cast<const uint8_t*>(&raw), offsetof(RawHeader, checksum)), {});
}

void seal(RawHeader& raw) {
  WalChecksum sum = header_checksum(raw);
  raw.checksum[0] = sum.a;
  raw.checksum[1] = sum.b;
}

std::optional<WalIndexHeader> parse_copy(const uint8_t* in) {
  RawHeader raw;
  std::memcpy(&raw, in, sizeof raw);
  if (raw.initialised == 0 || raw.version != kIndexVersion) return std::nullopt;
  if (header_checksum(raw) != WalChecksum{raw.checksum[0], raw.checksum[1]}) return std::nullopt;
  WalIndexHeader header;
  header.change = raw.change;
  header.big_endian_checksum = raw.big_endian_checksum != 0;
  header.page_size = (raw.page_size & 0xfe00u) + ((raw.page_size & 1u) << 16);
  header.max_frame = raw.max_frame;
  header.size_pages = raw.size_pages;
  header.frame_checksum = {raw.frame_checksum[0], raw.frame_checksum[1]};
  header.salts = {load_be32(raw.salts), load_be32(raw.salts + 4)};
  bool empty = header.page_size == 0 && header.max_frame == 0;
  if (!empty && !valid_page_size(header.page_size)) return std::nullopt;
  return header;
}

}  // namespace

std::optional<WalIndexHeader> WalIndexHeader::parse(ByteView both_copies) {
  if (both_copies.size() < 2 * kWalIndexHeaderBytes) return std::nullopt;
  std::optional<WalIndexHeader> first = parse_copy(both_copies.data());
  return first ? first : parse_copy(both_copies.data() + kWalIndexHeaderBytes);
}

void WalIndexHeader::store_copy(uint8_t* out) const {
  RawHeader raw{};
  raw.version = kIndexVersion;
  raw.change = change;
  raw.initialised = 1;
  raw.big_endian_checksum = big_endian_checksum;
  raw.page_size = static_cast<uint16_t>((page_size & 0xff00) | (page_size >> 16));
  raw.max_frame = max_frame;
  raw.size_pages = size_pages;
  raw.frame_checksum[0] = frame_checksum.a;
  raw.frame_checksum[1] = frame_checksum.b;
  store_be32(raw.salts, salts.salt1);
  store_be32(raw.salts + 4, salts.salt2);
  seal(raw);
  std::memcpy(out, &raw, sizeof raw);
}

WalCheckpointInfo WalCheckpointInfo::load(const uint8_t* in) {
  RawCheckpointInfo raw;
  std::memcpy(&raw, in, sizeof raw);
  WalCheckpointInfo info;
  info.backfilled = raw.backfilled;
  std::memcpy(info.read_marks, raw.read_marks, sizeof info.read_marks);
  info.backfill_attempted = raw.backfill_attempted;
  return info;
}

namespace {

// Poisons one copy, writing no more than has to change; answers whether nothing had to.
Result<bool> poison_copy(File& shm, size_t at, const RawHeader& found) {
  RawHeader wanted = found;
  wanted.version = kPoisonVersion;
  wanted.initialised = 1;
  seal(wanted);
  if (std::memcmp(&found, &wanted, sizeof found) == 0) return true;
  auto write = [&](size_t offset, size_t size) {
    return shm.write_at(at + offset, ByteView(reinterpret_cast<const uint8_t*>(&wanted) + offset, size));
  };
  TRY(write(offsetof(RawHeader, version), sizeof found.version));
  if (found.initialised != 1) TRY(write(offsetof(RawHeader, initialised), sizeof found.initialised));
  TRY(write(offsetof(RawHeader, checksum), sizeof found.checksum));
  return false;
}

bool same_frames(const RawHeader& a, const RawHeader& b) {
  return std::memcmp(&a.change, &b.change, offsetof(RawHeader, checksum) - offsetof(RawHeader, change)) == 0;
}

}  // namespace

Result<std::optional<WalIndexHeader>> poison_wal_index(File& shm) {
  std::optional<WalIndexHeader> said;
  for (int i = 0; i < kPoisonTries; i++) {
    uint8_t bytes[2 * kWalIndexHeaderBytes] = {};
    TRY(shm.read_at(0, bytes));
    if (std::optional<WalIndexHeader> header = WalIndexHeader::parse(bytes)) said = header;
    RawHeader copies[2];
    std::memcpy(copies, bytes, sizeof copies);
    if (!same_frames(copies[0], copies[1])) {
      // Being written, which takes no time; or its writer died there, when the second copy, the first to be written,
      // is the newer one.
      if (i < kPoisonTries / 2) {
        std::this_thread::sleep_for(kPoisonRetry);
        continue;
      }
      TRY(shm.write_at(0, ByteView(bytes + kWalIndexHeaderBytes, kWalIndexHeaderBytes)));
      continue;
    }
    bool first = TRY(poison_copy(shm, 0, copies[0]));
    bool second = TRY(poison_copy(shm, kWalIndexHeaderBytes, copies[1]));
    if (first && second) return said;
  }
  return Error(ErrorCode::kBusy, shm.path() + " is being written");
}

// One block's entries. Readers of other processes look at them while they change: slots are stored
// last.
struct WalIndexWriter::Table {
  uint8_t* pages;
  uint8_t* slots;
  uint32_t before;   // frames in the blocks before this one
  uint32_t entries;  // page numbers that it holds

  Pgno page(uint32_t place) const {
    return __atomic_load_n(reinterpret_cast<uint32_t*>(pages) + place - 1, __ATOMIC_RELAXED);
  }
  void set_page(uint32_t place, Pgno pgno) {
    __atomic_store_n(reinterpret_cast<uint32_t*>(pages) + place - 1, pgno, __ATOMIC_RELAXED);
  }
  uint32_t slot(uint32_t i) const { return __atomic_load_n(reinterpret_cast<uint16_t*>(slots) + i, __ATOMIC_ACQUIRE); }
  void set_slot(uint32_t i, uint32_t place) {
    __atomic_store_n(reinterpret_cast<uint16_t*>(slots) + i, static_cast<uint16_t>(place), __ATOMIC_RELEASE);
  }
  void zero() { std::memset(pages, 0, static_cast<size_t>(slots + kSlots * sizeof(uint16_t) - pages)); }
  void remove_above(uint32_t place) {
    for (uint32_t i = 0; i < kSlots; ++i) {
      if (slot(i) > place) set_slot(i, 0);
    }
    std::memset(pages + place * sizeof(Pgno), 0, (entries - place) * sizeof(Pgno));
  }
};

WalIndexWriter::Table WalIndexWriter::table(uint32_t block) const {
  CHECK_LT(block, blocks_.size());
  uint8_t* data = blocks_[block]->data();
  uint8_t* slots = data + kBlockEntries * sizeof(Pgno);
  if (block == 0) return {data + kEntriesOffset, slots, 0, kFirstBlockEntries};
  return {data, slots, kFirstBlockEntries + (block - 1) * kBlockEntries, kBlockEntries};
}

Result<std::unique_ptr<WalIndexWriter>> WalIndexWriter::open(File& shm) {
  std::unique_ptr<WalIndexWriter> writer(new WalIndexWriter(shm));
  TRY(writer->map_blocks(1));
  return writer;
}

Status WalIndexWriter::map_blocks(size_t count) {
  while (blocks_.size() < count) {
    uint64_t start = blocks_.size() * kWalIndexBlockBytes;
    uint64_t end = start + kWalIndexBlockBytes;
    uint64_t size = TRY(shm_.info()).size_bytes;
    if (size < end) {
      // Not by truncating upwards: a full disk then says so here, and not by SIGBUS when the
      // mapping is touched.
      size = std::max(size, start);
      TRY(shm_.allocate(size, end - size));
    }
    blocks_.push_back(TRY(shm_.map(start, kWalIndexBlockBytes, true)));
  }
  return {};
}

Status WalIndexWriter::map_to(uint32_t frame) { return map_blocks(block_of(frame) + 1); }

std::optional<WalIndexHeader> WalIndexWriter::header() const {
  const uint8_t* data = blocks_[0]->data();
  uint8_t copies[2 * kWalIndexHeaderBytes];
  std::memcpy(copies, data, kWalIndexHeaderBytes);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  std::memcpy(copies + kWalIndexHeaderBytes, data + kWalIndexHeaderBytes, kWalIndexHeaderBytes);
  if (std::memcmp(copies, copies + kWalIndexHeaderBytes, kWalIndexHeaderBytes) != 0) return std::nullopt;
  return parse_copy(copies);
}

WalCheckpointInfo WalIndexWriter::checkpoint_info() const {
  auto* raw = reinterpret_cast<RawCheckpointInfo*>(blocks_[0]->data() + kInfoOffset);
  WalCheckpointInfo info;
  info.backfilled = __atomic_load_n(&raw->backfilled, __ATOMIC_ACQUIRE);
  for (int i = 0; i < 5; ++i) {
    info.read_marks[i] = __atomic_load_n(&raw->read_marks[i], __ATOMIC_ACQUIRE);
  }
  info.backfill_attempted = __atomic_load_n(&raw->backfill_attempted, __ATOMIC_ACQUIRE);
  return info;
}

void WalIndexWriter::write_header(const WalIndexHeader& header) {
  uint8_t* data = blocks_[0]->data();
  uint8_t copy[kWalIndexHeaderBytes];
  header.store_copy(copy);
  // A reader takes the first copy, then the second, and wants them equal: written in the other
  // order, they are equal only when the whole header, and the entries stored before it, can be
  // seen.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  std::memcpy(data + kWalIndexHeaderBytes, copy, sizeof copy);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  std::memcpy(data, copy, sizeof copy);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

void WalIndexWriter::set_backfilled(uint32_t frame) {
  auto* raw = reinterpret_cast<RawCheckpointInfo*>(blocks_[0]->data() + kInfoOffset);
  __atomic_store_n(&raw->backfilled, frame, __ATOMIC_SEQ_CST);
}

void WalIndexWriter::set_backfill_attempted(uint32_t frame) {
  auto* raw = reinterpret_cast<RawCheckpointInfo*>(blocks_[0]->data() + kInfoOffset);
  __atomic_store_n(&raw->backfill_attempted, frame, __ATOMIC_SEQ_CST);
}

void WalIndexWriter::set_read_mark(int reader, uint32_t frame) {
  CHECK_LT(static_cast<unsigned>(reader), 5u);
  auto* raw = reinterpret_cast<RawCheckpointInfo*>(blocks_[0]->data() + kInfoOffset);
  __atomic_store_n(&raw->read_marks[reader], frame, __ATOMIC_SEQ_CST);
}

void WalIndexWriter::reset() { std::memset(blocks_[0]->data(), 0, kWalIndexBlockBytes); }

Status WalIndexWriter::append(uint32_t frame, Pgno pgno) {
  uint32_t block = block_of(frame);
  if (block >= blocks_.size()) TRY(map_blocks(block + 1));
  Table t = table(block);
  uint32_t place = frame - t.before;
  if (place == 1) {
    t.zero();
  } else if (t.page(place) != 0) {
    t.remove_above(place - 1);
  }
  uint32_t slot = hash_of(pgno);
  for (uint32_t collisions = place; t.slot(slot) != 0; slot = next_slot(slot)) {
    if (collisions-- == 0) {
      return Error(ErrorCode::kCorrupt,
                   "the hash table of " + shm_.path() + " has no free slot for frame " + std::to_string(frame));
    }
  }
  t.set_page(place, pgno);
  t.set_slot(slot, place);
  return {};
}

void WalIndexWriter::clean_above(uint32_t max_frame) {
  if (max_frame == 0) return;  // the next append zeroes block 0
  Table t = table(block_of(max_frame));
  t.remove_above(max_frame - t.before);
}

uint32_t WalIndexWriter::find(Pgno pgno, uint32_t max_frame, uint32_t min_frame) const {
  if (max_frame <= min_frame) return 0;
  for (uint32_t block = block_of(max_frame) + 1; block-- > block_of(min_frame + 1);) {
    Table t = table(block);
    uint32_t found = 0;
    uint32_t slot = hash_of(pgno);
    for (uint32_t n = 0; n < kSlots; ++n, slot = next_slot(slot)) {
      uint32_t place = t.slot(slot);
      if (place == 0) break;
      // Bounded before it is used: a slot is 16 bits that another process wrote.
      if (place > t.entries || t.page(place) != pgno) continue;
      uint32_t frame = t.before + place;
      if (frame <= max_frame && frame > min_frame && frame > found) found = frame;
    }
    if (found != 0) return found;
  }
  return 0;
}

Pgno WalIndexWriter::page_of(uint32_t frame) const {
  Table t = table(block_of(frame));
  return t.page(frame - t.before);
}

}  // namespace litefs
