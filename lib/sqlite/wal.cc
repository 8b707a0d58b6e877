#include "sqlite/wal.h"

#include <algorithm>
#include <string>

#include "sqlite/header.h"

namespace litefs {
namespace {

constexpr uint32_t kMagic = 0x377f0682;  // the last bit says the order of the checksummed words

template <bool kSwap>
WalChecksum checksum_words(ByteView data, WalChecksum seed) {
  uint32_t a = seed.a;
  uint32_t b = seed.b;
  const uint8_t* p = data.data();
  for (const uint8_t* end = p + data.size(); p < end; p += 8) {
    uint32_t x = kSwap ? load_be32(p) : load_le32(p);
    uint32_t y = kSwap ? load_be32(p + 4) : load_le32(p + 4);
    a += x + b;
    b += y + a;
  }
  return {a, b};
}

WalChecksum load_checksum(const uint8_t* p) { return {load_be32(p), load_be32(p + 4)}; }

}  // namespace

WalSalts load_salts(const uint8_t* bytes) { return {load_be32(bytes), load_be32(bytes + 4)}; }

WalChecksum wal_checksum(bool big_endian, ByteView data, WalChecksum seed) {
  CHECK_EQ(data.size() % 8, 0u);
  return big_endian ? checksum_words<true>(data, seed) : checksum_words<false>(data, seed);
}

void WalAnchor::store(uint8_t* out) const {
  store_le32(out, salts.salt1);
  store_le32(out + 4, salts.salt2);
  store_le32(out + 8, frame);
  store_le32(out + 12, checksum.a);
  store_le32(out + 16, checksum.b);
}

WalAnchor WalAnchor::load(const uint8_t* in) {
  return {{load_le32(in), load_le32(in + 4)}, load_le32(in + 8), {load_le32(in + 12), load_le32(in + 16)}};
}

Result<std::optional<WalHeader>> WalHeader::parse(ByteView bytes) {
  std::optional<WalHeader> none;
  if (bytes.size() < kWalHeaderBytes) return none;
  const uint8_t* p = bytes.data();
  uint32_t magic = load_be32(p);
  if ((magic & ~1u) != kMagic) return none;
  WalHeader header;
  header.big_endian = (magic & 1) != 0;
  header.page_size = load_be32(p + 8);
  if (!valid_page_size(header.page_size)) return none;
  header.checkpoint_sequence = load_be32(p + 12);
  header.salts = load_salts(p + 16);
  header.checksum = wal_checksum(header.big_endian, bytes.first(24), {});
  if (header.checksum != load_checksum(p + 24)) return none;
  // After the checksum, as SQLite does: garbage is ignored, a future format is refused.
  if (load_be32(p + 4) != kWalFormatVersion) {
    return Error(ErrorCode::kUnsupported, "WAL of unknown version " + std::to_string(load_be32(p + 4)));
  }
  return std::optional<WalHeader>(header);
}

void WalHeader::store(uint8_t* out) const {
  store_be32(out, kMagic | (big_endian ? 1u : 0u));
  store_be32(out + 4, kWalFormatVersion);
  store_be32(out + 8, page_size);
  store_be32(out + 12, checkpoint_sequence);
  store_be32(out + 16, salts.salt1);
  store_be32(out + 20, salts.salt2);
  WalChecksum sum = wal_checksum(big_endian, ByteView(out, 24), {});
  store_be32(out + 24, sum.a);
  store_be32(out + 28, sum.b);
}

std::optional<WalFrame> WalFrame::verify(const WalHeader& header, ByteView frame, WalChecksum& running) {
  if (frame.size() < header.frame_bytes()) return std::nullopt;
  const uint8_t* p = frame.data();
  if (load_salts(p + 8) != header.salts) return std::nullopt;
  WalFrame meaning{load_be32(p), load_be32(p + 4)};
  if (meaning.pgno == 0) return std::nullopt;
  WalChecksum sum = wal_checksum(header.big_endian, frame.first(8), running);
  sum = wal_checksum(header.big_endian, frame.subspan(kWalFrameHeaderBytes, header.page_size), sum);
  if (sum != load_checksum(p + 16)) return std::nullopt;
  running = sum;
  return meaning;
}

Result<WalScanResult> scan_wal(File& wal, const WalHeader& header, const WalAnchor& from,
                               const WalFrameVisitor& visit) {
  WalScanResult result{from, 0};
  if (from.salts != header.salts) return result;
  if (from.frame == 0) result.end.checksum = header.checksum;
  WalChecksum running = result.end.checksum;
  uint32_t frame = from.frame + 1;

  // Small reads first: a follower mostly finds one transaction, and behind it a generation's
  // leftovers.
  size_t frames_max = std::max<size_t>(1, kWalScanBytes / header.frame_bytes());
  Bytes buffer;
  for (size_t frames = 1;; frames = std::min(frames * 2, frames_max)) {
    buffer.resize(frames * header.frame_bytes());
    size_t n = TRY(wal.read_at(header.frame_offset(frame), buffer));
    ByteView rest = ByteView(buffer).first(n);
    for (; rest.size() >= header.frame_bytes(); rest = rest.subspan(header.frame_bytes()), ++frame) {
      std::optional<WalFrame> meaning = WalFrame::verify(header, rest, running);
      if (!meaning) return result;
      if (meaning->commit_size != 0) {
        result.end = {header.salts, frame, running};
        result.size_pages = meaning->commit_size;
      }
      ByteView page = rest.subspan(kWalFrameHeaderBytes, header.page_size);
      if (!visit(frame, *meaning, page)) return result;
    }
    if (n < buffer.size()) return result;
  }
}

}  // namespace litefs
