// A change record: one committed transaction of one database.
//
// (The byte-exact format is specified here by whoever implements it: magic, format version, flags, database
// id, page size, size in pages after, epoch, TXID range, wall clock, checksum before, node of origin, group
// id, extension area (length-prefixed, skipped by readers that do not know it); pages ascending, each (page
// number as difference, encoding, page hash, length, bytes); an end mark; the checksum after; XXH3-64 over
// all bytes before it. The last 16 bytes of a record are always checksum after and record hash, little-endian,
// so that a record can be written as it is encoded and its position read without decoding it.)
//
// A record whose size_after is 0 drops the database; one with before-checksum 0 and flag kCreate makes it.
// Thread rule: encoders and readers belong to one thread.
#pragma once

#include <functional>
#include <optional>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"
#include "changelog/page_codec.h"

namespace litefs {

struct RecordHeader {
  static constexpr uint32_t kCreate = 1;  // the first record of the database `database`
  static constexpr uint32_t kDrop = 2;    // the database is deleted: no pages, size_after 0

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
  uint64_t group = 0;  // 0: not part of a group
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
};

// Encodes a record into a growing buffer. Between pages the caller may take away what is there (write it
// out and clear `buffer()`), so that a transaction of any size needs little memory; the record hash goes on.
class RecordEncoder {
 public:
  RecordEncoder(PageCodec& codec, const RecordHeader& header);

  // Pages in strictly ascending order; `previous` empty when unknown. `hash` is page_hash(pgno, page).
  void add_page(Pgno pgno, ByteView page, Checksum hash, ByteView previous);
  // Writes the end mark and the trailer; nothing may be added afterwards.
  void finish(Checksum after);

  // What has been encoded since the caller last took it.
  Bytes& buffer() { return buffer_; }
  // Takes the buffer and leaves it empty (the hash covers it already).
  Bytes take();

 private:
  void absorb();  // feeds what is new in the buffer to the record hash

  PageCodec& codec_;
  Bytes buffer_;
  Bytes scratch_;
  Pgno last_pgno_ = 0;
  struct HashState;
  std::shared_ptr<HashState> hash_;
  size_t hashed_ = 0;  // bytes of buffer_ already in the hash
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

// Reads one record with bounded memory. open() reads and checks the header; next() the pages. Nothing is
// trusted: bounds, order, page numbers (1 … size_after, never the lock page), lengths. The record hash is
// known only at the end: verify() first, where the record has not been verified since it came from a disk or
// a peer.
class RecordReader {
 public:
  static Result<RecordReader> open(RecordSource& source);

  const RecordHeader& header() const { return header_; }
  // The checksum after, from the trailer.
  Checksum after() const { return after_; }
  // Reads the whole record and compares its hash: kCorrupt when it differs. Does not move next().
  Status verify();
  // The next page, or nothing after the last one.
  Result<std::optional<EncodedPage>> next();

 private:
  explicit RecordReader(RecordSource& source) : source_(&source) {}
  Result<ByteView> window(uint64_t offset_bytes, size_t bytes);

  RecordSource* source_;
  RecordHeader header_;
  Checksum after_;
  uint64_t offset_ = 0;  // of the next page
  Pgno last_pgno_ = 0;
  bool done_ = false;
  Bytes window_;  // read-ahead of the source
  uint64_t window_offset_ = 0;
};

}  // namespace litefs
