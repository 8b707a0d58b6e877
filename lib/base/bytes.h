// Loads, stores and bounds-checked cursors over bytes. SQLite's formats are big-endian, ours
// little-endian; both are spelled out at each use. Varints are LEB128, at most 10 bytes.
// Thread rule: plain values, any thread.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace litefs {

using Bytes = std::vector<uint8_t>;
using ByteView = std::span<const uint8_t>;
using MutableByteView = std::span<uint8_t>;

static_assert(std::endian::native == std::endian::little, "only little-endian machines are supported");

inline uint16_t load_be16(const uint8_t* p) { return static_cast<uint16_t>(p[0] << 8 | p[1]); }
inline uint32_t load_be32(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return __builtin_bswap32(v);
}
inline uint32_t load_le32(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}
inline uint64_t load_le64(const uint8_t* p) {
  uint64_t v;
  std::memcpy(&v, p, 8);
  return v;
}
inline void store_be16(uint8_t* p, uint16_t v) {
  p[0] = static_cast<uint8_t>(v >> 8);
  p[1] = static_cast<uint8_t>(v);
}
inline void store_be32(uint8_t* p, uint32_t v) {
  v = __builtin_bswap32(v);
  std::memcpy(p, &v, 4);
}
inline void store_le32(uint8_t* p, uint32_t v) { std::memcpy(p, &v, 4); }
inline void store_le64(uint8_t* p, uint64_t v) { std::memcpy(p, &v, 8); }

// Appends to a Bytes that the caller owns.
class ByteWriter {
 public:
  explicit ByteWriter(Bytes& out) : out_(out) {}

  void u8(uint8_t v) { out_.push_back(v); }
  void le32(uint32_t v) { append(&v, 4); }
  void le64(uint64_t v) { append(&v, 8); }
  void varint(uint64_t v) {
    while (v >= 0x80) {
      out_.push_back(static_cast<uint8_t>(v | 0x80));
      v >>= 7;
    }
    out_.push_back(static_cast<uint8_t>(v));
  }
  void bytes(ByteView v) { append(v.data(), v.size()); }
  // varint length, then the bytes
  void string(std::string_view v) {
    varint(v.size());
    append(v.data(), v.size());
  }

 private:
  void append(const void* p, size_t n) {
    const uint8_t* b = static_cast<const uint8_t*>(p);
    out_.insert(out_.end(), b, b + n);
  }

  Bytes& out_;
};

// Reads from a view; every read is bounds-checked and answers kCorrupt past the end. `what` names the
// thing being decoded, for the message.
class ByteReader {
 public:
  ByteReader(ByteView in, const char* what) : in_(in), what_(what) {}

  size_t offset() const { return offset_; }
  size_t remaining() const { return in_.size() - offset_; }
  bool at_end() const { return offset_ == in_.size(); }

  Result<uint8_t> u8() {
    if (remaining() < 1) return truncated();
    return in_[offset_++];
  }
  Result<uint32_t> le32() {
    if (remaining() < 4) return truncated();
    offset_ += 4;
    return load_le32(in_.data() + offset_ - 4);
  }
  Result<uint64_t> le64() {
    if (remaining() < 8) return truncated();
    offset_ += 8;
    return load_le64(in_.data() + offset_ - 8);
  }
  Result<uint64_t> varint() {
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (remaining() < 1) return truncated();
      uint8_t b = in_[offset_++];
      if (shift == 63 && b > 1) break;
      v |= static_cast<uint64_t>(b & 0x7f) << shift;
      if (!(b & 0x80)) return v;
    }
    return Error(ErrorCode::kCorrupt, std::string(what_) + ": a number is longer than 64 bits");
  }
  Result<ByteView> bytes(size_t n) {
    if (remaining() < n) return truncated();
    offset_ += n;
    return in_.subspan(offset_ - n, n);
  }
  Result<std::string> string(size_t bytes_max) {
    uint64_t n = TRY(varint());
    if (n > bytes_max) {
      return Error(ErrorCode::kCorrupt, std::string(what_) + ": a string is longer than allowed");
    }
    ByteView v = TRY(bytes(static_cast<size_t>(n)));
    return std::string(reinterpret_cast<const char*>(v.data()), v.size());
  }

 private:
  Error truncated() const {
    return Error(ErrorCode::kCorrupt, std::string(what_) + ": ends early at byte " + std::to_string(offset_));
  }

  ByteView in_;
  const char* what_;
  size_t offset_ = 0;
};

inline ByteView as_bytes(std::string_view s) { return ByteView(reinterpret_cast<const uint8_t*>(s.data()), s.size()); }

}  // namespace litefs
