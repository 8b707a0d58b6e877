#include "changelog/page_codec.h"

#include <xxhash.h>
#include <zstd.h>

#include <algorithm>

#include "changelog/fixture.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

struct Encoded {
  PageEncoding encoding;
  Bytes bytes;
};

Encoded encode(PageCodec& codec, ByteView page, ByteView previous) {
  Encoded encoded;
  encoded.encoding = codec.encode(page, previous, encoded.bytes);
  return encoded;
}

void check_round_trip(PageCodec& codec, const Encoded& encoded, ByteView previous, const Bytes& page) {
  Bytes decoded(page.size(), 0xee);
  Status status = codec.decode(encoded.encoding, encoded.bytes, previous, decoded);
  REQUIRE(status.ok());
  CHECK(decoded == page);
}

// The specification of a patch, a byte at a time.
Bytes reference_patch(const Bytes& page, const Bytes& previous) {
  Bytes patch;
  ByteWriter out(patch);
  size_t last = 0;
  for (size_t at = 0; at < page.size();) {
    if (page[at] == previous[at]) {
      ++at;
      continue;
    }
    size_t end = at + 1;
    for (size_t i = end; i < page.size() && i < end + 4; ++i) {
      if (page[i] != previous[i]) end = i + 1;
    }
    out.varint(at - last);
    out.varint(end - at);
    out.bytes(ByteView(page).subspan(at, end - at));
    last = at = end;
  }
  return patch;
}

// Decoding may fail or give any page; it must not crash, nor touch what lies beside the page.
void check_harmless(PageCodec& codec, PageEncoding encoding, const Bytes& bytes, ByteView previous, size_t page_size) {
  Bytes page(page_size + 16, 0x5a);
  (void)codec.decode(encoding, bytes, previous, MutableByteView(page).first(page_size)).ok();
  for (size_t i = page_size; i < page.size(); ++i) REQUIRE(page[i] == 0x5a);
}

}  // namespace

TEST_CASE("an equal page is an empty patch") {
  PageCodec codec;
  Bytes page(4096, 7);
  Encoded encoded = encode(codec, page, page);
  CHECK(encoded.encoding == PageEncoding::kPatch);
  CHECK(encoded.bytes.empty());
  check_round_trip(codec, encoded, page, page);
}

TEST_CASE("a patch is gap, length and bytes of each changed range") {
  PageCodec codec;
  Bytes previous(4096, 0), page = previous;
  page[10] = 1;
  page[20] = 2;
  page[21] = 3;
  page[4095] = 4;
  Encoded encoded = encode(codec, page, previous);
  CHECK(encoded.encoding == PageEncoding::kPatch);
  // 4095 - 22 is 4073: varint 0xe9 0x1f.
  CHECK(encoded.bytes == Bytes{10, 1, 1, 9, 2, 2, 3, 0xe9, 0x1f, 1, 4});
  check_round_trip(codec, encoded, previous, page);
}

TEST_CASE("ranges less than 4 equal bytes apart are merged") {
  PageCodec codec;
  Bytes previous(512, 0), page = previous;
  page[10] = page[14] = 1;
  CHECK(encode(codec, page, previous).bytes == Bytes{10, 5, 1, 0, 0, 0, 1});
  page[14] = 0;
  page[15] = 1;
  CHECK(encode(codec, page, previous).bytes == Bytes{10, 1, 1, 4, 1, 1});
}

TEST_CASE("a patch at its bound stays a patch, one byte more makes it a delta") {
  PageCodec codec;
  Bytes previous(4096, 0);
  Bytes page = previous;
  for (size_t i = 0; i < 253; ++i) page[i] = 1;  // gap 1 byte, length 2 bytes
  Encoded encoded = encode(codec, page, previous);
  CHECK(encoded.encoding == PageEncoding::kPatch);
  CHECK(encoded.bytes.size() == PageCodec::kPatchBytesMax);
  page[253] = 1;
  encoded = encode(codec, page, previous);
  CHECK(encoded.encoding == PageEncoding::kDelta);
  check_round_trip(codec, encoded, previous, page);
}

TEST_CASE("pages of every size and any change round trip") {
  Rng rng(test_seed("page codec round trip"));
  PageCodec codec;
  for (size_t size = kPageBytesMin; size <= kPageBytesMax; size *= 2) {
    for (int i = 0; i < 60; ++i) {
      Bytes previous = i % 2 ? text_bytes(rng, size) : random_bytes(rng, size);
      Bytes page = previous;
      for (size_t changes = below(rng, i < 30 ? 8 : 80); changes > 0; --changes) {
        size_t at = below(rng, size);
        size_t length = std::min(size - at, 1 + below(rng, 40));
        for (size_t k = 0; k < length; ++k) {
          if (below(rng, 3)) page[at + k] = static_cast<uint8_t>(rng());
        }
      }
      Bytes patch = reference_patch(page, previous);
      Encoded encoded = encode(codec, page, previous);
      if (patch.size() <= PageCodec::kPatchBytesMax) {
        REQUIRE(encoded.encoding == PageEncoding::kPatch);
        REQUIRE(encoded.bytes == patch);
      } else {
        REQUIRE(encoded.encoding != PageEncoding::kPatch);
      }
      check_round_trip(codec, encoded, previous, page);
      check_round_trip(codec, encode(codec, page, {}), {}, page);
    }
  }
}

TEST_CASE("without a previous image text is compressed and noise is raw") {
  Rng rng(1);
  PageCodec codec;
  Bytes text = text_bytes(rng, 4096), noise = random_bytes(rng, 4096);
  Encoded of_text = encode(codec, text, {});
  CHECK(of_text.encoding == PageEncoding::kZstd);
  CHECK(of_text.bytes.size() < 3000);
  Encoded of_noise = encode(codec, noise, {});
  CHECK(of_noise.encoding == PageEncoding::kRaw);
  CHECK(of_noise.bytes == noise);
  // Nothing in common with its previous image: raw too, though there is one.
  CHECK(encode(codec, noise, text).encoding == PageEncoding::kRaw);
}

TEST_CASE("the whole previous image is in a delta's reach, whatever the page size") {
  Rng rng(2);
  PageCodec codec;
  for (size_t size = 4096; size <= kPageBytesMax; size *= 2) {
    Bytes previous = random_bytes(rng, size);
    // The second half and then the first: found only if both ends of the prefix are in the window.
    Bytes page(previous.begin() + static_cast<long>(size / 2), previous.end());
    page.insert(page.end(), previous.begin(), previous.begin() + static_cast<long>(size / 2));
    Encoded encoded = encode(codec, page, previous);
    CHECK(encoded.encoding == PageEncoding::kDelta);
    CHECK(encoded.bytes.size() < 64);
    check_round_trip(codec, encoded, previous, page);
  }
}

TEST_CASE("decoding refuses wrong sizes and missing previous images") {
  Rng rng(3);
  PageCodec codec;
  Bytes previous = text_bytes(rng, 4096), page = previous, decoded(4096);
  std::copy_n(text_bytes(rng, 600).begin(), 600, page.begin() + 700);
  Encoded delta = encode(codec, page, previous);
  REQUIRE(delta.encoding == PageEncoding::kDelta);
  auto refused = [&](PageEncoding encoding, const Bytes& bytes, ByteView before, MutableByteView out) {
    Status status = codec.decode(encoding, bytes, before, out);
    return !status.ok() && status.error().code() == ErrorCode::kCorrupt;
  };
  CHECK(refused(delta.encoding, delta.bytes, {}, decoded));
  CHECK(refused(delta.encoding, delta.bytes, ByteView(previous).first(2048), decoded));
  CHECK(refused(PageEncoding::kPatch, {}, {}, decoded));
  CHECK(refused(PageEncoding::kRaw, Bytes(4095), {}, decoded));
  CHECK(refused(PageEncoding::kRaw, Bytes(4097), {}, decoded));
  CHECK(refused(PageEncoding::kZstd, {}, {}, decoded));
  CHECK(refused(static_cast<PageEncoding>(9), {}, previous, decoded));
  Encoded zstd = encode(codec, page, {});
  Bytes smaller(2048), larger(8192);
  CHECK(refused(zstd.encoding, zstd.bytes, {}, smaller));
  CHECK(refused(zstd.encoding, zstd.bytes, {}, larger));
  // The codec is as good as new after errors.
  check_round_trip(codec, delta, previous, page);
}

TEST_CASE("exactly one zstd frame is a page") {
  Rng rng(4);
  PageCodec codec;
  Bytes page = text_bytes(rng, 4096), decoded(4096);
  Bytes frame = encode(codec, page, {}).bytes;
  const Bytes skippable = {0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0};
  Bytes behind = frame;
  behind.insert(behind.end(), skippable.begin(), skippable.end());
  CHECK_FALSE(codec.decode(PageEncoding::kZstd, behind, {}, decoded).ok());
  Bytes before = skippable;
  before.insert(before.end(), frame.begin(), frame.end());
  CHECK_FALSE(codec.decode(PageEncoding::kZstd, before, {}, decoded).ok());
  Bytes empty_frame(64);
  empty_frame.resize(ZSTD_compress(empty_frame.data(), empty_frame.size(), nullptr, 0, 1));
  behind = frame;
  behind.insert(behind.end(), empty_frame.begin(), empty_frame.end());
  CHECK_FALSE(codec.decode(PageEncoding::kZstd, behind, {}, decoded).ok());
  CHECK(codec.decode(PageEncoding::kZstd, frame, {}, decoded).ok());
}

TEST_CASE("patches that leave the page are refused") {
  PageCodec codec;
  Bytes previous(512, 0), page(512);
  auto decodes = [&](const Bytes& patch) { return codec.decode(PageEncoding::kPatch, patch, previous, page).ok(); };
  CHECK(decodes({0xff, 0x03, 1, 9}));  // the last byte
  CHECK(page[511] == 9);
  CHECK_FALSE(decodes({0x80, 0x04, 1, 9}));     // one beyond
  CHECK_FALSE(decodes({0xff, 0x03, 2, 9, 9}));  // two bytes there
  CHECK_FALSE(decodes({0, 0}));                 // an empty range
  CHECK_FALSE(decodes({0}));                    // no length
  CHECK_FALSE(decodes({0, 3, 1, 2}));           // cut
  CHECK_FALSE(decodes({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1, 1}));
  CHECK_FALSE(decodes({1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1}));
}

TEST_CASE("cut and flipped encodings never crash the decoder") {
  Rng rng(test_seed("page codec damage"));
  PageCodec codec;
  Bytes previous = text_bytes(rng, 1024), patched = previous, rewritten = previous;
  patched[100] ^= 1;
  patched[900] ^= 1;
  Bytes text = text_bytes(rng, 500);
  std::copy(text.begin(), text.end(), rewritten.begin() + 300);
  std::vector<Encoded> samples = {encode(codec, patched, previous), encode(codec, rewritten, previous),
                                  encode(codec, rewritten, {})};
  for (const Encoded& sample : samples) {
    for (size_t size = 0; size < sample.bytes.size(); ++size) {
      Bytes cut(sample.bytes.begin(), sample.bytes.begin() + static_cast<long>(size));
      check_harmless(codec, sample.encoding, cut, previous, 1024);
      if (sample.encoding != PageEncoding::kPatch) {
        Bytes page(1024);
        CHECK_FALSE(codec.decode(sample.encoding, cut, previous, page).ok());
      }
    }
    for (size_t bit = 0; bit < sample.bytes.size() * 8; ++bit) {
      Bytes flipped = sample.bytes;
      flipped[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
      check_harmless(codec, sample.encoding, flipped, previous, 1024);
    }
  }
}

TEST_CASE("a page's hash is XXH3-64 seeded with its number") {
  Bytes page(4096, 3);
  CHECK(page_hash(5, page).value == XXH3_64bits_withSeed(page.data(), page.size(), 5));
  CHECK_FALSE(page_hash(5, page) == page_hash(6, page));
}
