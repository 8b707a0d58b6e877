#include "changelog/page_codec.h"

#include <xxhash.h>
#include <zstd.h>

#include <algorithm>
#include <bit>

namespace litefs {

namespace {

constexpr size_t kRangesApartBytesMin = 4;
constexpr int kCompressionLevel = 1;
constexpr int kWindowLogMin = 13;

Error corrupt(const std::string& what) { return Error(ErrorCode::kCorrupt, "encoded page: " + what); }

// The first offset at or after `from` where `a` and `b` differ; their size when there is none.
size_t first_difference(ByteView a, ByteView b, size_t from) {
  const size_t size = a.size();
  const uint8_t* p = a.data();
  const uint8_t* q = b.data();
  while (from + 32 <= size) {
    uint64_t difference = 0;
    for (size_t i = 0; i < 32; i += 8) difference |= load_le64(p + from + i) ^ load_le64(q + from + i);
    if (difference != 0) break;
    from += 32;
  }
  while (from + 8 <= size) {
    uint64_t difference = load_le64(p + from) ^ load_le64(q + from);
    if (difference != 0) return from + static_cast<size_t>(std::countr_zero(difference)) / 8;
    from += 8;
  }
  while (from < size && p[from] == q[from]) ++from;
  return from;
}

// The end of the changed range that begins at `start`, cut once it is longer than `length_max`.
size_t end_of_range(ByteView a, ByteView b, size_t start, size_t length_max) {
  size_t end = start + 1;
  for (size_t at = end; at < a.size() && at - end < kRangesApartBytesMin && end - start <= length_max; ++at) {
    if (a[at] != b[at]) end = at + 1;
  }
  return end;
}

uint8_t* put_varint(uint8_t* p, size_t v) {
  while (v >= 0x80) {
    *p++ = static_cast<uint8_t>(v | 0x80);
    v >>= 7;
  }
  *p++ = static_cast<uint8_t>(v);
  return p;
}

// Appends the patch that makes `page` of `previous`; false, and nothing, when it is over its bound.
bool encode_patch(ByteView page, ByteView previous, Bytes& out) {
  // A gap is at most 3 bytes (pages end at 64 KiB), a length at most 2.
  uint8_t patch[PageCodec::kPatchBytesMax + 5];
  uint8_t* p = patch;
  size_t last = 0;
  for (;;) {
    size_t start = first_difference(page, previous, last);
    if (start == page.size()) break;
    size_t room = PageCodec::kPatchBytesMax - static_cast<size_t>(p - patch);
    size_t length = end_of_range(page, previous, start, room) - start;
    if (length > room) return false;
    p = put_varint(p, start - last);
    p = put_varint(p, length);
    std::memcpy(p, page.data() + start, length);
    p += length;
    if (p > patch + PageCodec::kPatchBytesMax) return false;
    last = start + length;
  }
  out.insert(out.end(), patch, p);
  return true;
}

Status decode_patch(ByteView patch, ByteView previous, MutableByteView page) {
  std::memcpy(page.data(), previous.data(), page.size());
  ByteReader in(patch, "page patch");
  size_t at = 0;
  while (!in.at_end()) {
    uint64_t gap = TRY(in.varint());
    uint64_t length = TRY(in.varint());
    if (gap > page.size() - at) return corrupt("a patch begins a range beyond the page");
    at += static_cast<size_t>(gap);
    if (length == 0 || length > page.size() - at) return corrupt("a patch's range is empty or beyond the page");
    ByteView bytes = TRY(in.bytes(static_cast<size_t>(length)));
    std::memcpy(page.data() + at, bytes.data(), bytes.size());
    at += bytes.size();
  }
  return {};
}

int log2_of(size_t power_of_two) { return std::countr_zero(power_of_two); }

}  // namespace

struct PageCodec::Contexts {
  ~Contexts() {
    ZSTD_freeCCtx(compressor);
    ZSTD_freeDCtx(decompressor);
  }

  ZSTD_CCtx* compressor_for(size_t page_size) {
    if (compressor == nullptr) compressor = ZSTD_createCCtx();
    CHECK(compressor != nullptr);
    if (page_size != configured_for) {
      // The window covers page and prefix; a hash table as large as the window keeps the context
      // small, and was measured to compress as well as the default.
      int window_log = std::max(kWindowLogMin, log2_of(page_size));
      ZSTD_CCtx_reset(compressor, ZSTD_reset_session_and_parameters);
      ZSTD_CCtx_setParameter(compressor, ZSTD_c_compressionLevel, kCompressionLevel);
      ZSTD_CCtx_setParameter(compressor, ZSTD_c_windowLog, window_log);
      ZSTD_CCtx_setParameter(compressor, ZSTD_c_hashLog, window_log);
      configured_for = page_size;
      frame.resize(page_size);
    }
    return compressor;
  }

  ZSTD_CCtx* compressor = nullptr;
  ZSTD_DCtx* decompressor = nullptr;
  size_t configured_for = 0;  // page size
  Bytes frame;                // of the page size
};

PageCodec::PageCodec() = default;
PageCodec::~PageCodec() = default;

Checksum page_hash(Pgno pgno, ByteView page) { return Checksum{XXH3_64bits_withSeed(page.data(), page.size(), pgno)}; }

PageEncoding PageCodec::encode(ByteView page, ByteView previous, Bytes& out) {
  CHECK(std::has_single_bit(page.size()));
  CHECK_GE(page.size(), kPageBytesMin);
  CHECK_LE(page.size(), kPageBytesMax);
  if (!previous.empty()) {
    CHECK_EQ(previous.size(), page.size());
    if (encode_patch(page, previous, out)) return PageEncoding::kPatch;
  }
  return compress(page, previous, out);
}

PageEncoding PageCodec::compress(ByteView page, ByteView previous, Bytes& out) {
  if (!contexts_) contexts_ = std::make_unique<Contexts>();
  ZSTD_CCtx* compressor = contexts_->compressor_for(page.size());
  ZSTD_CCtx_reset(compressor, ZSTD_reset_session_only);
  if (!previous.empty()) ZSTD_CCtx_refPrefix(compressor, previous.data(), previous.size());
  // One byte less than the page: what does not fit is better raw.
  Bytes& frame = contexts_->frame;
  size_t size = ZSTD_compress2(compressor, frame.data(), page.size() - 1, page.data(), page.size());
  if (ZSTD_isError(size)) {
    out.insert(out.end(), page.begin(), page.end());
    return PageEncoding::kRaw;
  }
  out.insert(out.end(), frame.data(), frame.data() + size);
  return previous.empty() ? PageEncoding::kZstd : PageEncoding::kDelta;
}

Status PageCodec::decode(PageEncoding encoding, ByteView encoded, ByteView previous, MutableByteView page) {
  bool needs_previous = encoding == PageEncoding::kPatch || encoding == PageEncoding::kDelta;
  if (needs_previous && previous.size() != page.size()) {
    return corrupt("it needs the page's previous image, and there is none of this page size");
  }
  if (encoding != PageEncoding::kRaw && encoded.size() >= page.size()) return corrupt("longer than the page");
  switch (encoding) {
    case PageEncoding::kRaw:
      if (encoded.size() != page.size()) return corrupt("raw, but not of the page's size");
      std::memcpy(page.data(), encoded.data(), page.size());
      return {};
    case PageEncoding::kZstd: return decompress(encoded, {}, page);
    case PageEncoding::kPatch: return decode_patch(encoded, previous, page);
    case PageEncoding::kDelta: return decompress(encoded, previous, page);
  }
  return corrupt("unknown encoding " + std::to_string(static_cast<int>(encoding)));
}

Status PageCodec::decompress(ByteView frame, ByteView previous, MutableByteView page) {
  // zstd would go on with frames behind the first, and skip skippable ones: exactly one is allowed,
  // so that a page has no second meaning.
  if (ZSTD_getFrameContentSize(frame.data(), frame.size()) != page.size()) {
    return corrupt("not a zstd frame of one page");
  }
  if (ZSTD_findFrameCompressedSize(frame.data(), frame.size()) != frame.size()) {
    return corrupt("not exactly one zstd frame");
  }
  if (!contexts_) contexts_ = std::make_unique<Contexts>();
  if (contexts_->decompressor == nullptr) contexts_->decompressor = ZSTD_createDCtx();
  ZSTD_DCtx* decompressor = contexts_->decompressor;
  CHECK(decompressor != nullptr);
  // A failed frame leaves its prefix behind; an empty prefix takes it away.
  ZSTD_DCtx_reset(decompressor, ZSTD_reset_session_only);
  size_t rc = ZSTD_DCtx_refPrefix(decompressor, previous.data(), previous.size());
  if (!ZSTD_isError(rc)) {
    rc = ZSTD_decompressDCtx(decompressor, page.data(), page.size(), frame.data(), frame.size());
  }
  if (ZSTD_isError(rc)) return corrupt(std::string("zstd: ") + ZSTD_getErrorName(rc));
  if (rc != page.size()) return corrupt("zstd gives too few bytes");
  return {};
}

}  // namespace litefs
