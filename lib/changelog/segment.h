// One segment of a change log: its name, the envelope of an entry, and reading entries. The format
// is specified in change_log.h; this header is used by the change log alone.
//
// Thread rule: plain values and functions; a SegmentReader belongs to one thread.
#pragma once

#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/types.h"
#include "changelog/change_log.h"
#include "changelog/record.h"
#include "env/file.h"

namespace litefs {

constexpr size_t kEnvelopeBytes = 112;

struct SegmentName {
  Epoch epoch;
  TxId txid;
  auto operator<=>(const SegmentName&) const = default;

  std::string file() const;
  // Nothing for a file that is no segment.
  static std::optional<SegmentName> parse(const std::string& file);
};

struct Envelope {
  LogEntryInfo info;
  uint64_t entry_before_bytes = 0;  // envelope and record of the entry before in this segment; 0: the first
};

// The position that the entry follows.
Position position_before(const LogEntryInfo& info);
// Whether it is `position`, where the epoch counts only when it is known.
bool begins_at(const LogEntryInfo& info, const Position& position);

// Writes kEnvelopeBytes for an envelope that stands at `offset_bytes` of its segment.
void encode_envelope(const Envelope& envelope, uint64_t offset_bytes, uint8_t* out);
// kCorrupt for anything that encode_envelope would not write at that offset.
Result<Envelope> decode_envelope(ByteView bytes, uint64_t offset_bytes);

// Reads of a segment's first `limit_bytes` bytes through a window, forwards or backwards. The bytes
// below the limit must not change.
class SegmentReader {
 public:
  static constexpr size_t kWindowBytes = 64u << 10;

  SegmentReader(File& file, uint64_t limit_bytes) : file_(&file), limit_bytes_(limit_bytes) {}

  // Exactly out.size() bytes; kCorrupt beyond the limit.
  Status read(uint64_t offset_bytes, MutableByteView out);
  uint64_t limit_bytes() const { return limit_bytes_; }
  void raise_limit(uint64_t limit_bytes) { limit_bytes_ = limit_bytes; }
  // Gives the window's memory back.
  void release();
  const std::string& path() const { return file_->path(); }

 private:
  File* file_;
  uint64_t limit_bytes_;
  Bytes window_;
  uint64_t window_offset_ = 0;
};

// The record of an entry in a segment.
class SegmentRecordSource final : public RecordSource {
 public:
  SegmentRecordSource(SegmentReader& reader, uint64_t offset_bytes, uint64_t size_bytes)
      : reader_(&reader), offset_bytes_(offset_bytes), size_bytes_(size_bytes) {}
  Status read(uint64_t offset_bytes, MutableByteView out) override;
  uint64_t size_bytes() const override { return size_bytes_; }

 private:
  SegmentReader* reader_;
  uint64_t offset_bytes_;
  uint64_t size_bytes_;
};

// An entry and where it stands.
struct SegmentEntry {
  uint64_t offset_bytes = 0;  // of the envelope
  Envelope envelope;

  uint64_t record_offset_bytes() const { return offset_bytes + kEnvelopeBytes; }
  uint64_t size_bytes() const { return kEnvelopeBytes + envelope.info.record_bytes; }
  uint64_t end_bytes() const { return offset_bytes + size_bytes(); }
};

// The entry whose envelope stands at `offset_bytes`, below the reader's limit as a whole; its
// record is not read. kCorrupt names the segment and the offset.
Result<SegmentEntry> read_entry(SegmentReader& reader, uint64_t offset_bytes);

// Whether `entry` may stand right behind `before` in one segment: kCorrupt when not.
Status check_follows(const SegmentEntry& entry, const SegmentEntry& before, const std::string& path);

// Whether a record's header and trailer say what its envelope says: kInvalid when not.
Status check_record_agrees(const LogEntryInfo& info, const RecordHeader& header, Checksum after);

// Reads the entry's record, and compares its hash and what it says with the envelope: kCorrupt when
// they differ.
Status check_record(SegmentReader& reader, const SegmentEntry& entry);

}  // namespace litefs
