// A change record: one committed transaction of one database.
//
// FORMAT. Fixed-size numbers are little-endian, "varint" is LEB128 of at most 64 bits.
//
//   magic          4 bytes   "LFCR"
//   version        1 byte    1; a reader refuses every other
//   flags          varint    RecordHeader::k…; a reader refuses bits that it does not know
//   database       8 bytes   database id
//   page size      1 byte    its base-2 logarithm, 9 to 16; 0 in a drop
//   size after     varint    pages; 0 in a drop, and only there
//   epoch          varint
//   txid first     varint    at least 1
//   txid more      varint    last TXID minus the first
//   wall clock     varint    milliseconds since 1970, two's complement
//   before         8 bytes   checksum before
//   origin         8 bytes   node of origin
//   group          varint    group id, 0: none
//   members        only when the group is not 0: varint count (1 to 128), then 8 bytes each,
//                  ascending: the database ids of the group's members, this one's among them
//   extension      varint length (at most 4096), then as many bytes: a reader skips them when it
//                  does not know them
//   pages, in strictly ascending order, each:
//     page number  varint    difference to the page before (to 0 for the first), so at least 1
//     encoding     1 byte    page_codec.h
//     page hash    8 bytes   of the resulting page
//     length       varint    the page size for raw, less for the others
//     bytes
//   end mark       varint 0  where a page number would stand
//   after          8 bytes   checksum after; 0 in a drop
//   record hash    8 bytes   XXH3-64 (seed 0) of all bytes before it
//
// The last 16 bytes are at a known place, so a record can be written as it is encoded and its
// checksum read without decoding it. What is not a page takes 60 to 80 bytes, a page 12 to 16 bytes
// beside its content.
//
// A record whose size_after is 0 drops the database; one with flag kCreate makes it, or replaces it
// whole (by another page size, say), and holds every page.
//
// Thread rule: encoders and readers belong to one thread.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"
#include "changelog/page_codec.h"

namespace litefs {

struct RecordHeader {
  static constexpr uint32_t kCreate = 1;  // nothing of what was there before remains
  static constexpr uint32_t kDrop = 2;    // the database is deleted: no pages, size_after 0
  static constexpr uint32_t kFlagsKnown = kCreate | kDrop;
  // SQLite attaches at most 125 databases.
  static constexpr size_t kGroupMembersMax = 128;
  static constexpr size_t kExtensionBytesMax = 4096;

  uint32_t flags = 0;
  DatabaseId database;
  uint32_t page_size = 0;  // bytes: a power of two, 512 to 65536; 0 in a drop
  Pgno size_after = 0;     // pages
  Epoch epoch;
  TxId txid_first;  // equal, unless the record is compacted
  TxId txid_last;
  int64_t wall_ms = 0;
  Checksum before;
  NodeId origin;
  uint64_t group = 0;                     // 0: not part of a group
  std::vector<DatabaseId> group_members;  // ascending, with this database; empty when group is 0
};

struct EncodedPage {
  Pgno pgno = 0;
  PageEncoding encoding = PageEncoding::kRaw;
  Checksum hash;   // of the resulting page
  ByteView bytes;  // valid until the reader is used again
};

// The trailer of a record.
struct RecordTrailer {
  static constexpr size_t kBytes = 16;
  Checksum after;
  uint64_t record_hash = 0;

  // From the last kBytes bytes of a record.
  static RecordTrailer load(const uint8_t* bytes);
};

class RecordHashState;

// Encodes a record into a growing buffer. Between pages the caller may take away what is there, so
// that a transaction of any size needs little memory; the record hash goes on.
class RecordEncoder {
 public:
  RecordEncoder(PageCodec& codec, const RecordHeader& header);
  ~RecordEncoder();
  RecordEncoder(const RecordEncoder&) = delete;
  RecordEncoder& operator=(const RecordEncoder&) = delete;

  // Pages in strictly ascending order; `previous` empty when unknown. `hash` is page_hash(pgno,
  // page).
  void add_page(Pgno pgno, ByteView page, Checksum hash, ByteView previous);
  // Writes the end mark and the trailer; nothing may be added afterwards.
  void finish(Checksum after);

  // What has been encoded since the caller last took it.
  const Bytes& buffer() const { return buffer_; }
  // Takes the buffer and leaves it empty.
  Bytes take();

 private:
  void write_header(const RecordHeader& header);

  PageCodec& codec_;
  Bytes buffer_;
  Bytes scratch_;
  uint32_t page_size_ = 0;
  Pgno size_after_ = 0;
  Pgno last_pgno_ = 0;
  bool finished_ = false;
  std::unique_ptr<RecordHashState> hash_;  // of what was taken before the end
};

// Where a reader gets its bytes from: a record in memory or in a segment.
class RecordSource {
 public:
  virtual ~RecordSource() = default;
  // Exactly out.size() bytes from the record's offset, or an error.
  virtual Status read(uint64_t offset_bytes, MutableByteView out) = 0;
  virtual uint64_t size_bytes() const = 0;
};

class MemoryRecordSource final : public RecordSource {
 public:
  explicit MemoryRecordSource(ByteView record) : record_(record) {}
  Status read(uint64_t offset_bytes, MutableByteView out) override;
  uint64_t size_bytes() const override { return record_.size(); }

 private:
  ByteView record_;
};

// Decodes and checks the header at the start of a record; more bytes may follow. Errors as
// RecordReader's.
Result<RecordHeader> decode_record_header(ByteView first_bytes);

// Reads the whole record and compares its hash: kCorrupt when it differs. `scratch` becomes as
// large as the record, RecordReader::kWindowBytes at most, and holds the last bytes that were read.
Status verify_record(RecordSource& source, Bytes& scratch);

// Reads one record with bounded memory (a window of at most kWindowBytes). open() reads and checks
// the header; next() the pages. Nothing is trusted: bounds, order, page numbers (1 … size_after,
// never the lock page), lengths. The record hash is known only at the end: verify() first, where
// the record has not been verified since it came from a disk or a peer. Refused: kUnsupported for
// another version or unknown flags, kCorrupt for everything else.
class RecordReader {
 public:
  static constexpr size_t kWindowBytes = 128u << 10;

  // The source must outlive the reader.
  static Result<RecordReader> open(RecordSource& source);

  const RecordHeader& header() const { return header_; }
  // The checksum after, from the trailer.
  Checksum after() const { return trailer_.after; }
  // Reads the whole record and compares its hash: kCorrupt when it differs. Does not move next().
  Status verify();
  // The next page, or nothing after the last one.
  Result<std::optional<EncodedPage>> next();

 private:
  explicit RecordReader(RecordSource& source) : source_(&source) {}
  Status read_header();
  Status read_trailer();
  Result<ByteView> window(uint64_t offset_bytes, size_t bytes);

  RecordSource* source_;
  RecordHeader header_;
  RecordTrailer trailer_;
  uint64_t offset_ = 0;  // of the next page
  Pgno last_pgno_ = 0;
  bool done_ = false;
  Bytes window_;  // read-ahead of the source
  uint64_t window_offset_ = 0;
};

}  // namespace litefs
