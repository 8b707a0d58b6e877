// Database, for two nodes that compare what they have (DESIGN section 7): sums of pages and ranges, single pages for
// the other one, and what a replica does whose content is no state that its primary can know.
#include <algorithm>

#include "db/database.h"
#include "sqlite/header.h"

namespace litefs {

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

Result<Bytes> Database::read_pages(const std::vector<Pgno>& pgnos, size_t* next, size_t pages_max) {
  MutexLock lock(mutex_);
  TRY(usable());
  Bytes out;
  const uint32_t page_size = control_->state().page_size;
  if (page_size == 0) return out;
  ByteWriter w(out);
  page_.resize(page_size);
  for (size_t pages = 0; pages < pages_max && *next < pgnos.size(); ++*next) {
    const Pgno pgno = pgnos[*next];
    if (pgno == lock_page(page_size) || pgno > control_->state().current.size_pages) continue;
    if (!TRY(read_agreeing_page(pgno))) continue;  // the database shrank below it
    if (out.empty()) w.le32(page_size);
    w.le32(pgno);
    w.bytes(page_);
    ++pages;
  }
  return out;
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
  TRY(write_lost({.why = why, .position = point.position, .diverged_at = before.current.position,
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
