// How one page's new image is encoded against its previous image, and the page hash.
//
// Encodings (the numbers stand in records):
//   0 raw    the page's bytes
//   1 zstd   one zstd frame (RFC 8878) without prefix, its content size in the frame header
//   2 patch  changed ranges, ascending: (varint gap since the end of the last range, or since the
//            page's start; varint length, at least 1; the new bytes) …; ranges less than 4 equal
//            bytes apart are merged; an empty patch is an equal page
//   3 delta  as zstd, with the page's previous image as prefix (ZSTD_CCtx_refPrefix; window 8 KiB,
//            or the page size where that is more, so that the whole prefix stays in reach)
// Every encoding but raw is shorter than the page. Varints are LEB128. encode() tries patch with a
// bound of 256 bytes when there is a previous image, then delta; without one, zstd; raw where
// nothing is smaller than the page. Source of the choice: DESIGN section 6 (measured).
//
// The page hash is XXH3-64 of the page's bytes, seeded with the page number. Callers hand in page 1
// with its local bytes zeroed (sqlite/header.h), in every argument.
//
// Thread rule: a PageCodec belongs to one thread at a time; page_hash is free.
#pragma once

#include <memory>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"

namespace litefs {

constexpr uint32_t kPageBytesMin = 512;
constexpr uint32_t kPageBytesMax = 65536;

Checksum page_hash(Pgno pgno, ByteView page);

enum class PageEncoding : uint8_t { kRaw = 0, kZstd = 1, kPatch = 2, kDelta = 3 };

class PageCodec {
 public:
  // A patch longer than this gives way to a delta.
  static constexpr size_t kPatchBytesMax = 256;

  PageCodec();
  ~PageCodec();
  PageCodec(const PageCodec&) = delete;
  PageCodec& operator=(const PageCodec&) = delete;

  // Appends the encoded page to `out`. `page` has a page size of SQLite's; `previous` is empty when
  // unknown, else of the page's size.
  PageEncoding encode(ByteView page, ByteView previous, Bytes& out);

  // Decodes into `page`, whose size is the page size. `previous` may be empty for raw and zstd; it
  // may be the same memory as `page` for no encoding. kCorrupt for anything that does not decode to
  // exactly one page; never reads or writes out of bounds, whatever the bytes are. After an error
  // `page` holds anything.
  Status decode(PageEncoding encoding, ByteView encoded, ByteView previous, MutableByteView page);

 private:
  PageEncoding compress(ByteView page, ByteView previous, Bytes& out);
  Status decompress(ByteView frame, ByteView previous, MutableByteView page);

  struct Contexts;
  std::unique_ptr<Contexts> contexts_;  // zstd contexts, made at first use: 170 KB with 4 KiB pages
};

}  // namespace litefs
