// SQLite's write-ahead log file: header, frames, checksums.
//
// Layout (wal.c, head comment): a 32-byte header (magic 0x377f0682 or …83, version 3007000, page
// size, checkpoint sequence, salt-1, salt-2, checksum-1, checksum-2), then frames: a 24-byte header
// (page number, size in pages for a commit frame else 0, salts, checksums) and a page. All
// big-endian. The checksum runs over the header's first 24 bytes, then for each frame over its
// first 8 bytes and its page, on words in the byte order that the magic's last bit says (0:
// little-endian). Thread rule: plain values.
#pragma once

#include <functional>
#include <optional>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"
#include "env/file.h"

namespace litefs {

constexpr size_t kWalHeaderBytes = 32;
constexpr size_t kWalFrameHeaderBytes = 24;
constexpr uint32_t kWalFormatVersion = 3007000;

struct WalChecksum {
  uint32_t a = 0;
  uint32_t b = 0;
  bool operator==(const WalChecksum&) const = default;
};

// Salts in file order: the 8 bytes at offset 16 of the header, compared as bytes, never as numbers.
struct WalSalts {
  uint32_t salt1 = 0;  // as read by load_be32
  uint32_t salt2 = 0;
  bool operator==(const WalSalts&) const = default;
};

WalSalts load_salts(const uint8_t* bytes);

// Where in which generation of a WAL something stands. frame 0: before the first frame.
struct WalAnchor {
  WalSalts salts;
  uint32_t frame = 0;
  WalChecksum checksum;  // running, after `frame`
  bool operator==(const WalAnchor&) const = default;

  // Five little-endian words: salt-1, salt-2, frame, checksum-1, checksum-2.
  static constexpr size_t kBytes = 20;
  void store(uint8_t* out) const;
  static WalAnchor load(const uint8_t* in);
};

// Continues a checksum over data whose size is a multiple of 8.
WalChecksum wal_checksum(bool big_endian, ByteView data, WalChecksum seed);

struct WalHeader {
  bool big_endian = false;  // order of the checksummed words
  uint32_t page_size = 0;
  uint32_t checkpoint_sequence = 0;
  WalSalts salts;
  WalChecksum checksum;  // of the header: the seed of the first frame's

  // Nothing when the bytes are no valid header (too short, magic, page size, checksum): then SQLite
  // ignores the whole file. Version other than 3007000 is kUnsupported.
  static Result<std::optional<WalHeader>> parse(ByteView bytes);
  void store(uint8_t* out) const;  // computes the checksum

  size_t frame_bytes() const { return kWalFrameHeaderBytes + page_size; }
  // Offset of frame `frame`, counted from 1.
  uint64_t frame_offset(uint32_t frame) const {
    return kWalHeaderBytes + static_cast<uint64_t>(frame - 1) * frame_bytes();
  }
};

struct WalFrame {
  Pgno pgno = 0;
  Pgno commit_size = 0;  // pages after the commit; 0: not a commit frame

  // Checks salts, page number and running checksum of the frame at `frame` (header and page);
  // nothing when it is not the next frame of this generation. Advances `running`.
  static std::optional<WalFrame> verify(const WalHeader& header, ByteView frame, WalChecksum& running);
};

// Scans a WAL from `from` for committed frames, as SQLite's recovery (walIndexRecover) would see
// them. `visit` gets each valid frame (number from 1, its meaning, its page); answers false to stop
// behind that frame. Returns the anchor after the last *commit* frame reached, and the database
// size there (0: none was reached, and the anchor is `from`). At frame 0 the header's checksum
// takes the place of `from`'s; salts other than the header's name another generation, of which
// nothing is left to be found. Reads at most kWalScanBytes at once.
constexpr size_t kWalScanBytes = 256 * 1024;
struct WalScanResult {
  WalAnchor end;
  Pgno size_pages = 0;
};
using WalFrameVisitor = std::function<bool(uint32_t frame, const WalFrame& meaning, ByteView page)>;
Result<WalScanResult> scan_wal(File& wal, const WalHeader& header, const WalAnchor& from, const WalFrameVisitor& visit);

}  // namespace litefs
