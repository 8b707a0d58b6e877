// Input: a record. It is read as it is, and once more with its hash made right.
#include <xxhash.h>

#include "changelog/fixture.h"
#include "changelog/fuzz.h"
#include "changelog/record.h"

using namespace litefs;
using namespace litefs::test;

namespace {

Bytes make_record(uint32_t page_size, uint64_t group, bool drop) {
  PageCodec codec;
  Rng rng(page_size + group);
  RecordHeader header;
  header.database = DatabaseId{7};
  header.flags = drop ? RecordHeader::kDrop : 0;
  header.page_size = drop ? 0 : page_size;
  header.size_after = drop ? 0 : 100000;
  header.epoch = Epoch{3};
  header.txid_first = header.txid_last = TxId{500};
  header.wall_ms = 1700000000000;
  header.group = group;
  if (group != 0) header.group_members = {DatabaseId{7}, DatabaseId{8}};
  RecordEncoder encoder(codec, header);
  Bytes zeros(page_size);
  for (Pgno pgno = 1; !drop && pgno < 60000; pgno += 1 + static_cast<Pgno>(below(rng, 20000))) {
    Bytes page = zeros;
    size_t changes = below(rng, 3) * 100;
    for (size_t i = 0; i < changes; ++i) page[below(rng, page_size)] = static_cast<uint8_t>(rng());
    encoder.add_page(pgno, page, page_hash(pgno, page), below(rng, 2) ? ByteView(zeros) : ByteView());
  }
  encoder.finish(Checksum{});
  return encoder.take();
}

// True when all of it could be read; every page of it is then one that may be there.
bool read(ByteView record) {
  MemoryRecordSource source(record);
  Result<RecordReader> opened = RecordReader::open(source);
  if (!opened.ok()) return false;
  RecordReader& reader = opened.value();
  const RecordHeader& header = reader.header();
  PageCodec codec;
  const Bytes previous(header.page_size);
  Bytes image(header.page_size);
  Pgno last = 0;
  for (;;) {
    Result<std::optional<EncodedPage>> page = reader.next();
    if (!page.ok()) return false;
    if (!page.value()) break;
    CHECK_GT(page.value()->pgno, last);
    CHECK_LE(page.value()->pgno, header.size_after);
    last = page.value()->pgno;
    (void)codec.decode(page.value()->encoding, page.value()->bytes, previous, image).ok();
  }
  return reader.verify().ok();
}

}  // namespace

std::vector<Bytes> litefs::test::fuzz_seeds() {
  return {make_record(512, 0, false), make_record(4096, 9, false), make_record(65536, 0, false),
          make_record(0, 0, true)};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes record(data, data + size);
  (void)read(record);
  if (size < 8) return 0;
  store_le64(record.data() + size - 8, XXH3_64bits(record.data(), size - 8));
  (void)read(record);
  return 0;
}
