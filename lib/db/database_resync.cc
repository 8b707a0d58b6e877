// Database, for two nodes that compare what they have (DESIGN section 7): sums of pages and ranges,
// pages for the other one, and what a replica does whose content is no state that its primary can
// know.
#include <algorithm>
#include <cstring>

#include "db/database.h"
#include "sqlite/header.h"

namespace litefs {
namespace {
// For how long pages are read under the capture mutex: some hundred, where the kernel has them in
// memory.
constexpr int64_t kHoldMaxNs = 1'000'000;
}  // namespace

std::vector<Checksum> Database::sums_locked(const SumsQuestion& question) {
  std::vector<Checksum> out;
  out.reserve(question.answer_sums());
  uint8_t hashes[kRangePages * 8];
  for (uint32_t range : question.ranges) {
    for (Pgno i = 0; i < kRangePages; ++i) {
      Checksum hash = sums_->get(first_page_of(range) + i);
      if (question.of_pages) out.push_back(hash);
      store_le64(hashes + i * 8, hash.value);
    }
    if (!question.of_pages) out.push_back(range_sum(range, hashes));
  }
  return out;
}

Result<std::vector<Checksum>> Database::sums(const SumsQuestion& question) {
  MutexLock lock(mutex_);
  TRY(usable());
  return sums_locked(question);
}

Result<std::shared_ptr<File>> Database::file_for_copy() {
  MutexLock lock(mutex_);
  TRY(usable());
  if (!file_) {
    Result<FileInfo> opened = open_file();
    if (!opened.ok() && opened.error().code() != ErrorCode::kNotFound) return opened.error();
  }
  return file_;
}

Result<bool> Database::settle(uint32_t page_size, std::vector<PageImage>& images) {
  MutexLock lock(mutex_);
  TRY(usable());
  if (control_->state().page_size != page_size) {
    return Error(ErrorCode::kBusy, "the page size of " + name() + " has just changed");
  }
  const int64_t until_ns = env_.clock.monotonic_ns() + kHoldMaxNs;
  for (PageImage& image : images) {
    if (image.state != PageImage::State::kOpen || settles(image)) continue;
    if (!TRY(settle_anew(image))) return true;
    if (env_.clock.monotonic_ns() > until_ns) return false;
  }
  return true;
}

bool Database::settles(PageImage& image) {
  if (image.pgno > control_->state().current.size_pages) {
    image.state = PageImage::State::kBeyond;
  } else if (image.hash == sums_->get(image.pgno)) {
    image.state = PageImage::State::kCaptured;
  }
  return image.state != PageImage::State::kOpen;
}

// Reads the page where it may be by now; also behind a drain, as a checkpoint may move frames into
// the database file that are published but not captured yet.
Result<bool> Database::settle_anew(PageImage& image) {
  for (int i = 0; i < 2; ++i) {
    Result<bool> read = read_current_page(image.pgno, image.bytes);
    // Short: the WAL was truncated behind a complete checkpoint, which the tail sees with the next
    // commit only.
    if (!read.ok() && read.error().code() != ErrorCode::kCorrupt) return read.error();
    if (read.ok()) {
      if (!read.value()) std::memset(image.bytes.data(), 0, image.bytes.size());
      image.take_hash();
      if (settles(image)) return true;
    }
    if (file_) {
      TRY(read_file_page(image.pgno, image.bytes));
      image.take_hash();
      if (settles(image)) return true;
    }
    if (is_replica_) return false;
    if (i > 0) break;
    Result<bool> drained = drain_locked(true);
    // An index without a valid header: its writer is at it.
    if (!drained.ok() && drained.error().code() != ErrorCode::kTimedOut) return drained.error();
    if (settles(image)) return true;
  }
  return false;
}

Status Database::stand_apart(const std::string& why) {
  MutexLock lock(mutex_);
  TRY(usable());
  if (load_) abort_load_locked();
  return stand_apart_locked(why);
}

// The files hold something that is not what the log and the page sums say. They stay, readable, under a position that
// names their true content and that no primary knows, so that the next one it meets compares with it page by page.
Status Database::stand_apart_locked(const std::string& why) {
  const ControlState before = control_->state();
  if (before.current.size_pages == 0) return set_aside_locked(why);
  ControlPoint point = before.current;
  if (writer_) {
    point.position.checksum = TRY(rehash_live());
    point.anchor = writer_->end();
  } else {
    OnDisk disk = TRY(look_at_files());
    if (!disk.file_exists) return set_aside_locked(why);
    point.position.checksum = TRY(rehash(disk));
    point.size_pages = disk.size_pages;
    point.anchor = disk.end;
    ControlState state = control_->state();
    state.page_size = disk.page_size;
    control_->store(state);
  }
  if (log_->last()) point.position.txid = std::max(point.position.txid, log_->last()->position.txid);
  ++point.position.txid.value;
  env_.log.error("the database is in no state of its history; it will be compared with its primary's")
      .kv("database", name())
      .kv("why", why);
  TRY(write_lost({.why = why,
                  .position = point.position,
                  .diverged_at = before.current.position,
                  .size_pages = point.size_pages}));
  TRY(clear_log());
  advance(point);
  return {};
}

// As rehash(), while connections have the database open.
Result<Checksum> Database::rehash_live() {
  const ControlState& state = control_->state();
  Checksum sum;
  Bytes page(state.page_size);
  for (Pgno pgno = 1; pgno <= state.current.size_pages; ++pgno) {
    if (pgno == lock_page(state.page_size)) continue;
    TRY(writer_->read_page(pgno, page));
    if (pgno == 1) mask_local_bytes(page);
    const Checksum hash = page_hash(pgno, page);
    sums_->set(pgno, hash);
    sum ^= hash;
  }
  return sum;
}

}  // namespace litefs
