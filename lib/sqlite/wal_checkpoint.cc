// walCheckpoint of wal.c, PASSIVE: what may be moved to the database without waiting for anybody.
#include <algorithm>
#include <string>

#include "sqlite/wal_writer_state.h"

namespace litefs {
namespace {

// Pages that one frame each may add to the database, and what SQLite allows besides: the lock page.
constexpr uint64_t kGrowthSlackBytes = 65536;

struct PageFrame {
  Pgno pgno;
  uint32_t frame;
};

// The newest frame above `from` of each page, in ascending order of pages.
std::vector<PageFrame> newest_frames(const WalIndexWriter& index, uint32_t from, uint32_t max_frame) {
  std::vector<PageFrame> frames;
  frames.reserve(max_frame - from);
  for (uint32_t frame = from + 1; frame <= max_frame; ++frame) {
    frames.push_back({index.page_of(frame), frame});
  }
  std::sort(frames.begin(), frames.end(), [](const PageFrame& a, const PageFrame& b) {
    return a.pgno != b.pgno ? a.pgno < b.pgno : a.frame > b.frame;
  });
  auto same_page = [](const PageFrame& a, const PageFrame& b) { return a.pgno == b.pgno; };
  frames.erase(std::unique(frames.begin(), frames.end(), same_page), frames.end());
  return frames;
}

}  // namespace

Result<CheckpointOutcome> WalWriter::checkpoint(bool sync) {
  State& s = *state_;
  CHECK(s.phase == State::Phase::kIdle);
  HeldLock checkpoint = TRY(s.lock_shm(kWalCheckpointLock, 1, LockKind::kExclusive));
  uint32_t max_frame = s.published.max_frame;
  uint32_t backfilled = s.index->checkpoint_info().backfilled;
  if (backfilled < max_frame) {
    uint32_t safe = TRY(s.safe_frame());
    if (backfilled < safe) TRY(s.backfill(backfilled, safe, sync));
    backfilled = s.index->checkpoint_info().backfilled;
  }
  if (sync && s.database_unsynced && backfilled == max_frame) {
    TRY(s.files.database->sync());
    s.database_unsynced = false;
  }
  return CheckpointOutcome{max_frame, backfilled};
}

// The last frame that no reader's snapshot forbids to move. A mark that nobody holds is moved out
// of the way.
Result<uint32_t> WalWriter::State::safe_frame() {
  uint32_t safe = published.max_frame;
  WalCheckpointInfo info = index->checkpoint_info();
  for (int i = 1; i < kWalReaders; ++i) {
    uint32_t mark = info.read_marks[i];
    if (safe <= mark) continue;
    Result<HeldLock> reader = lock_shm(wal_read_lock(i), 1, LockKind::kExclusive);
    if (reader.ok()) {
      index->set_read_mark(i, i == 1 ? safe : kReadMarkUnused);
    } else if (reader.error().code() == ErrorCode::kBusy) {
      safe = mark;
    } else {
      return reader.error();
    }
  }
  return safe;
}

Status WalWriter::State::backfill(uint32_t from, uint32_t to, bool sync) {
  // READ0 is held by readers that look at the database alone.
  Result<HeldLock> database_readers = lock_shm(wal_read_lock(0), 1, LockKind::kExclusive);
  if (!database_readers.ok()) {
    return database_readers.error().code() == ErrorCode::kBusy ? Status() : database_readers.error();
  }
  index->set_backfill_attempted(to);
  // What overwrites the database must be recoverable from the WAL first.
  if (sync) TRY(files.wal->sync());

  uint64_t old_size = TRY(files.database->info()).size_bytes;
  uint64_t new_size = static_cast<uint64_t>(size_pages) * options.page_size;
  uint64_t frames_bytes = static_cast<uint64_t>(published.max_frame) * options.page_size;
  if (old_size + kGrowthSlackBytes + frames_bytes < new_size) {
    return Error(ErrorCode::kCorrupt, files.wal->path() + " makes the database larger than its frames can");
  }
  if (!sync) database_unsynced = true;
  TRY(copy_pages(from, to));
  bool complete = to == published.max_frame;
  if (complete && TRY(files.database->info()).size_bytes != new_size) {
    TRY(files.database->truncate(new_size));
  }
  if (complete && sync) {
    TRY(files.database->sync());
    database_unsynced = false;
  }
  // Only what every reader can see in the database may count as moved there.
  if (options.on_write && !options.on_write().ok()) return {};
  if (TRY(files.database->info()).size_bytes != old_size && options.on_resize && !options.on_resize().ok()) {
    return {};
  }
  index->set_backfilled(to);
  return {};
}

// Copies the newest images of the pages whose newest frame lies in (from, to]. A page with a newer
// frame above `to` is left: whoever reads it finds that frame, or one that its own snapshot keeps
// in the WAL.
Status WalWriter::State::copy_pages(uint32_t from, uint32_t to) {
  std::vector<PageFrame> frames = newest_frames(*index, from, published.max_frame);
  size_t page_size = options.page_size;
  Bytes run;
  Pgno run_first = 0;
  auto write_run = [&]() -> Status {
    if (run.empty()) return {};
    TRY(files.database->write_at(static_cast<uint64_t>(run_first - 1) * page_size, run));
    run.clear();
    return {};
  };
  for (const PageFrame& f : frames) {
    if (f.frame > to || f.pgno > size_pages || f.pgno == 0) continue;
    bool adjoins = f.pgno == run_first + run.size() / page_size;
    if (!adjoins || run.size() + page_size > kRunBytes) TRY(write_run());
    if (run.empty()) run_first = f.pgno;
    run.resize(run.size() + page_size);
    TRY(files.wal->read_exactly(frame_offset(f.frame) + kWalFrameHeaderBytes, MutableByteView(run).last(page_size)));
  }
  return write_run();
}

}  // namespace litefs
