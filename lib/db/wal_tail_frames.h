// The tail's window of frames, as it reads them from the WAL. Only wal_tail.cc and
// wal_tail_chain.cc include this. Thread rule: the tail's.
#pragma once

#include <algorithm>
#include <cstring>

#include "db/wal_tail.h"

namespace litefs {

// A window of frames read from the WAL, and the generation they are of.
class WalTail::Frames {
 public:
  static constexpr size_t kReadBytes = 256u << 10;

  Frames(File& wal, const WalHeader& header, Bytes& buffer) : wal_(wal), header_(header), buffer_(buffer) {
    size_t frames = std::max<size_t>(1, kReadBytes / header.frame_bytes());
    if (buffer_.size() < frames * header.frame_bytes()) buffer_.resize(frames * header.frame_bytes());
    capacity_ = static_cast<uint32_t>(buffer_.size() / header.frame_bytes());
  }

  // The frame, read with those behind it up to `last`; nothing where the file ends before its end.
  // Frames from `keep_from` on stay in the window where they take no more than half of it.
  Result<std::optional<ByteView>> get(uint32_t frame, uint32_t last, uint32_t keep_from) {
    if (frame < first_ || frame >= first_ + count_) {
      uint32_t kept = 0;
      if (frame == first_ + count_ && keep_from >= first_ && keep_from < frame && frame - keep_from <= capacity_ / 2) {
        kept = frame - keep_from;
        std::memmove(buffer_.data(), at(keep_from), kept * header_.frame_bytes());
      }
      uint32_t want = std::min(capacity_ - kept, last - frame + 1);
      MutableByteView out(buffer_.data() + kept * header_.frame_bytes(), want * header_.frame_bytes());
      size_t got = TRY(wal_.read_at(header_.frame_offset(frame), out));
      first_ = frame - kept;
      count_ = kept + static_cast<uint32_t>(got / header_.frame_bytes());
      if (frame >= first_ + count_) return std::optional<ByteView>();
    }
    return std::optional<ByteView>(ByteView(at(frame), header_.frame_bytes()));
  }

  File& wal() { return wal_; }
  const WalHeader& header() const { return header_; }
  uint32_t first() const { return first_; }
  ByteView window() const { return ByteView(buffer_.data(), count_ * header_.frame_bytes()); }

 private:
  uint8_t* at(uint32_t frame) { return buffer_.data() + (frame - first_) * header_.frame_bytes(); }

  File& wal_;
  const WalHeader& header_;
  Bytes& buffer_;
  uint32_t capacity_ = 0;
  uint32_t first_ = 1;
  uint32_t count_ = 0;
};

}  // namespace litefs
