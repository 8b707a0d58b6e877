#include "db/snapshot_codec.h"

#include <zstd.h>

namespace litefs {

Result<Bytes> pack_snapshot_piece(ByteView pages) {
  CHECK_LE(pages.size(), kSnapshotPieceBytesMax);
  Bytes out(ZSTD_compressBound(pages.size()));
  size_t n = ZSTD_compress(out.data(), out.size(), pages.data(), pages.size(), 1);
  if (ZSTD_isError(n)) return Error(ErrorCode::kIo, std::string("zstd: ") + ZSTD_getErrorName(n));
  out.resize(n);
  return out;
}

Result<Bytes> unpack_snapshot_piece(ByteView packed) {
  unsigned long long size = ZSTD_getFrameContentSize(packed.data(), packed.size());
  if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN || size > kSnapshotPieceBytesMax) {
    return Error(ErrorCode::kCorrupt, "snapshot piece: no zstd frame of an allowed size");
  }
  Bytes out(static_cast<size_t>(size));
  size_t n = ZSTD_decompress(out.data(), out.size(), packed.data(), packed.size());
  if (ZSTD_isError(n) || n != size) return Error(ErrorCode::kCorrupt, "snapshot piece: does not unpack");
  return out;
}

}  // namespace litefs
