#include "changelog/record.h"

#include <xxhash.h>

#include <functional>

#include "changelog/fixture.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

RecordHeader some_header() {
  RecordHeader header;
  header.database = DatabaseId{0x1122334455667788};
  header.page_size = 4096;
  header.size_after = 100000;
  header.epoch = Epoch{12};
  header.txid_first = header.txid_last = TxId{123456};
  header.wall_ms = 1760000000000;
  header.before = Checksum{0xaabbccddeeff0011};
  header.origin = NodeId{0x99};
  return header;
}

struct DecodedPage {
  Pgno pgno;
  Bytes image;
};

struct Decoded {
  RecordHeader header;
  Checksum after;
  std::vector<DecodedPage> pages;
};

using PreviousOf = std::function<Bytes(Pgno)>;

// The whole way that bytes from a peer go: verify, then decode, checking each page's hash.
Result<Decoded> decode(
    RecordSource& source, const PreviousOf& previous_of = [](Pgno) { return Bytes(); }) {
  RecordReader reader = TRY(RecordReader::open(source));
  TRY(reader.verify());
  Decoded decoded{reader.header(), reader.after(), {}};
  PageCodec codec;
  while (std::optional<EncodedPage> page = TRY(reader.next())) {
    Bytes image(reader.header().page_size);
    TRY(codec.decode(page->encoding, page->bytes, previous_of(page->pgno), image));
    if (page_hash(page->pgno, image) != page->hash) return Error(ErrorCode::kCorrupt, "page hash");
    decoded.pages.push_back({page->pgno, image});
  }
  return decoded;
}

Result<Decoded> decode(ByteView record) {
  MemoryRecordSource source(record);
  return decode(source);
}

// Reads all of it without asking for the record hash.
Status read_unverified(ByteView record) {
  MemoryRecordSource source(record);
  RecordReader reader = TRY(RecordReader::open(source));
  while (TRY(reader.next())) {
  }
  return {};
}

void append_hash(Bytes& record) { ByteWriter(record).le64(XXH3_64bits(record.data(), record.size())); }

// A record written by hand, so that it may be wrong where the encoder would not be.
struct HandMade {
  uint8_t version = 1;
  uint64_t flags = 0;
  uint8_t page_size_log2 = 9;
  uint64_t size_after = 10;
  uint64_t txid_first = 1;
  uint64_t txid_more = 0;
  uint64_t group = 0;
  std::vector<uint64_t> members{};
  Bytes extension{};
  Bytes pages{};
  Bytes behind_end_mark{};
  uint64_t after = 5;

  Bytes bytes() const {
    Bytes record;
    ByteWriter out(record);
    out.bytes(as_bytes("LFCR"));
    out.u8(version);
    out.varint(flags);
    out.le64(7);
    out.u8(page_size_log2);
    out.varint(size_after);
    out.varint(1);
    out.varint(txid_first);
    out.varint(txid_more);
    out.varint(1000);
    out.le64(0);
    out.le64(9);
    out.varint(group);
    if (group) {
      out.varint(members.size());
      for (uint64_t member : members) out.le64(member);
    }
    out.varint(extension.size());
    out.bytes(extension);
    out.bytes(pages);
    out.varint(0);
    out.bytes(behind_end_mark);
    out.le64(after);
    append_hash(record);
    return record;
  }
};

Bytes hand_made_page(uint64_t difference, uint8_t encoding, const Bytes& content, uint64_t length) {
  Bytes page;
  ByteWriter out(page);
  out.varint(difference);
  out.u8(encoding);
  out.le64(0);
  out.varint(length);
  out.bytes(content);
  return page;
}

ErrorCode code_of(const HandMade& record) {
  Status status = read_unverified(record.bytes());
  REQUIRE_FALSE(status.ok());
  return status.error().code();
}

}  // namespace

TEST_CASE("a record of a one-row update takes less than 90 bytes beside its patch") {
  PageCodec codec;
  Bytes previous(4096, 1), page = previous;
  page[2000] = 9;
  RecordEncoder encoder(codec, some_header());
  encoder.add_page(70000, page, page_hash(70000, page), previous);
  encoder.finish(Checksum{1});
  MESSAGE("bytes: ", encoder.buffer().size());
  CHECK(encoder.buffer().size() - 4 < 90);
}

TEST_CASE("the bytes of a record are as specified") {
  PageCodec codec;
  RecordHeader header = some_header();
  header.flags = RecordHeader::kCreate;
  header.group = 300;
  header.group_members = {DatabaseId{2}, header.database};
  header.txid_last = TxId{123466};
  Bytes page(4096, 0);
  RecordEncoder encoder(codec, header);
  encoder.add_page(200, page, Checksum{0x0102030405060708}, page);
  encoder.finish(Checksum{0x1111});
  Bytes expected = {'L',  'F',  'C',  'R',  1,    1,    0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 12,
                    0xa0, 0x8d, 0x06,                    // 100000 pages
                    12,   0xc0, 0xc4, 0x07, 10,          // epoch, TXIDs
                    0x80, 0x80, 0xb3, 0xc1, 0x9c, 0x33,  // wall clock
                    0x11, 0x00, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0,    0,    0,    0,    0,    0,
                    0,    0xac, 0x02, 2,    2,    0,    0,    0,    0,    0,    0,    0,    0x88, 0x77, 0x66,
                    0x55, 0x44, 0x33, 0x22, 0x11, 0,    0xc8, 0x01, 2,    8,    7,    6,    5,    4,    3,
                    2,    1,    0,    0,    0x11, 0x11, 0,    0,    0,    0,    0,    0};
  append_hash(expected);
  CHECK(encoder.buffer() == expected);
}

TEST_CASE("a record round trips, header and pages") {
  Rng rng(test_seed("record round trip"));
  PageCodec codec;
  RecordHeader header = some_header();
  header.txid_last = TxId{123460};
  header.wall_ms = -5;
  header.group = ~0ull;
  header.group_members = {DatabaseId{3}, header.database};
  RecordEncoder encoder(codec, header);
  std::vector<DecodedPage> pages;
  Checksum after = header.before;
  auto previous_of = [&](Pgno pgno) {
    Rng of_page(pgno);
    return text_bytes(of_page, 4096);
  };
  Pgno pgno = 0;
  for (int i = 0; i < 200; ++i) {
    pgno += 1 + static_cast<Pgno>(below(rng, 400));
    Bytes image = i % 3 == 0 ? random_bytes(rng, 4096) : previous_of(pgno);
    for (size_t k = below(rng, 300); k > 0; --k) image[below(rng, 4096)] ^= 0x10;
    Checksum hash = page_hash(pgno, image);
    after ^= hash;
    encoder.add_page(pgno, image, hash, i % 7 == 0 ? Bytes() : previous_of(pgno));
    pages.push_back({pgno, image});
  }
  encoder.finish(after);
  Bytes record = encoder.take();
  MemoryRecordSource source(record);
  Result<Decoded> decoded = decode(source, previous_of);
  REQUIRE(decoded.ok());
  const RecordHeader& got = decoded.value().header;
  CHECK(got.flags == header.flags);
  CHECK(got.database == header.database);
  CHECK(got.page_size == header.page_size);
  CHECK(got.size_after == header.size_after);
  CHECK(got.epoch == header.epoch);
  CHECK(got.txid_first == header.txid_first);
  CHECK(got.txid_last == header.txid_last);
  CHECK(got.wall_ms == header.wall_ms);
  CHECK(got.before == header.before);
  CHECK(got.origin == header.origin);
  CHECK(got.group == header.group);
  CHECK(got.group_members == header.group_members);
  CHECK(decoded.value().after == after);
  REQUIRE(decoded.value().pages.size() == pages.size());
  for (size_t i = 0; i < pages.size(); ++i) {
    CHECK(decoded.value().pages[i].pgno == pages[i].pgno);
    CHECK(decoded.value().pages[i].image == pages[i].image);
  }
}

TEST_CASE("a drop has no pages and leaves no checksum") {
  PageCodec codec;
  RecordHeader header = some_header();
  header.flags = RecordHeader::kDrop;
  header.page_size = 0;
  header.size_after = 0;
  RecordEncoder encoder(codec, header);
  encoder.finish(Checksum{});
  Result<Decoded> decoded = decode(encoder.buffer());
  REQUIRE(decoded.ok());
  CHECK(decoded.value().pages.empty());
  CHECK(decoded.value().header.flags == RecordHeader::kDrop);
}

TEST_CASE("a record taken away in pieces is the same record") {
  Bytes whole, pieces;
  for (bool in_pieces : {false, true}) {
    PageCodec codec;
    Rng rng(5);
    RecordEncoder encoder(codec, some_header());
    Bytes& record = in_pieces ? pieces : whole;
    for (Pgno pgno = 1; pgno < 40; ++pgno) {
      Bytes page = random_bytes(rng, 4096);
      encoder.add_page(pgno, page, page_hash(pgno, page), {});
      if (!in_pieces || pgno % 3) continue;
      Bytes piece = encoder.take();
      CHECK(encoder.buffer().empty());
      record.insert(record.end(), piece.begin(), piece.end());
    }
    encoder.finish(Checksum{1});
    Bytes rest = encoder.take();
    record.insert(record.end(), rest.begin(), rest.end());
  }
  CHECK(whole == pieces);
  CHECK(decode(pieces).ok());
}

TEST_CASE("a record cut at any byte is refused") {
  Bytes record = RecordMaker().next(2).bytes;
  for (size_t size = 0; size < record.size(); ++size) {
    REQUIRE_FALSE(decode(ByteView(record).first(size)).ok());
    (void)read_unverified(ByteView(record).first(size)).ok();
  }
  CHECK(decode(record).ok());
  record.push_back(0);
  CHECK_FALSE(decode(record).ok());
}

TEST_CASE("a record with any bit flipped is refused") {
  Bytes record = RecordMaker().next(1).bytes;
  for (size_t bit = 0; bit < record.size() * 8; ++bit) {
    Bytes flipped = record;
    flipped[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    REQUIRE_FALSE(decode(flipped).ok());
    (void)read_unverified(flipped).ok();
  }
}

TEST_CASE("a header with impossible values is refused though its hash is right") {
  CHECK(read_unverified(HandMade{}.bytes()).ok());
  CHECK(code_of({.version = 2}) == ErrorCode::kUnsupported);
  CHECK(code_of({.flags = 4}) == ErrorCode::kUnsupported);
  CHECK(code_of({.flags = 1ull << 40}) == ErrorCode::kCorrupt);
  for (int log2 : {1, 8, 17, 31, 32, 64, 255}) {
    CHECK(code_of({.page_size_log2 = static_cast<uint8_t>(log2)}) == ErrorCode::kCorrupt);
  }
  CHECK(code_of({.size_after = 1ull << 32}) == ErrorCode::kCorrupt);
  CHECK(code_of({.size_after = 0}) == ErrorCode::kCorrupt);
  CHECK(code_of({.page_size_log2 = 0}) == ErrorCode::kCorrupt);
  CHECK(code_of({.flags = RecordHeader::kDrop}) == ErrorCode::kCorrupt);
  CHECK(code_of({.flags = RecordHeader::kDrop, .page_size_log2 = 0, .size_after = 0}) == ErrorCode::kCorrupt);
  CHECK(code_of({.flags = 3, .page_size_log2 = 0, .size_after = 0, .after = 0}) == ErrorCode::kCorrupt);
  CHECK(code_of({.txid_first = 0}) == ErrorCode::kCorrupt);
  CHECK(code_of({.txid_first = 2, .txid_more = ~0ull - 1}) == ErrorCode::kCorrupt);
}

TEST_CASE("group members are few, ascending, and hold the record's database") {
  CHECK(read_unverified(HandMade{.group = 1, .members = {6, 7}}.bytes()).ok());
  CHECK(code_of({.group = 1}) == ErrorCode::kCorrupt);
  CHECK(code_of({.group = 1, .members = {6, 8}}) == ErrorCode::kCorrupt);
  CHECK(code_of({.group = 1, .members = {8, 7}}) == ErrorCode::kCorrupt);
  CHECK(code_of({.group = 1, .members = {7, 7}}) == ErrorCode::kCorrupt);
  std::vector<uint64_t> many;
  for (uint64_t id = 1; id <= 129; ++id) many.push_back(id);
  CHECK(code_of({.group = 1, .members = many}) == ErrorCode::kCorrupt);
  many.pop_back();
  CHECK(read_unverified(HandMade{.group = 1, .members = many}.bytes()).ok());
}

TEST_CASE("an extension area is skipped, up to its bound") {
  CHECK(read_unverified(HandMade{.extension = Bytes(4096, 0xff)}.bytes()).ok());
  CHECK(code_of({.extension = Bytes(4097, 0xff)}) == ErrorCode::kCorrupt);
}

TEST_CASE("pages with impossible numbers or lengths are refused though the hash is right") {
  const Bytes raw(512, 1);
  auto with = [](std::initializer_list<Bytes> pages) {
    HandMade record;
    for (const Bytes& page : pages) record.pages.insert(record.pages.end(), page.begin(), page.end());
    return record;
  };
  Bytes tenth = hand_made_page(10, 0, raw, 512);
  CHECK(read_unverified(with({tenth}).bytes()).ok());
  CHECK(code_of(with({hand_made_page(11, 0, raw, 512)})) == ErrorCode::kCorrupt);
  CHECK(code_of(with({tenth, hand_made_page(1, 0, raw, 512)})) == ErrorCode::kCorrupt);
  CHECK(code_of(with({tenth, hand_made_page(~0ull, 0, raw, 512)})) == ErrorCode::kCorrupt);
  CHECK(code_of(with({hand_made_page(1, 4, raw, 512)})) == ErrorCode::kCorrupt);
  CHECK(code_of(with({hand_made_page(1, 0, Bytes(511), 511)})) == ErrorCode::kCorrupt);
  CHECK(code_of(with({hand_made_page(1, 1, raw, 512)})) == ErrorCode::kCorrupt);
  CHECK(code_of(with({hand_made_page(1, 2, Bytes(10), 400)})) == ErrorCode::kCorrupt);
  CHECK(code_of({.behind_end_mark = {1}}) == ErrorCode::kCorrupt);
}

TEST_CASE("the lock page is refused") {
  HandMade record;
  record.page_size_log2 = 16;
  record.size_after = 20000;
  record.pages = hand_made_page(16384, 2, {}, 0);
  CHECK(read_unverified(record.bytes()).ok());
  record.pages = hand_made_page(16385, 2, {}, 0);
  CHECK(code_of(record) == ErrorCode::kCorrupt);
}

namespace {

// Counts what is asked of it.
class WatchedSource final : public RecordSource {
 public:
  explicit WatchedSource(ByteView record) : inner_(record) {}
  Status read(uint64_t offset_bytes, MutableByteView out) override {
    largest = std::max(largest, out.size());
    total += out.size();
    return inner_.read(offset_bytes, out);
  }
  uint64_t size_bytes() const override { return inner_.size_bytes(); }

  size_t largest = 0;
  size_t total = 0;

 private:
  MemoryRecordSource inner_;
};

}  // namespace

TEST_CASE("a large record is read through a small window") {
  PageCodec codec;
  RecordHeader header = some_header();
  header.page_size = 65536;
  header.size_after = 1000;
  RecordEncoder encoder(codec, header);
  Rng rng(6);
  Bytes page = random_bytes(rng, header.page_size);
  Bytes record;
  for (Pgno pgno = 1; pgno <= 500; ++pgno) {
    store_le32(page.data(), pgno);
    encoder.add_page(pgno, page, page_hash(pgno, page), {});
    Bytes piece = encoder.take();
    record.insert(record.end(), piece.begin(), piece.end());
  }
  encoder.finish(Checksum{1});
  Bytes rest = encoder.take();
  record.insert(record.end(), rest.begin(), rest.end());

  WatchedSource source(record);
  Result<Decoded> decoded = decode(source);
  REQUIRE(decoded.ok());
  CHECK(decoded.value().pages.size() == 500);
  CHECK(source.largest <= RecordReader::kWindowBytes);
  // Once to verify, and at most twice to decode: the largest pages cross the window's end and are
  // read again.
  CHECK(source.total <= 3 * record.size() + RecordReader::kWindowBytes);
}

TEST_CASE("verify leaves the pages where they were") {
  Bytes record = RecordMaker().next(5).bytes;
  MemoryRecordSource source(record);
  RecordReader reader = std::move(RecordReader::open(source)).value();
  REQUIRE(reader.next().value()->pgno == 1);
  REQUIRE(reader.next().value()->pgno == 2);
  REQUIRE(reader.verify().ok());
  CHECK(reader.next().value()->pgno == 3);
}
