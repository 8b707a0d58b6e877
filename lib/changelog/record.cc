#include "changelog/record.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>

namespace litefs {

namespace {

constexpr char kMagic[] = "LFCR";
constexpr size_t kMagicBytes = 4;
constexpr uint8_t kVersion = 1;
// Above the longest header: 9 numbers of at most 10 bytes, fixed fields, members, extension.
constexpr size_t kHeaderBytesMax = 128 + 8 * RecordHeader::kGroupMembersMax + RecordHeader::kExtensionBytesMax;
constexpr size_t kPageHeadBytesMax = 10 + 1 + 8 + 10;
constexpr size_t kRecordHashBytes = 8;

static_assert(RecordReader::kWindowBytes >= kHeaderBytesMax);
static_assert(RecordReader::kWindowBytes >= kPageHeadBytesMax + kPageBytesMax);

Error corrupt(const std::string& what) { return Error(ErrorCode::kCorrupt, "change record: " + what); }

// sqlite/header.h's lock_page, which is a room above.
Pgno page_of_lock_bytes(uint32_t page_size) { return (1u << 30) / page_size + 1; }

Result<uint32_t> u32_varint(ByteReader& in, const char* name) {
  uint64_t v = TRY(in.varint());
  if (v > UINT32_MAX) return corrupt(std::string(name) + " is out of range");
  return static_cast<uint32_t>(v);
}

Result<uint32_t> decode_page_size(ByteReader& in) {
  uint8_t log2 = TRY(in.u8());
  if (log2 == 0) return 0u;
  uint32_t size = log2 < 32 ? 1u << log2 : 0;
  if (size < kPageBytesMin || size > kPageBytesMax) return corrupt("impossible page size");
  return size;
}

Status decode_members(ByteReader& in, RecordHeader& header) {
  uint64_t count = TRY(in.varint());
  if (count == 0 || count > RecordHeader::kGroupMembersMax) return corrupt("impossible number of group members");
  bool has_this = false;
  for (uint64_t i = 0; i < count; ++i) {
    DatabaseId member{TRY(in.le64())};
    if (i > 0 && !(header.group_members.back() < member)) return corrupt("group members are not in order");
    has_this = has_this || member == header.database;
    header.group_members.push_back(member);
  }
  if (!has_this) return corrupt("its database is no member of its group");
  return {};
}

Status check_header(const RecordHeader& header) {
  bool drop = (header.flags & RecordHeader::kDrop) != 0;
  if (drop != (header.size_after == 0) || drop != (header.page_size == 0)) {
    return corrupt("size or page size is 0 without a drop, or not 0 in one");
  }
  if (drop && (header.flags & RecordHeader::kCreate) != 0) return corrupt("both a creation and a drop");
  return {};
}

Result<RecordHeader> decode_header(ByteReader& in) {
  ByteView magic = TRY(in.bytes(kMagicBytes));
  if (std::memcmp(magic.data(), kMagic, kMagicBytes) != 0) return corrupt("wrong magic");
  uint8_t version = TRY(in.u8());
  if (version != kVersion) {
    return Error(ErrorCode::kUnsupported, "change record of format version " + std::to_string(version));
  }
  RecordHeader header;
  header.flags = TRY(u32_varint(in, "flags"));
  if ((header.flags & ~RecordHeader::kFlagsKnown) != 0) {
    return Error(ErrorCode::kUnsupported, "change record with flags " + std::to_string(header.flags));
  }
  header.database.value = TRY(in.le64());
  header.page_size = TRY(decode_page_size(in));
  header.size_after = TRY(u32_varint(in, "size"));
  header.epoch.value = TRY(in.varint());
  header.txid_first.value = TRY(in.varint());
  uint64_t more = TRY(in.varint());
  if (header.txid_first.value == 0 || more > UINT64_MAX - header.txid_first.value) {
    return corrupt("impossible TXIDs");
  }
  header.txid_last.value = header.txid_first.value + more;
  header.wall_ms = static_cast<int64_t>(TRY(in.varint()));
  header.before.value = TRY(in.le64());
  header.origin.value = TRY(in.le64());
  header.group = TRY(in.varint());
  if (header.group != 0) TRY(decode_members(in, header));
  TRY(in.string(RecordHeader::kExtensionBytesMax));
  TRY(check_header(header));
  return header;
}

}  // namespace

class RecordHashState {
 public:
  RecordHashState() : state_(XXH3_createState()) {
    CHECK(state_ != nullptr);
    XXH3_64bits_reset(state_);
  }
  ~RecordHashState() { XXH3_freeState(state_); }
  RecordHashState(const RecordHashState&) = delete;
  RecordHashState& operator=(const RecordHashState&) = delete;

  void update(ByteView bytes) { XXH3_64bits_update(state_, bytes.data(), bytes.size()); }
  uint64_t digest() const { return XXH3_64bits_digest(state_); }

 private:
  XXH3_state_t* state_;
};

RecordTrailer RecordTrailer::load(const uint8_t* bytes) {
  return RecordTrailer{Checksum{load_le64(bytes)}, load_le64(bytes + 8)};
}

RecordEncoder::RecordEncoder(PageCodec& codec, const RecordHeader& header)
    : codec_(codec), page_size_(header.page_size), size_after_(header.size_after) {
  CHECK(check_header(header).ok());
  CHECK_GT(header.txid_first.value, 0u);
  CHECK_LE(header.txid_first.value, header.txid_last.value);
  write_header(header);
}

RecordEncoder::~RecordEncoder() = default;

void RecordEncoder::write_header(const RecordHeader& header) {
  ByteWriter out(buffer_);
  out.bytes(as_bytes(std::string_view(kMagic, kMagicBytes)));
  out.u8(kVersion);
  out.varint(header.flags);
  out.le64(header.database.value);
  out.u8(header.page_size == 0 ? 0 : static_cast<uint8_t>(std::countr_zero(header.page_size)));
  out.varint(header.size_after);
  out.varint(header.epoch.value);
  out.varint(header.txid_first.value);
  out.varint(header.txid_last.value - header.txid_first.value);
  out.varint(static_cast<uint64_t>(header.wall_ms));
  out.le64(header.before.value);
  out.le64(header.origin.value);
  out.varint(header.group);
  if (header.group != 0) {
    const std::vector<DatabaseId>& members = header.group_members;
    CHECK_LE(members.size(), RecordHeader::kGroupMembersMax);
    CHECK(std::is_sorted(members.begin(), members.end()));
    CHECK(std::adjacent_find(members.begin(), members.end()) == members.end());
    CHECK(std::binary_search(members.begin(), members.end(), header.database));
    out.varint(members.size());
    for (DatabaseId member : members) out.le64(member.value);
  }
  out.varint(0);  // extension area
}

void RecordEncoder::add_page(Pgno pgno, ByteView page, Checksum hash, ByteView previous) {
  CHECK(!finished_);
  CHECK_GT(pgno, last_pgno_);
  CHECK_LE(pgno, size_after_);
  CHECK_EQ(page.size(), page_size_);
  CHECK_NE(pgno, page_of_lock_bytes(page_size_));
  scratch_.clear();
  PageEncoding encoding = codec_.encode(page, previous, scratch_);
  ByteWriter out(buffer_);
  out.varint(pgno - last_pgno_);
  out.u8(static_cast<uint8_t>(encoding));
  out.le64(hash.value);
  out.varint(scratch_.size());
  out.bytes(scratch_);
  last_pgno_ = pgno;
}

void RecordEncoder::finish(Checksum after) {
  CHECK(!finished_);
  CHECK(size_after_ > 0 || after == Checksum{});
  ByteWriter out(buffer_);
  out.varint(0);
  out.le64(after.value);
  // Most records are small and stay in the buffer until their end: one pass then, and no hash
  // state.
  uint64_t hash;
  if (hash_) {
    hash_->update(buffer_);
    hash = hash_->digest();
  } else {
    hash = XXH3_64bits(buffer_.data(), buffer_.size());
  }
  out.le64(hash);
  finished_ = true;
}

Bytes RecordEncoder::take() {
  if (!finished_) {
    if (!hash_) hash_ = std::make_unique<RecordHashState>();
    hash_->update(buffer_);
  }
  Bytes taken;
  taken.swap(buffer_);
  return taken;
}

Status MemoryRecordSource::read(uint64_t offset_bytes, MutableByteView out) {
  if (offset_bytes > record_.size() || out.size() > record_.size() - offset_bytes) {
    return corrupt("read beyond its end");
  }
  if (!out.empty()) std::memcpy(out.data(), record_.data() + offset_bytes, out.size());
  return {};
}

Result<RecordHeader> decode_record_header(ByteView first_bytes) {
  ByteReader in(first_bytes, "change record header");
  return decode_header(in);
}

Status verify_record(RecordSource& source, Bytes& scratch) {
  uint64_t size = source.size_bytes();
  if (size < RecordTrailer::kBytes) return corrupt("shorter than a trailer");
  std::optional<RecordHashState> state;
  uint64_t hash = 0;
  uint8_t stored[kRecordHashBytes];
  TRY(source.read(size - sizeof stored, stored));
  uint64_t end = size - sizeof stored;
  for (uint64_t at = 0; at < end; at += scratch.size()) {
    scratch.resize(static_cast<size_t>(std::min<uint64_t>(end - at, RecordReader::kWindowBytes)));
    TRY(source.read(at, scratch));
    if (scratch.size() == end) {
      hash = XXH3_64bits(scratch.data(), scratch.size());
    } else {
      if (!state) state.emplace();
      state->update(scratch);
    }
  }
  if (state) hash = state->digest();
  if (hash != load_le64(stored)) return corrupt("its hash does not fit its bytes");
  return {};
}

Result<RecordReader> RecordReader::open(RecordSource& source) {
  RecordReader reader(source);
  TRY(reader.read_header());
  TRY(reader.read_trailer());
  return reader;
}

Status RecordReader::read_header() {
  uint64_t size = source_->size_bytes();
  if (size < RecordTrailer::kBytes) return corrupt("shorter than a trailer");
  size_t bytes = static_cast<size_t>(std::min<uint64_t>(size - RecordTrailer::kBytes, kHeaderBytesMax));
  ByteReader in(TRY(window(0, bytes)), "change record header");
  header_ = TRY(decode_header(in));
  offset_ = in.offset();
  return {};
}

Status RecordReader::read_trailer() {
  uint8_t bytes[RecordTrailer::kBytes];
  TRY(source_->read(source_->size_bytes() - sizeof bytes, bytes));
  trailer_ = RecordTrailer::load(bytes);
  if (header_.size_after == 0 && trailer_.after != Checksum{}) return corrupt("a drop leaves a checksum");
  return {};
}

// `bytes` bytes at `offset_bytes`, which the caller knows to be in the record; valid until the next
// call.
Result<ByteView> RecordReader::window(uint64_t offset_bytes, size_t bytes) {
  if (offset_bytes < window_offset_ || offset_bytes + bytes > window_offset_ + window_.size()) {
    uint64_t rest = source_->size_bytes() - offset_bytes;
    window_.resize(static_cast<size_t>(std::min<uint64_t>(rest, kWindowBytes)));
    window_offset_ = offset_bytes;
    Status read = source_->read(offset_bytes, window_);
    if (!read.ok()) {
      window_.clear();
      return read.error();
    }
  }
  return ByteView(window_).subspan(static_cast<size_t>(offset_bytes - window_offset_), bytes);
}

Status RecordReader::verify() {
  Bytes scratch;
  scratch.swap(window_);
  TRY(verify_record(*source_, scratch));
  if (source_->size_bytes() <= kWindowBytes) {
    // What was read is the whole record: next() need not read it again.
    window_.swap(scratch);
    window_offset_ = 0;
  }
  return {};
}

Result<std::optional<EncodedPage>> RecordReader::next() {
  if (done_) return std::optional<EncodedPage>();
  uint64_t end = source_->size_bytes() - RecordTrailer::kBytes;
  size_t head_bytes = static_cast<size_t>(std::min<uint64_t>(end - offset_, kPageHeadBytesMax));
  ByteReader in(TRY(window(offset_, head_bytes)), "page of a change record");
  uint64_t difference = TRY(in.varint());
  if (difference == 0) {
    if (offset_ + in.offset() != end) return corrupt("bytes after its last page");
    done_ = true;
    return std::optional<EncodedPage>();
  }
  if (difference > header_.size_after - last_pgno_) return corrupt("a page number beyond the database's size");
  EncodedPage page;
  page.pgno = last_pgno_ + static_cast<Pgno>(difference);
  if (page.pgno == page_of_lock_bytes(header_.page_size)) return corrupt("it holds the lock page");
  uint8_t encoding = TRY(in.u8());
  if (encoding > static_cast<uint8_t>(PageEncoding::kDelta)) return corrupt("unknown page encoding");
  page.encoding = static_cast<PageEncoding>(encoding);
  page.hash.value = TRY(in.le64());
  uint64_t length = TRY(in.varint());
  bool raw = page.encoding == PageEncoding::kRaw;
  if (raw ? length != header_.page_size : length >= header_.page_size) return corrupt("impossible page length");
  uint64_t bytes_at = offset_ + in.offset();
  if (length > end - bytes_at) return corrupt("a page ends beyond the record");
  page.bytes = TRY(window(bytes_at, static_cast<size_t>(length)));
  offset_ = bytes_at + length;
  last_pgno_ = page.pgno;
  return std::optional<EncodedPage>(page);
}

}  // namespace litefs
