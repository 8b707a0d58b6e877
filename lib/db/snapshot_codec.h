// A piece of a fuzzy copy on its way: pages as db/page_copier.h makes them, in one zstd frame of
// its own.
// Thread rule: pure functions.
#pragma once

#include "base/bytes.h"
#include "base/result.h"

namespace litefs {

// The most that one piece unpacks to.
constexpr size_t kSnapshotPieceBytesMax = 1u << 20;

Result<Bytes> pack_snapshot_piece(ByteView pages);
// kCorrupt for anything that is not exactly one packed piece.
Result<Bytes> unpack_snapshot_piece(ByteView packed);

}  // namespace litefs
