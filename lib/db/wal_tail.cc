#include <algorithm>
#include <chrono>
#include <thread>

#include "changelog/page_codec.h"
#include "db/wal_tail_frames.h"
#include "sqlite/header.h"

namespace litefs {
namespace {

// A writer publishes a header in well under a microsecond; a recovery takes as long as its WAL is large.
constexpr int64_t kPatienceNs = 20'000'000;
constexpr auto kRereadAfter = std::chrono::microseconds(30);

// What a frame below mxFrame says, whatever its salts and checksum. SQLite 3.40 publishes frames without them when a
// savepoint takes back changes that had spilled into the WAL and overwritten earlier ones (walRewriteChecksums then
// begins too late): every reader sees these frames, and SQLite's own recovery would end before them.
std::optional<WalFrame> published_frame(ByteView frame, WalChecksum& running) {
  WalFrame meaning;
  meaning.pgno = load_be32(frame.data());
  meaning.commit_size = load_be32(frame.data() + 4);
  if (meaning.pgno == 0) return std::nullopt;
  running = WalChecksum{load_be32(frame.data() + 16), load_be32(frame.data() + 20)};
  return meaning;
}

}  // namespace

Status WalTail::Transaction::read(const Page& page, MutableByteView out) const {
  size_t frame_bytes = header_->frame_bytes();
  uint32_t in_memory = static_cast<uint32_t>(buffer_.size() / frame_bytes);
  if (page.frame >= buffer_first_ && page.frame < buffer_first_ + in_memory) {
    const uint8_t* p = buffer_.data() + (page.frame - buffer_first_) * frame_bytes + kWalFrameHeaderBytes;
    std::memcpy(out.data(), p, out.size());
    return {};
  }
  return wal_->read_exactly(header_->frame_offset(page.frame) + kWalFrameHeaderBytes, out);
}

WalTail::WalTail(FileSystem& files, Clock& clock, const DatabasePaths& paths)
    : files_(files), clock_(clock), paths_(paths) {}

Status WalTail::reopen(const std::string& path, std::unique_ptr<File>& held) {
  Result<FileInfo> there = files_.info(path);
  if (!there.ok()) {
    // An unlinked file stays held: what it had is drained before the unlink, forget() drops it after.
    if (there.error().code() == ErrorCode::kNotFound) return {};
    return there.error();
  }
  if (held) {
    FileInfo ours = TRY(held->info());
    if (ours.inode == there.value().inode && ours.device == there.value().device) return {};
  }
  held = TRY(files_.open(path, OpenMode::kReadOnly));
  return {};
}

Status WalTail::refresh() {
  TRY(reopen(paths_.wal(), wal_));
  return reopen(paths_.shm(), shm_);
}

void WalTail::forget() {
  wal_.reset();
  shm_.reset();
  index_in_use_ = false;
  map_.clear();
  map_valid_ = true;
  header_ = WalHeader();
}

void WalTail::set_anchor(const WalAnchor& anchor) {
  anchor_ = anchor;
  map_.clear();
  map_valid_ = false;
  header_ = WalHeader();
}

Result<std::optional<WalHeader>> WalTail::read_wal_header() {
  if (!wal_) return std::optional<WalHeader>();
  uint8_t bytes[kWalHeaderBytes];
  size_t n = TRY(wal_->read_at(0, bytes));
  return WalHeader::parse(ByteView(bytes, n));
}

Result<std::optional<WalIndexHeader>> WalTail::read_index_header() {
  if (!shm_) return std::optional<WalIndexHeader>();
  uint8_t bytes[2 * kWalIndexHeaderBytes];
  size_t n = TRY(shm_->read_at(0, bytes));
  if (n != sizeof bytes) return std::optional<WalIndexHeader>();
  return WalIndexHeader::parse(bytes);
}

Result<TailInput> WalTail::look() {
  TailInput input;
  input.index_in_use = index_in_use_ && shm_ != nullptr;
  input.anchor = anchor_;
  if (input.index_in_use) {
    input.index = TRY(read_index_header());
    // The hot path: nothing new, or more of the generation whose header is known.
    if (!input.index || input.index->anchor() == anchor_) return input;
    if (header_.page_size != 0 && input.index->salts == header_.salts) {
      input.wal = header_;
      return input;
    }
  }
  input.wal = TRY(read_wal_header());
  if (!input.index_in_use && last_index_ && input.wal && input.wal->salts == last_index_->salts) {
    const bool ahead = !(anchor_.salts == last_index_->salts) || last_index_->max_frame > anchor_.frame;
    if (ahead && last_index_->max_frame > 0) {
      input.index_in_use = true;
      input.index = last_index_;
    }
  }
  if (!input.index_in_use) TRY(look_at_anchor(input));
  return input;
}

Result<WalTail::Outcome> WalTail::drain(const Deliver& deliver, const DrainOptions& options) {
  int64_t give_up_ns = options.patient ? clock_.monotonic_ns() + kPatienceNs : 0;
  holds_commit_ = false;
  unchecked_frames_ = 0;
  for (;;) {
    TailInput input = TRY(look());
    TailDecision decision = decide_tail(input);
    switch (decision.action) {
      case TailAction::kNothing: return Outcome::kIdle;
      case TailAction::kMismatch: return Error(ErrorCode::kDiverged, paths_.wal() + ": " + decision.why);
      case TailAction::kWait:
        if (!options.patient || clock_.monotonic_ns() >= give_up_ns) return Outcome::kWait;
        std::this_thread::sleep_for(kRereadAfter);
        continue;
      case TailAction::kFollowChain:
      case TailAction::kDeliver: {
        TRY(build_map());
        if (input.wal->salts != anchor_.salts) {
          // A new generation: the old one is in the database file as a whole, or it would not have begun.
          map_.clear();
        }
        header_ = *input.wal;
        if (decision.action == TailAction::kFollowChain) return deliver_chain(decision.from, deliver, options);
        return deliver_published(decision, deliver);
      }
    }
  }
}

Result<WalTail::Outcome> WalTail::deliver_published(const TailDecision& decision, const Deliver& deliver) {
  Frames frames(*wal_, header_, buffer_);
  WalChecksum running = decision.from.checksum;
  uint32_t first = decision.from.frame + 1;  // of the transaction being read
  std::vector<Transaction::Page> pages;
  Outcome outcome = Outcome::kIdle;
  for (uint32_t at = first; at <= decision.to_frame; ++at) {
    std::optional<ByteView> bytes = TRY(frames.get(at, decision.to_frame, first));
    std::optional<WalFrame> frame;
    if (bytes) frame = WalFrame::verify(header_, *bytes, running);
    if (bytes && !frame) {
      frame = published_frame(*bytes, running);
      if (frame) ++unchecked_frames_;
    }
    if (!frame) {
      return Error(ErrorCode::kCorrupt, paths_.wal() + ": frame " + std::to_string(at) + " of " +
                                            std::to_string(decision.to_frame) + " published ones does not verify");
    }
    pages.push_back({frame->pgno, at});
    if (frame->commit_size == 0) continue;
    // SQLite goes on from the index's checksum, whatever the frames' own say.
    if (at == decision.to_frame && unchecked_frames_ > 0) running = decision.expected;
    TRY(deliver_one(frames, pages, frame->commit_size, WalAnchor{header_.salts, at, running}, deliver));
    outcome = Outcome::kDelivered;
    pages.clear();
    first = at + 1;
  }
  if (!(running == decision.expected)) {
    return Error(ErrorCode::kCorrupt, paths_.wal() + ": the checksum at frame " + std::to_string(decision.to_frame) +
                                          " is not the wal-index's");
  }
  return outcome;
}

Status WalTail::deliver_one(Frames& frames, std::vector<Transaction::Page>& pages, Pgno size_after,
                            const WalAnchor& end, const Deliver& deliver) {
  // The last frame of a page is its image: spilled pages come more than once.
  std::sort(pages.begin(), pages.end(),
            [](const auto& a, const auto& b) { return a.pgno != b.pgno ? a.pgno < b.pgno : a.frame < b.frame; });
  size_t kept = 0;
  for (size_t i = 0; i < pages.size(); ++i) {
    if (i + 1 < pages.size() && pages[i + 1].pgno == pages[i].pgno) continue;
    pages[kept++] = pages[i];
  }
  pages.resize(kept);
  Transaction transaction;
  transaction.pages_ = std::move(pages);
  transaction.size_after_ = size_after;
  transaction.end_ = end;
  transaction.header_ = &frames.header();
  transaction.wal_ = &frames.wal();
  transaction.buffer_ = frames.window();
  transaction.buffer_first_ = frames.first();
  Status delivered = deliver(transaction);
  if (delivered.ok()) {
    anchor_ = end;
    for (const Transaction::Page& page : transaction.pages_) map_.set(page.pgno, page.frame);
  }
  pages = std::move(transaction.pages_);
  return delivered;
}

Status WalTail::build_map() {
  if (map_valid_) return {};
  map_.clear();
  std::optional<WalHeader> header = TRY(read_wal_header());
  if (header && header->salts == anchor_.salts) {
    header_ = *header;
    for (uint32_t frame = 1; frame <= anchor_.frame; ++frame) {
      uint8_t pgno[4];
      TRY(wal_->read_exactly(header->frame_offset(frame), pgno));
      map_.set(load_be32(pgno), frame);
    }
  }
  map_valid_ = true;
  return {};
}

Result<bool> WalTail::read_delivered(Pgno pgno, MutableByteView out) {
  TRY(build_map());
  uint32_t frame = map_.get(pgno);
  if (frame == 0 || !wal_) return false;
  TRY(wal_->read_exactly(header_.frame_offset(frame) + kWalFrameHeaderBytes, out));
  return true;
}

Result<std::optional<WalSalts>> WalTail::generation() {
  std::optional<WalHeader> header = TRY(read_wal_header());
  return header ? std::optional<WalSalts>(header->salts) : std::optional<WalSalts>();
}

Status WalTail::for_each_delivered_page(const std::function<Status(Pgno)>& visit) {
  TRY(build_map());
  return map_.for_each(visit);
}

Result<uint32_t> WalTail::frames_in_file(const WalHeader& header) {
  FileInfo info = TRY(wal_->info());
  if (info.size_bytes < kWalHeaderBytes) return 0u;
  return static_cast<uint32_t>((info.size_bytes - kWalHeaderBytes) / header.frame_bytes());
}

Result<bool> WalTail::published_beyond(Pgno pgno) {
  // Without an index nobody but the WAL's one user checkpoints, and only behind the drain that has this page.
  if (follows_chain()) return false;
  std::optional<WalHeader> header = TRY(read_wal_header());
  std::optional<WalIndexHeader> index = TRY(read_index_header());
  if (!header || !index || index->salts != header->salts) return false;
  uint32_t from = header->salts == anchor_.salts ? anchor_.frame : 0;
  for (uint32_t frame = from + 1; frame <= index->max_frame; ++frame) {
    uint8_t bytes[4];
    TRY(wal_->read_exactly(header->frame_offset(frame), bytes));
    if (load_be32(bytes) == pgno) return true;
  }
  return false;
}

// A checkpoint moves nothing but committed frames of this generation, so those that are more do no harm.
Result<bool> WalTail::holds_image(Pgno pgno, Checksum hash) {
  std::optional<WalHeader> header = TRY(read_wal_header());
  if (!header) return false;
  const uint32_t last = TRY(frames_in_file(*header));
  Bytes page(header->page_size);
  for (uint32_t frame = 1; frame <= last; ++frame) {
    uint8_t bytes[4];
    TRY(wal_->read_exactly(header->frame_offset(frame), bytes));
    if (load_be32(bytes) != pgno) continue;
    TRY(wal_->read_exactly(header->frame_offset(frame) + kWalFrameHeaderBytes, page));
    if (pgno == 1) mask_local_bytes(page);
    if (page_hash(pgno, page) == hash) return true;
  }
  return false;
}

}  // namespace litefs
