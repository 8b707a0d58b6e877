#include "changelog/segment.h"

#include <xxhash.h>

#include <algorithm>

namespace litefs {

namespace {

constexpr char kMagic[] = "LFE1";
constexpr size_t kMagicBytes = 4;
constexpr size_t kHashOffset = kEnvelopeBytes - 8;
constexpr size_t kHexDigits = 16;
constexpr char kSuffix[] = ".seg";
// Far above any file; sums of lengths and offsets cannot overflow.
constexpr uint64_t kEntryBytesMax = 1ull << 56;

Error corrupt_at(const std::string& path, uint64_t offset_bytes, const std::string& what) {
  return Error(ErrorCode::kCorrupt, "change log " + path + " at byte " + std::to_string(offset_bytes) + ": " + what);
}

Error corrupt_envelope(const char* what) { return Error(ErrorCode::kCorrupt, std::string("envelope: ") + what); }

}  // namespace

std::string SegmentName::file() const { return hex16(epoch.value) + "-" + hex16(txid.value) + kSuffix; }

std::optional<SegmentName> SegmentName::parse(const std::string& file) {
  if (file.size() != 2 * kHexDigits + 1 + sizeof kSuffix - 1) return std::nullopt;
  Result<uint64_t> epoch = parse_hex16(file.substr(0, kHexDigits));
  Result<uint64_t> txid = parse_hex16(file.substr(kHexDigits + 1, kHexDigits));
  if (!epoch.ok() || !txid.ok() || txid.value() == 0) return std::nullopt;
  SegmentName name{Epoch{epoch.value()}, TxId{txid.value()}};
  // Upper-case digits and other separators would make two names of one segment.
  if (name.file() != file) return std::nullopt;
  return name;
}

Position position_before(const LogEntryInfo& info) {
  return Position{info.before_epoch, TxId{info.txid_first.value - 1}, info.before};
}

bool begins_at(const LogEntryInfo& info, const Position& position) {
  Position before = position_before(info);
  if (before.epoch == Epoch{}) before.epoch = position.epoch;
  return before == position;
}

void encode_envelope(const Envelope& envelope, uint64_t offset_bytes, uint8_t* out) {
  const LogEntryInfo& info = envelope.info;
  std::memcpy(out, kMagic, kMagicBytes);
  store_le32(out + 4, 0);
  store_le64(out + 8, info.record_bytes);
  store_le64(out + 16, envelope.entry_before_bytes);
  store_le64(out + 24, info.position.epoch.value);
  store_le64(out + 32, info.before_epoch.value);
  store_le64(out + 40, info.txid_first.value);
  store_le64(out + 48, info.position.txid.value);
  store_le64(out + 56, info.before.value);
  store_le64(out + 64, info.position.checksum.value);
  store_le64(out + 72, static_cast<uint64_t>(info.wall_ms));
  std::memcpy(out + 80, info.note.data(), info.note.size());
  store_le64(out + kHashOffset, XXH3_64bits_withSeed(out, kHashOffset, offset_bytes));
}

Result<Envelope> decode_envelope(ByteView bytes, uint64_t offset_bytes) {
  if (bytes.size() < kEnvelopeBytes) return corrupt_envelope("cut short");
  const uint8_t* p = bytes.data();
  if (std::memcmp(p, kMagic, kMagicBytes) != 0) return corrupt_envelope("wrong magic");
  if (load_le64(p + kHashOffset) != XXH3_64bits_withSeed(p, kHashOffset, offset_bytes)) {
    return corrupt_envelope("its hash does not fit its bytes");
  }
  Envelope envelope;
  LogEntryInfo& info = envelope.info;
  info.record_bytes = load_le64(p + 8);
  envelope.entry_before_bytes = load_le64(p + 16);
  info.position.epoch.value = load_le64(p + 24);
  info.before_epoch.value = load_le64(p + 32);
  info.txid_first.value = load_le64(p + 40);
  info.position.txid.value = load_le64(p + 48);
  info.before.value = load_le64(p + 56);
  info.position.checksum.value = load_le64(p + 64);
  info.wall_ms = static_cast<int64_t>(load_le64(p + 72));
  std::memcpy(info.note.data(), p + 80, info.note.size());
  if (load_le32(p + 4) != 0) return corrupt_envelope("unknown flags");
  if (info.record_bytes < RecordTrailer::kBytes || info.record_bytes > kEntryBytesMax ||
      envelope.entry_before_bytes > offset_bytes) {
    return corrupt_envelope("impossible length");
  }
  if (info.txid_first.value == 0 || info.position.txid < info.txid_first || info.position.epoch < info.before_epoch) {
    return corrupt_envelope("impossible position");
  }
  return envelope;
}

Status SegmentReader::read(uint64_t offset_bytes, MutableByteView out) {
  if (offset_bytes > limit_bytes_ || out.size() > limit_bytes_ - offset_bytes) {
    return corrupt_at(path(), offset_bytes, "ends early");
  }
  uint64_t end = offset_bytes + out.size();
  if (offset_bytes < window_offset_ || end > window_offset_ + window_.size()) {
    // Large reads would only push everything else out of the window.
    if (out.size() > kWindowBytes / 2) return file_->read_exactly(offset_bytes, out);
    bool backwards = !window_.empty() && offset_bytes < window_offset_;
    uint64_t start = backwards ? end - std::min<uint64_t>(end, kWindowBytes) : offset_bytes;
    window_.resize(static_cast<size_t>(std::min<uint64_t>(limit_bytes_ - start, kWindowBytes)));
    window_offset_ = start;
    Status read = file_->read_exactly(start, window_);
    if (!read.ok()) {
      window_.clear();
      return read;
    }
  }
  if (!out.empty()) {
    std::memcpy(out.data(), window_.data() + (offset_bytes - window_offset_), out.size());
  }
  return {};
}

void SegmentReader::release() {
  window_ = Bytes();
  window_offset_ = 0;
}

Status SegmentRecordSource::read(uint64_t offset_bytes, MutableByteView out) {
  if (offset_bytes > size_bytes_ || out.size() > size_bytes_ - offset_bytes) {
    return corrupt_at(reader_->path(), offset_bytes_, "read beyond the end of its record");
  }
  return reader_->read(offset_bytes_ + offset_bytes, out);
}

Result<SegmentEntry> read_entry(SegmentReader& reader, uint64_t offset_bytes) {
  uint8_t bytes[kEnvelopeBytes];
  TRY(reader.read(offset_bytes, bytes));
  Result<Envelope> envelope = decode_envelope(bytes, offset_bytes);
  if (!envelope.ok()) return corrupt_at(reader.path(), offset_bytes, envelope.error().message());
  SegmentEntry entry{offset_bytes, envelope.value()};
  if (entry.end_bytes() > reader.limit_bytes()) {
    return corrupt_at(reader.path(), offset_bytes, "its record ends beyond the segment");
  }
  return entry;
}

Status check_follows(const SegmentEntry& entry, const SegmentEntry& before, const std::string& path) {
  if (entry.envelope.entry_before_bytes != before.size_bytes() ||
      position_before(entry.envelope.info) != before.envelope.info.position) {
    return corrupt_at(path, entry.offset_bytes, "does not follow the entry before it");
  }
  return {};
}

Status check_record_agrees(const LogEntryInfo& info, const RecordHeader& header, Checksum after) {
  if (header.epoch != info.position.epoch || header.txid_first != info.txid_first ||
      header.txid_last != info.position.txid || header.before != info.before || after != info.position.checksum) {
    return Error(ErrorCode::kInvalid, "the record at " + position_text(info.position) + " stands at another position");
  }
  return {};
}

Status check_record(SegmentReader& reader, const SegmentEntry& entry) {
  const LogEntryInfo& info = entry.envelope.info;
  SegmentRecordSource source(reader, entry.record_offset_bytes(), info.record_bytes);
  Bytes scratch;
  // The hash comes first: in a torn record everything else, the format version too, may be
  // anything.
  Status verified = verify_record(source, scratch);
  if (!verified.ok()) {
    if (verified.error().code() != ErrorCode::kCorrupt) return verified;
    return corrupt_at(reader.path(), entry.offset_bytes, verified.error().message());
  }
  RecordReader record = TRY(RecordReader::open(source));
  Status agrees = check_record_agrees(info, record.header(), record.after());
  if (!agrees.ok()) return corrupt_at(reader.path(), entry.offset_bytes, agrees.error().message());
  return {};
}

}  // namespace litefs
