// Database: keeping the state that it is in under lost/, before it is overwritten or removed (db/lost_state.h).
#include <algorithm>

#include "db/database.h"
#include "db/lost_state.h"
#include "sqlite/header.h"

namespace litefs {
namespace {
// Pages are written in runs of so many bytes.
constexpr size_t kRunBytes = 1u << 20;
constexpr Pgno kProgressPages = 4096;
// A record's header is in its first bytes, unless it is of a group of very many databases.
constexpr size_t kHeaderBytes = 8192;
}  // namespace

// Of the present state, at its position.
Status Database::keep_lost(const std::string& why) {
  const ControlPoint& current = control_->state().current;
  if (current.size_pages == 0) return {};
  Lost lost;
  lost.why = why;
  lost.position = current.position;
  lost.size_pages = current.size_pages;
  TRY(find_own_transactions(lost));
  return write_lost(lost);
}

// The log's last transactions that were written by this node are those that others may not have.
Status Database::find_own_transactions(Lost& lost) {
  const std::optional<Position> oldest = TRY(log_->oldest_before());
  if (!oldest) return {};
  std::unique_ptr<LogCursor> cursor = TRY(log_->read_after(*oldest));
  Position before = *oldest;
  Bytes head;
  while (TRY(cursor->next())) {
    RecordSource& record = cursor->record();
    head.resize(static_cast<size_t>(std::min<uint64_t>(record.size_bytes(), kHeaderBytes)));
    TRY(record.read(0, head));
    if (TRY(decode_record_header(head)).origin != env_.node) {
      lost.diverged_at.reset();
      lost.transactions.reset();
    } else {
      if (!lost.diverged_at) lost.diverged_at = before;
      lost.transactions = lost.transactions.value_or(0) + 1;
    }
    before = cursor->info().position;
  }
  return {};
}

Status Database::write_lost(const Lost& lost) {
  LostState state;
  state.database = name();
  state.database_id = control_->state().id;
  state.kept_wall_ms = env_.clock.wall_ms();
  state.why = lost.why;
  state.position = lost.position;
  state.diverged_at = lost.diverged_at;
  state.transactions = lost.transactions;
  state.page_size = control_->state().page_size;
  state.size_pages = lost.size_pages;
  const std::string manifest = lost_manifest_path(paths_.lost(), state.id());
  if (TRY(env_.files.exists(manifest))) return {};
  TRY(env_.files.make_directories(paths_.lost()));
  const int64_t started_ns = env_.clock.monotonic_ns();
  const Checksum content = TRY(write_lost_image(lost_image_path(paths_.lost(), state.id()), state.size_pages));
  if (content != state.position.checksum) {
    return Error(ErrorCode::kDiverged, "'" + name() + "' has the checksum " + hex16(content.value) +
                                           ", not that of its position " + position_text(state.position));
  }
  TRY(env_.files.write_atomically(manifest, state.encode()));
  TRY(env_.files.sync_directory(paths_.meta()));
  env_.log.warning("state kept aside before it is overwritten; 'litefs lost' lists it")
      .kv("database", name())
      .kv("id", state.id())
      .kv("why", lost.why)
      .kv("bytes", state.size_bytes())
      .kv("ms", (env_.clock.monotonic_ns() - started_ns) / 1000000);
  return {};
}

// Writes every page, in rollback format, so that it opens anywhere, read-only media included. The answer is the
// checksum of what was written.
Result<Checksum> Database::write_lost_image(const std::string& path, Pgno size_pages) {
  const uint32_t page_size = control_->state().page_size;
  OnDisk disk;
  if (!writer_) disk = TRY(look_at_files());
  std::unique_ptr<File> image = TRY(env_.files.open(path, OpenMode::kCreate));
  TRY(image->truncate(0));
  File& database = writer_ ? writer_->database_file() : *file_;
  const bool cloned = image->clone_from(database).ok();
  Checksum sum;
  Bytes page(page_size);
  Bytes there(page_size);
  Bytes run;
  Pgno run_end = 0;  // the page behind the run
  auto write_run = [&]() -> Status {
    const uint64_t end_bytes = static_cast<uint64_t>(run_end - 1) * page_size;
    if (!run.empty()) TRY(image->write_at(end_bytes - run.size(), run));
    run.clear();
    return {};
  };
  for (Pgno pgno = 1; pgno <= size_pages; ++pgno) {
    if (pgno == lock_page(page_size)) continue;
    TRY(writer_ ? writer_->read_page(pgno, page) : read_on_disk(disk, pgno, page));
    if (pgno == 1) mask_local_bytes(page);
    sum ^= page_hash(pgno, page);
    if (pgno == 1) set_local_bytes(page, false, 1, size_pages);
    if (cloned) {
      // Only what the WAL has over the file is written, so that the rest stays shared.
      size_t n = TRY(image->read_at(static_cast<uint64_t>(pgno - 1) * page_size, there));
      if (n == page_size && there == page) continue;
    }
    if (pgno != run_end || run.size() >= kRunBytes) TRY(write_run());
    run.insert(run.end(), page.begin(), page.end());
    run_end = pgno + 1;
    if (pgno % kProgressPages == 0) {
      set_progress(static_cast<uint64_t>(pgno) * page_size, static_cast<uint64_t>(size_pages) * page_size);
    }
  }
  TRY(write_run());
  TRY(image->truncate(static_cast<uint64_t>(size_pages) * page_size));
  TRY(image->sync());
  set_progress(0, 0);
  if (!writer_) file_.reset();
  return sum;
}

}  // namespace litefs
