// The tail where no wal-index is in use: the chain of frame checksums says what is committed
// (sqlite/tail.h).
#include "db/wal_tail_frames.h"

namespace litefs {
namespace {

// Reading a transaction again and again while it is being written takes at most a fifth of a
// processor.
constexpr uint64_t kLongChainBytes = 1u << 20;
constexpr int64_t kRestFactor = 4;

}  // namespace

bool WalTail::index_unlinked() {
  if (!shm_) return false;
  Result<FileInfo> info = shm_->info();
  return info.ok() && info.value().links == 0;
}

Status WalTail::look_at_anchor(TailInput& input) {
  if (!input.wal || input.wal->salts != anchor_.salts || anchor_.frame == 0) return {};
  uint8_t bytes[kWalFrameHeaderBytes];
  size_t n = TRY(wal_->read_at(input.wal->frame_offset(anchor_.frame), bytes));
  if (n == sizeof bytes) input.at_anchor = WalChecksum{load_be32(bytes + 16), load_be32(bytes + 20)};
  if (input.at_anchor == anchor_.checksum) return {};
  // Has the WAL been truncated or begun anew between the two reads? Its header goes first.
  input.wal = TRY(read_wal_header());
  return {};
}

Result<WalTail::Outcome> WalTail::deliver_chain(const WalAnchor& from, const Deliver& deliver,
                                                const DrainOptions& options) {
  const int64_t began_ns = clock_.monotonic_ns();
  if (!options.patient && began_ns < chain_not_before_ns_) {
    holds_commit_ = true;
    return Outcome::kIdle;
  }
  uint8_t header[kWalFrameHeaderBytes];
  size_t n = TRY(wal_->read_at(header_.frame_offset(from.frame + 1), header));
  if (n != sizeof header || load_salts(header + 8) != header_.salts) return Outcome::kIdle;

  Frames frames(*wal_, header_, buffer_);
  WalChecksum running = from.checksum;
  uint32_t first = from.frame + 1;  // of the transaction being read
  std::vector<Transaction::Page> pages;
  WalAnchor end;  // of the transaction being read, once its commit frame has been: frame 0 before
  Pgno size_after = 0;
  Outcome outcome = Outcome::kIdle;
  uint32_t at = first;
  for (; at != 0; ++at) {
    std::optional<ByteView> bytes = TRY(frames.get(at, UINT32_MAX, first));
    std::optional<WalFrame> frame;
    if (bytes) frame = WalFrame::verify(header_, *bytes, running);
    if (!frame) break;
    // A frame that goes on from a commit says that SQLite does, too. Not so a commit frame that
    // repeats the one before it: that is padding up to a sector, written before the sync.
    if (end.frame != 0 && !(frame->commit_size == size_after && frame->pgno == pages.back().pgno &&
                            TRY(repeats_frame_before(at, *bytes)))) {
      TRY(deliver_one(frames, pages, size_after, end, deliver));
      outcome = Outcome::kDelivered;
      pages.clear();
      first = at;
      end = WalAnchor();
    }
    pages.push_back({frame->pgno, at});
    if (frame->commit_size == 0) continue;
    end = WalAnchor{header_.salts, at, running};
    size_after = frame->commit_size;
  }
  const int64_t now_ns = clock_.monotonic_ns();
  if (end.frame == 0) {
    const bool is_long = static_cast<uint64_t>(at - first) * header_.frame_bytes() > kLongChainBytes;
    if (is_long) chain_not_before_ns_ = now_ns + kRestFactor * (now_ns - began_ns);
    return outcome;
  }
  if (!trust_.accepts(end, options.chain_end, options.syncing, now_ns)) {
    holds_commit_ = !trust_.refuses(end) && !options.syncing;
    return outcome;
  }
  TRY(deliver_one(frames, pages, size_after, end, deliver));
  return Outcome::kDelivered;
}

Result<bool> WalTail::repeats_frame_before(uint32_t frame, ByteView bytes) {
  Bytes before(header_.page_size);
  TRY(wal_->read_exactly(header_.frame_offset(frame - 1) + kWalFrameHeaderBytes, before));
  return std::memcmp(before.data(), bytes.data() + kWalFrameHeaderBytes, before.size()) == 0;
}

Status WalTail::for_each_unchained_page(const std::function<void(Pgno)>& visit) {
  std::optional<WalHeader> header = TRY(read_wal_header());
  if (!header || !follows_chain()) return {};
  const uint32_t last = TRY(frames_in_file(*header));
  uint32_t from = header->salts == anchor_.salts ? anchor_.frame : 0;
  for (uint32_t frame = from + 1; frame <= last; ++frame) {
    uint8_t bytes[kWalFrameHeaderBytes];
    TRY(wal_->read_exactly(header->frame_offset(frame), bytes));
    // While it has frames overwritten SQLite writes new ones without salts (walEncodeFrame). Other
    // salts: nothing has been written here since the WAL began anew.
    WalSalts salts = load_salts(bytes + 8);
    if (salts != header->salts && salts != WalSalts()) break;
    if (Pgno pgno = load_be32(bytes)) visit(pgno);
  }
  return {};
}

void WalTail::moved_to_file(Pgno pgno) {
  if (map_.get(pgno) != 0) map_.set(pgno, 0);
}

}  // namespace litefs
