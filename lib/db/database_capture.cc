// Database on a primary: from what SQLite has committed to records in the log.
#include <algorithm>

#include "db/database.h"
#include "env/write_watch.h"
#include "sqlite/header.h"

namespace litefs {
namespace {

// A batch is written to the log when it has this much, or at the end of a drain.
constexpr size_t kBatchBytes = 256u << 10;
// A record beyond this is written to the log in pieces and never held in memory.
constexpr size_t kLargeRecordBytes = 1u << 20;
constexpr int64_t kRereadPauseUs = 500;

constexpr int kTornReadsMax = 10;

LocalNote note_of(const WalAnchor& anchor) {
  LocalNote note{};
  anchor.store(note.data());
  return note;
}

}  // namespace

void Database::Batch::clear() {
  commits = CapturedBatch();
  sums.clear();
}

void Database::begin_batch() {
  const ControlPoint& current = control_->state().current;
  batch_.clear();
  batch_.position = current.position;
  batch_.size_pages = current.size_pages;
  batch_.page_size = control_->state().page_size;
  batch_.anchor = current.anchor;
  batch_.commits.before = current.position;
}

void Database::tail_unlinked() {
  MutexLock lock(mutex_);
  if (is_replica_ || !started_) return;
  tail_->forget();
  ControlPoint point = control_->state().current;
  point.anchor = WalAnchor();
  tail_->set_anchor(point.anchor);
  advance(point);
  note_file_at_rest();
}

Status Database::before_wal_unlink() {
  if (env_.skip_drains) return {};
  TRY(drain(true));
  MutexLock lock(mutex_);
  const ControlState& state = control_->state();
  if (state.current.size_pages == 0 || !in_wal_mode()) return {};
  TRY(open_file());
  std::optional<Pgno> missing;
  TRY(tail_->for_each_delivered_page([&](Pgno pgno) NO_THREAD_SAFETY_ANALYSIS -> Status {
    if (missing || pgno > state.current.size_pages) return {};
    page_.resize(state.page_size);
    TRY(read_file_page(pgno, page_));
    if (!read_page_agrees(pgno)) missing = pgno;
    return {};
  }));
  if (!missing) return {};
  return Error(ErrorCode::kBusy, "'" + name() + "-wal' holds committed pages that are not in the database file");
}

void Database::removed() {
  MutexLock lock(mutex_);
  if (control_->state().current.size_pages != 0) return;
  ControlState state = control_->state();
  state.planned_kind = PlannedKind::kNone;
  control_->store(state);
}

int Database::watched_descriptor() {
  MutexLock lock(mutex_);
  if (tail_ && tail_->has_wal()) return tail_->wal()->fd();
  return were_writes_unseen_ && open_file().ok() ? file_->fd() : -1;
}

Status Database::drain(bool urgent) {
  if (!urgent) return drain_for_reader();
  MutexLock lock(mutex_);
  if (is_replica_ || env_.skip_drains) return {};
  TRY(usable());
  Result<bool> drained = drain_locked(true);
  if (!drained.ok()) return drained.error();
  if (application_syncs_) {
    // The checkpoint that follows makes the WAL overwritable; what SQLite made durable there must be so here.
    TRY(sync_log());
  }
  return {};
}

// What a failed sync leaves of the log is only known when it has been read again.
Status Database::sync_log() {
  Status synced = log_->sync();
  return synced.ok() ? synced : Status(stop_with(synced.error()));
}

Result<bool> Database::poll() {
  MutexLock lock(mutex_);
  if (is_replica_) return false;
  TRY(usable());
  const bool any = TRY(drain_locked(false));
  return any || tail_->holds_commit();
}

// Patient: for somebody who is about to let a checkpoint take effect.
Result<bool> Database::drain_locked(bool patient) {
  return drain_with({patient, patient ? ChainEnd::kSettled : ChainEnd::kUnknown, wal_syncs_ > 0});
}

Result<bool> Database::drain_with(const WalTail::DrainOptions& options) {
  if (journal_unseen_ && started_ && !is_replica_ && !in_wal_mode()) TRY(follow_journal());
  begin_batch();
  Result<WalTail::Outcome> outcome =
      tail_->drain([this](const WalTail::Transaction& transaction)
                       NO_THREAD_SAFETY_ANALYSIS { return capture_transaction(transaction); },
                   options);
  if (!outcome.ok()) {
    // What was captured before the error counts.
    Status flushed = forget_batch(flush_batch());
    if (!flushed.ok()) return flushed.error();
    ErrorCode code = outcome.error().code();
    if (code == ErrorCode::kDiverged && started_) {
      TRY(forget_batch(resynchronise(outcome.error())));
      return true;
    }
    if (code == ErrorCode::kDiverged || code == ErrorCode::kCorrupt) return stop_with(outcome.error());
    TRY(forget_batch(outcome.error()));
  }
  TRY(forget_batch(flush_batch()));
  if (tail_->unchecked_frames() > 0 && !warned_of_frames_) {
    warned_of_frames_ = true;
    env_.log
        .warning(
            "SQLite committed frames with wrong checksums (a savepoint took back spilled pages); they are replicated, "
            "and a crash before the next checkpoint will bring them back from the change log")
        .kv("database", name());
  }
  if (suspect_) {
    suspect_ = false;
    TRY(forget_batch(compare_live(control_->state().current.size_pages)));
  }
  capture_succeeded();
  if (outcome.value() == WalTail::Outcome::kWait && options.patient) {
    return Error(ErrorCode::kTimedOut, paths_.shm() + " stays without a valid header");
  }
  return outcome.value() == WalTail::Outcome::kDelivered;
}

// After a failure the tail stands again where the log does, so that the next drain delivers the same once more. Until
// then a commit in WAL, which nobody can refuse, is on this node alone: status says so.
Status Database::forget_batch(Status captured) {
  if (captured.ok()) return captured;
  const ErrorCode code = captured.error().code();
  if (started_ && code != ErrorCode::kBusy && code != ErrorCode::kTimedOut) {
    capture_fails_ = true;
    show_trouble("the last commit is not captured yet, or was refused: " + captured.error().message());
  }
  log_->abort_large();
  batch_.clear();
  tail_->set_anchor(control_->state().current.anchor);
  return captured;
}

void Database::capture_succeeded() {
  if (!capture_fails_) return;
  capture_fails_ = false;
  show_trouble("");
}

Checksum Database::pending_sum(Pgno pgno) {
  if (auto it = batch_.sums.find(pgno); it != batch_.sums.end()) return it->second;
  return sums_->get(pgno);
}

Status Database::capture_transaction(const WalTail::Transaction& transaction) {
  if (!file_) TRY(open_file());
  const std::vector<WalTail::Transaction::Page>& pages = transaction.pages();
  NewPages changed;
  changed.size_after = transaction.size_after();
  changed.page_size = transaction.page_size();
  std::vector<const WalTail::Transaction::Page*> sources;
  auto add = [&](Pgno pgno, const WalTail::Transaction::Page* source) {
    changed.pgnos.push_back(pgno);
    sources.push_back(source);
  };
  // Pages by which the database grew and of which no frame was written belong to the state too.
  Pgno grown = batch_.size_pages + 1;
  for (const WalTail::Transaction::Page& page : pages) {
    for (; grown < page.pgno && grown <= changed.size_after; ++grown) add(grown, nullptr);
    if (page.pgno == grown) ++grown;
    add(page.pgno, &page);
  }
  for (; grown <= changed.size_after; ++grown) add(grown, nullptr);
  changed.replaces = batch_.size_pages == 0;
  changed.previous = [&](Pgno pgno, Checksum expected)
                         NO_THREAD_SAFETY_ANALYSIS { return previous_image(pgno, expected, changed.page_size); };
  changed.read = [&](size_t index, MutableByteView out) NO_THREAD_SAFETY_ANALYSIS -> Status {
    if (sources[index]) return transaction.read(*sources[index], out);
    if (!TRY(read_current_page(changed.pgnos[index], out))) std::memset(out.data(), 0, out.size());
    return {};
  };
  return record_changes(changed, transaction.end());
}

// The image that the page had before, where it can still be had: its hash must be the captured one.
Result<ByteView> Database::previous_image(Pgno pgno, Checksum expected, size_t page_size) {
  previous_.resize(page_size);
  for (int i = 0; i < kTornReadsMax; ++i) {
    if (!TRY(read_current_page(pgno, previous_))) return ByteView();
    if (pgno == 1) mask_local_bytes(previous_);
    Checksum found = page_hash(pgno, previous_);
    if (found == expected) return ByteView(previous_);
    // A partial checkpoint may have moved a newer, published frame over it, or be about it (the kernel does not keep
    // a read from seeing half of a write). Anything else means that the file changed without a frame that we saw.
    if (suspect_ || TRY(tail_->holds_image(pgno, found))) return ByteView();
  }
  suspect_ = true;
  return ByteView();
}

// One identity for the whole of a name's history: deletion and creation under the same name are transactions in it.
void Database::give_id() {
  ControlState state = control_->state();
  if (state.id.value != 0) return;
  state.id = DatabaseId{env_.random.nonzero_u64()};
  control_->store(state);
}

// Makes a record of those pages that differ from the captured state, into the batch (or, when it is large, into
// the log at once).
Status Database::record_changes(NewPages& pages, const WalAnchor& anchor) {
  if (batch_.page_size != pages.page_size && !pages.replaces && pages.size_after != 0) {
    return Error(ErrorCode::kCorrupt, paths_.wal() + ": the page size changed from " +
                                          std::to_string(batch_.page_size) + " to " + std::to_string(pages.page_size) +
                                          " within the WAL");
  }
  if (pages.replaces) {
    TRY(flush_batch());
    give_id();
  }
  RecordHeader header;
  header.flags = pages.replaces ? RecordHeader::kCreate : pages.size_after == 0 ? RecordHeader::kDrop : 0;
  header.database = control_->state().id;
  header.page_size = header.flags == RecordHeader::kDrop ? 0 : pages.page_size;
  header.size_after = pages.size_after;
  header.epoch = epoch_;
  header.txid_first = header.txid_last = TxId{batch_.position.txid.value + 1};
  header.wall_ms = env_.clock.wall_ms();
  header.before = batch_.position.checksum;
  header.origin = env_.node;
  header.group = group_.id;
  header.group_members = group_.members;

  std::optional<RecordEncoder> encoder;
  std::vector<std::pair<Pgno, Checksum>> changed;
  Checksum after = pages.replaces ? Checksum{} : header.before;
  bool large = false;
  // In pieces, its end last: a record that is too large to be held, or that waits for the others of its group.
  auto write_in_pieces = [&]() NO_THREAD_SAFETY_ANALYSIS -> Status {
    TRY(flush_batch());
    TRY(log_->begin_large());
    large = true;
    return {};
  };
  page_.resize(pages.page_size);
  for (size_t i = 0; i < pages.pgnos.size(); ++i) {
    Pgno pgno = pages.pgnos[i];
    if (pgno > pages.size_after || pgno == lock_page(pages.page_size)) continue;
    TRY(pages.read(i, page_));
    if (large && encoder->buffer().size() >= kBatchBytes) TRY(log_->append_large(encoder->take()));
    if (pgno == 1) mask_local_bytes(page_);
    Checksum hash = page_hash(pgno, page_);
    Checksum old = pending_sum(pgno);
    if (hash == old && !pages.replaces) continue;
    ByteView previous;
    if (pages.previous && old.value != 0 && !pages.replaces) previous = TRY(pages.previous(pgno, old));
    if (!encoder) encoder.emplace(codec_, header);
    encoder->add_page(pgno, page_, hash, previous);
    if (!pages.replaces) after ^= old;
    after ^= hash;
    changed.emplace_back(pgno, hash);
    if (!large && encoder->buffer().size() > kLargeRecordBytes) TRY(write_in_pieces());
  }
  for (Pgno pgno = pages.size_after + 1; pgno <= batch_.size_pages; ++pgno) {
    if (!pages.replaces) after ^= pending_sum(pgno);
    changed.emplace_back(pgno, Checksum{});
  }
  if (!encoder && pages.size_after == batch_.size_pages) {
    batch_.anchor = anchor;  // nothing but local bytes: no transaction
    return {};
  }
  if (!encoder) encoder.emplace(codec_, header);
  encoder->finish(after);
  if (group_.id != 0 && !large) TRY(write_in_pieces());
  return commit_record(*encoder, header, after, changed, anchor, large);
}

Status Database::commit_record(RecordEncoder& encoder, const RecordHeader& header, Checksum after,
                               const std::vector<std::pair<Pgno, Checksum>>& changed, const WalAnchor& anchor,
                               bool large) {
  // Before the log has the record: on a full disk it is not to have what the page sums cannot follow.
  TRY(sums_->reserve(std::max(header.size_after, control_->state().current.size_pages)));
  LogEntryInfo info;
  info.position = Position{header.epoch, header.txid_last, after};
  info.before = header.before;
  info.before_epoch = batch_.position.epoch;
  info.txid_first = header.txid_first;
  info.wall_ms = header.wall_ms;
  info.note = note_of(anchor);
  batch_.position = info.position;
  batch_.size_pages = header.size_after;
  if (header.page_size != 0) batch_.page_size = header.page_size;
  batch_.anchor = anchor;
  for (const auto& [pgno, hash] : changed) batch_.sums[pgno] = hash;
  if (large) {
    TRY(log_->append_large(encoder.take()));
    if (group_.id != 0) {
      group_.end = info;
      return {};
    }
    TRY(log_->commit_large(info));
    return settle_batch();
  }
  CapturedBatch::Item item{info, (header.flags & RecordHeader::kDrop) != 0, encoder.take()};
  item.info.record_bytes = item.record.size();
  batch_.commits.bytes += item.record.size();
  batch_.commits.items.push_back(std::move(item));
  if (batch_.commits.bytes < kBatchBytes) return {};
  return flush_batch();
}

Status Database::flush_batch() {
  if (!batch_.commits.items.empty()) {
    std::vector<ChangeLog::Entry> entries;
    entries.reserve(batch_.commits.items.size());
    for (const CapturedBatch::Item& item : batch_.commits.items) {
      entries.push_back(ChangeLog::Entry{item.info, ByteView(item.record)});
    }
    TRY(log_->append(entries));
  }
  return settle_batch();
}

// The log has the batch: page sums, control and those who wait follow, in this order (a crash in between is
// mended from the log).
Status Database::settle_batch() {
  const ControlPoint& current = control_->state().current;
  if (batch_.position == current.position && batch_.anchor == current.anchor) return {};
  for (const auto& [pgno, hash] : batch_.sums) {
    if (pgno <= batch_.size_pages) sums_->set(pgno, hash);
  }
  sums_->shrink(batch_.size_pages);
  advance(ControlPoint{batch_.position, batch_.size_pages, batch_.anchor}, batch_.page_size);
  CapturedBatch commits = std::move(batch_.commits);
  commits.after = batch_.position;
  bool any = !(commits.before == commits.after);
  begin_batch();
  if (any) env_.observer.committed(name(), std::move(commits));
  return {};
}

// The database differs from what was captured and no frame explains it: every page is compared, and the difference
// becomes a transaction of its own. Writers go on meanwhile; a page with a frame that is not captured yet is left
// to that frame.
Status Database::compare_live(Pgno size_after) {
  env_.log.info("a page is not what was captured; comparing all pages").kv("database", name());
  begin_batch();
  const ControlState& state = control_->state();
  // Where the WAL has begun anew, all that was delivered is in the file, and the frames are being overwritten.
  const std::optional<WalSalts> generation = TRY(tail_->generation());
  if (generation != tail_->anchor().salts) tail_->forget_frames();
  NewPages pages;
  pages.page_size = state.page_size;
  pages.size_after = size_after;
  for (Pgno pgno = 1; pgno <= pages.size_after; ++pgno) {
    if (pgno == lock_page(pages.page_size)) continue;
    if (TRY(differs_from_captured(pgno))) pages.pgnos.push_back(pgno);
  }
  if (TRY(tail_->generation()) != generation) {
    suspect_ = true;  // it began anew meanwhile: again, at the next drain
    return {};
  }
  pages.read = [&](size_t index, MutableByteView out) NO_THREAD_SAFETY_ANALYSIS -> Status {
    if (!TRY(read_current_page(pages.pgnos[index], out))) std::memset(out.data(), 0, out.size());
    return {};
  };
  TRY(record_changes(pages, tail_->anchor()));
  TRY(flush_batch());
  if (pages.pgnos.empty()) return {};
  env_.log.error("the database had changed outside of its WAL; the pages that differed are a transaction now")
      .kv("database", name())
      .kv("pages", pages.pgnos.size());
  return {};
}

// A page that is just being written by a checkpoint may be read half old and half new: so it is read again.
Result<bool> Database::differs_from_captured(Pgno pgno) {
  constexpr int kReads = 4;
  page_.resize(control_->state().page_size);
  for (int i = 0; i < kReads; ++i) {
    if (i > 0) sleep_us(kRereadPauseUs);
    if (!TRY(read_current_page(pgno, page_))) std::memset(page_.data(), 0, page_.size());
    if (read_page_agrees(pgno)) return false;
  }
  return !TRY(tail_->published_beyond(pgno));
}

Status Database::drop() {
  MutexLock lock(mutex_);
  TRY(usable());
  begin_batch();
  if (batch_.size_pages != 0) {
    NewPages pages;
    pages.page_size = control_->state().page_size;
    TRY(forget_batch(record_changes(pages, WalAnchor())));
    TRY(forget_batch(flush_batch()));
    TRY(log_->sync());
    ControlState state = control_->state();
    state.planned_kind = PlannedKind::kRemove;
    state.planned = state.current;
    control_->store(state);
    env_.log.info("database deleted").kv("database", name()).kv("txid", position().txid);
  }
  tail_->forget();
  tail_->set_anchor(WalAnchor());
  tail_->set_index_in_use(false);
  file_.reset();
  written_.clear();
  journal_active_ = false;
  return {};
}

}  // namespace litefs
