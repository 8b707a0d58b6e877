// Database on a replica: copies from the primary, whole or built on what is here (DESIGN section 7). Until a copy is
// complete the database stays as it was and readable; then one WAL transaction, or one rename, brings the new state.
// A crash leaves one of the two, and the copy begins again.
#include <algorithm>

#include "db/database.h"
#include "db/snapshot_load.h"
#include "sqlite/header.h"

namespace litefs {
namespace {
constexpr int64_t kProgressLogNs = 5'000'000'000;
}

Status Database::begin_load(const LoadStart& start) {
  MutexLock lock(mutex_);
  TRY(usable());
  // What came and is not applied yet belongs to the state that is compared, and kept.
  TRY(catch_up());
  const ControlState& state = control_->state();
  if (state.current.size_pages != 0) TRY(attach_writer());
  load_ = TRY(SnapshotLoad::create(
      env_.files, {.path = paths_.load(), .id = start.id, .start = start.start, .total_bytes = start.total_bytes}));
  const bool same_pages = start.page_size == state.page_size && start.size_pages != 0;
  if (start.compares && state.current.size_pages != 0 && same_pages) {
    auto read = [this](Pgno pgno, MutableByteView page) NO_THREAD_SAFETY_ANALYSIS -> Status {
      TRY(writer_->read_page(pgno, page));
      if (pgno == 1) mask_local_bytes(page);
      return {};
    };
    TRY(load_->build_on({start.page_size, start.size_pages, sums_.get(), read}));
  }
  load_keeps_ = start.keep_because;
  load_compared_bytes_ = 0;
  load_started_ns_ = env_.clock.monotonic_ns();
  next_progress_log_ns_ = load_started_ns_ + kProgressLogNs;
  set_progress(0, std::max<uint64_t>(start.total_bytes, 1));
  set_state(DatabaseState::kLoading, "");
  env_.log.info(load_->has_base() ? "loading the difference to the primary" : "loading a copy from the primary")
      .kv("database", name())
      .kv("bytes", start.total_bytes);
  return {};
}

Status Database::load_pages(ByteView piece) {
  MutexLock lock(mutex_);
  if (!load_) return Error(ErrorCode::kInvalid, "a piece of a copy of '" + name() + "' that was not begun");
  TRY(load_->add_pages(piece));
  note_load_progress(static_cast<uint64_t>(load_->last_loaded()) * load_->page_size());
  return {};
}

Result<std::vector<Checksum>> Database::load_sums(const SumsQuestion& question) {
  MutexLock lock(mutex_);
  if (!load_) return Error(ErrorCode::kInvalid, "sums of '" + name() + "' outside of a copy");
  if (!load_->has_base()) return std::vector<Checksum>(question.answer_sums());
  if (question.of_pages)
    note_load_progress(static_cast<uint64_t>(first_page_of(question.ranges[0]) - 1) * load_->page_size());
  return sums_locked(question);
}

// `through_bytes`: how far into the database sender and load have come.
void Database::note_load_progress(uint64_t through_bytes) {
  load_compared_bytes_ = std::max(load_compared_bytes_, through_bytes);
  const uint64_t total = std::max(load_->total_bytes(), load_compared_bytes_);
  set_progress(load_compared_bytes_, total);
  const int64_t now_ns = env_.clock.monotonic_ns();
  if (now_ns < next_progress_log_ns_) return;
  const int64_t ms = std::max<int64_t>(1, (now_ns - load_started_ns_) / 1000000);
  const uint64_t bytes_per_s = std::max<uint64_t>(1, load_compared_bytes_ * 1000 / static_cast<uint64_t>(ms));
  env_.log.info("loading")
      .kv("database", name())
      .kv("bytes", load_compared_bytes_)
      .kv("of", total)
      .kv("bytes_per_s", bytes_per_s)
      .kv("seconds_left", (total - load_compared_bytes_) / bytes_per_s);
  next_progress_log_ns_ = now_ns + kProgressLogNs;
}

Status Database::end_load(const Position& consistent_at) {
  MutexLock lock(mutex_);
  if (!load_) return Error(ErrorCode::kInvalid, "the end of a copy of '" + name() + "' that was not begun");
  load_->set_target(consistent_at);
  return publish_load_when_complete();
}

bool Database::loading() {
  MutexLock lock(mutex_);
  return load_ != nullptr;
}

void Database::abort_load() {
  MutexLock lock(mutex_);
  abort_load_locked();
}

void Database::abort_load_locked() {
  if (!load_) return;
  load_.reset();
  set_progress(0, 0);
  Status removed = SnapshotLoad::remove_files(env_.files, paths_.load());
  if (!removed.ok()) env_.log.warning("could not remove a partial copy").error(removed.error());
  set_state(attached_ || control_->state().current.size_pages == 0 ? DatabaseState::kReady : DatabaseState::kOpening,
            "");
}

Status Database::publish_load_when_complete() {
  if (!TRY(load_->complete())) return {};
  const ControlPoint& current = control_->state().current;
  // The same checksum is the same content: then nothing is lost, whatever the two histories were.
  if (!load_keeps_.empty() && current.size_pages != 0 && current.position.checksum != load_->position().checksum) {
    TRY(keep_lost(load_keeps_));
  }
  if (load_->size_pages() == 0) {
    TRY(clear_log());
    TRY(remove_files(load_->position()));
  } else if (current.size_pages != 0 && control_->state().page_size == load_->page_size() && !TRY(schema_misleads())) {
    TRY(publish_load_as_transaction());
  } else {
    TRY(complete_load_file());
    TRY(clear_log());
    TRY(rename_into_place(*load_));
  }
  env_.log.info("copy from the primary complete")
      .kv("database", name())
      .kv("bytes", load_->loaded_bytes())
      .kv("of", static_cast<uint64_t>(load_->size_pages()) * load_->page_size())
      .kv("ms", (env_.clock.monotonic_ns() - load_started_ns_) / 1000000)
      .kv("position", position_text(control_->state().current.position));
  abort_load_locked();  // the file is in place or of no more use
  return {};
}

// Whether a connection that has read this node's schema could take the copy's for the same one: SQLite compares only a
// number that two histories may both have come to (offset 40). Then the copy is another file, and such connections get
// an error. A schema that does not lie in page 1 alone counts as different.
Result<bool> Database::schema_misleads() {
  constexpr size_t kCookieOffset = 40;
  constexpr size_t kTreeOffset = 100;
  constexpr uint8_t kLeafTable = 0x0d;
  if (load_keeps_.empty()) return false;  // the copy's history has this node's
  TRY(attach_writer());
  Bytes ours(load_->page_size()), theirs(load_->page_size());
  TRY(writer_->read_page(1, ours));
  TRY(load_->read_page(1, theirs));
  if (load_be32(ours.data() + kCookieOffset) != load_be32(theirs.data() + kCookieOffset)) return false;
  return ours[kTreeOffset] != kLeafTable ||
         !std::equal(ours.begin() + kTreeOffset, ours.end(), theirs.begin() + kTreeOffset);
}

// Writes what the copy has in common with the database into its own file.
Status Database::complete_load_file() {
  if (!load_->has_base()) return {};
  Bytes page(load_->page_size());
  for (Pgno pgno = 1; pgno <= load_->size_pages(); ++pgno) {
    if (pgno == lock_page(load_->page_size())) continue;
    TRY(load_->read_page(pgno, page));
    TRY(load_->write_page(pgno, page));
  }
  return {};
}

// Readers have the database open: they keep their snapshot, and the copy is one WAL transaction.
Status Database::publish_load_as_transaction() {
  TRY(attach_writer());
  TRY(sums_->reserve(load_->size_pages()));
  TRY(writer_->begin());
  Status written = write_load();
  if (!written.ok()) {
    writer_->abort();
    return written;
  }
  ControlState state = control_->state();
  const Pgno size_after = load_->size_pages();
  for (Pgno pgno = 1; pgno <= size_after; ++pgno) sums_->set(pgno, load_->hash(pgno));
  sums_->shrink(size_after);
  TRY(clear_log());
  state.id = load_->id();
  control_->store(state);
  advance(state.planned);
  checkpoint_when_due();
  return {};
}

// Through the publication; an error leaves what was published before.
Status Database::write_load() {
  ControlState state = control_->state();
  Bytes page(state.page_size);
  const Pgno size_after = load_->size_pages();
  for (Pgno pgno = 1; pgno <= size_after; ++pgno) {
    if (pgno == lock_page(state.page_size)) continue;
    if (pgno != 1 && sums_->get(pgno) == load_->hash(pgno)) continue;
    TRY(load_->read_page(pgno, page));
    TRY(add_page(pgno, page, size_after));
  }
  state.planned_kind = PlannedKind::kLoad;
  state.planned = ControlPoint{load_->position(), size_after, TRY(writer_->prepare(size_after))};
  state.planned_id = load_->id();
  state.planned_page_size = load_->page_size();
  control_->store(state);
  return writer_->publish();
}

}  // namespace litefs
