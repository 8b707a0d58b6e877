// Inside of the protocol's codec, shared by its .cc files; everybody else includes repl/wire.h.
#pragma once

#include <string>
#include <string_view>

#include "repl/wire.h"

namespace litefs::wire {

// Writes a frame's header first, its length at the end, when it is known.
class FrameBuilder {
 public:
  FrameBuilder(Bytes& out, FrameType type) : out_(out), start_(out.size()) {
    out_.resize(start_ + kFrameHeaderBytes);
    out_[start_ + 4] = static_cast<uint8_t>(type);
  }
  // `following` bytes of payload come after what stands here.
  void finish(size_t following = 0) {
    size_t bytes = out_.size() - start_ - kFrameHeaderBytes + following;
    CHECK_LE(bytes, frame_payload_max(out_[start_ + 4]).value());
    store_le32(out_.data() + start_, static_cast<uint32_t>(bytes));
  }

 private:
  Bytes& out_;
  size_t start_;
};

inline Error bad(const char* frame, const char* what) {
  return Error(ErrorCode::kCorrupt, std::string(frame) + ": " + what);
}

inline constexpr size_t kPositionBytesMax = 28;

inline void put_position(ByteWriter& w, const Position& p) {
  w.varint(p.epoch.value);
  w.varint(p.txid.value);
  w.le64(p.checksum.value);
}

inline Result<Position> get_position(ByteReader& r) {
  Position p;
  p.epoch.value = TRY(r.varint());
  p.txid.value = TRY(r.varint());
  p.checksum.value = TRY(r.le64());
  return p;
}

inline Result<int64_t> get_time(ByteReader& r, const char* frame) {
  uint64_t v = TRY(r.varint());
  if (v > INT64_MAX) return bad(frame, "a time is out of range");
  return static_cast<int64_t>(v);
}

inline uint64_t time_bits(int64_t ms) { return ms < 0 ? 0 : static_cast<uint64_t>(ms); }

inline Status at_end(const ByteReader& r, const char* frame) {
  if (!r.at_end()) return bad(frame, "has bytes behind its end");
  return {};
}

// Cuts at the limit, so that a long message of ours never makes a frame that the peer must refuse.
inline std::string_view bounded(std::string_view text) { return text.substr(0, kTextBytesMax); }

}  // namespace litefs::wire
