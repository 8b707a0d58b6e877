// Input: the encoding, the page size (both modulo what there is), the encoded page.
#include "changelog/fixture.h"
#include "changelog/fuzz.h"
#include "changelog/page_codec.h"

using namespace litefs;
using namespace litefs::test;

namespace {

Bytes previous_image(size_t page_size) {
  Rng rng(page_size);
  return text_bytes(rng, page_size);
}

Bytes seed(PageCodec& codec, uint8_t size_log2, bool with_previous, size_t changes) {
  Rng rng(changes);
  Bytes previous = previous_image(512u << size_log2), page = previous;
  for (size_t i = 0; i < changes; ++i) page[below(rng, page.size())] ^= 0x20;
  Bytes encoded;
  PageEncoding encoding = codec.encode(page, with_previous ? ByteView(previous) : ByteView(), encoded);
  encoded.insert(encoded.begin(), {static_cast<uint8_t>(encoding), size_log2});
  return encoded;
}

}  // namespace

std::vector<Bytes> litefs::test::fuzz_seeds() {
  PageCodec codec;
  std::vector<Bytes> seeds;
  for (uint8_t size_log2 : {0, 1, 3, 7}) {
    for (size_t changes : {0, 3, 200}) {
      seeds.push_back(seed(codec, size_log2, true, changes));
      seeds.push_back(seed(codec, size_log2, false, changes));
    }
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  static PageCodec codec;
  PageEncoding encoding = static_cast<PageEncoding>(data[0] % 5);
  const size_t page_size = 512u << data[1] % 8;
  static const std::vector<Bytes> previous_images = [] {
    std::vector<Bytes> images;
    for (int i = 0; i < 8; ++i) images.push_back(previous_image(512u << i));
    return images;
  }();
  const Bytes& previous = previous_images[data[1] % 8];
  Bytes page(page_size);
  if (!codec.decode(encoding, ByteView(data + 2, size - 2), previous, page).ok()) return 0;
  // What decodes can be encoded again and means the same.
  Bytes encoded, again(page_size);
  PageEncoding chosen = codec.encode(page, previous, encoded);
  CHECK(codec.decode(chosen, encoded, previous, again).ok());
  CHECK(again == page);
  return 0;
}
