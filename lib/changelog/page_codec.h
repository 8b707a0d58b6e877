// How one page's new image is encoded against its previous image, and the page hash.
//
// Encodings (the numbers stand in records):
//   0 raw    the page's bytes
//   1 zstd   one zstd frame without prefix
//   2 patch  changed ranges: (varint gap since the end of the last range, varint length, bytes) …;
//            ranges less than 4 equal bytes apart are merged; an empty patch is an equal page
//   3 delta  one zstd frame with the page's previous image as prefix (ZSTD_CCtx_refPrefix, window 8 KiB or
//            the page size where that is more)
// encode() tries patch with a bound of 256 bytes when there is a previous image, then delta; without one,
// zstd; raw where nothing is smaller than the page. Source of the choice: DESIGN section 6 (measured).
//
// The page hash is XXH3-64 of the page's bytes, seeded with the page number. Callers hand in page 1 with its
// local bytes zeroed (sqlite/header.h), in every argument.
// Thread rule: a PageCodec belongs to one thread at a time; page_hash is free.
#pragma once

#include <memory>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"

namespace litefs {

Checksum page_hash(Pgno pgno, ByteView page);

enum class PageEncoding : uint8_t { kRaw = 0, kZstd = 1, kPatch = 2, kDelta = 3 };

class PageCodec {
 public:
  PageCodec();
  ~PageCodec();
  PageCodec(const PageCodec&) = delete;
  PageCodec& operator=(const PageCodec&) = delete;

  // Appends the encoded page to `out`. `previous` is empty when unknown, else of the page's size.
  PageEncoding encode(ByteView page, ByteView previous, Bytes& out);

  // Decodes into `page`, whose size is the page size. `previous` may be empty for raw and zstd; it may be the
  // same memory as `page` for no encoding. kCorrupt for anything that does not decode to exactly one page;
  // never reads or writes out of bounds, whatever the bytes are.
  Status decode(PageEncoding encoding, ByteView encoded, ByteView previous, MutableByteView page);

 private:
  struct Contexts;
  std::unique_ptr<Contexts> contexts_;  // zstd contexts, made at first use
};

}  // namespace litefs
