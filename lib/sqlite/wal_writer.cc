#include "sqlite/wal_writer.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "sqlite/header.h"
#include "sqlite/wal_writer_state.h"

namespace litefs {
namespace {

// What a writer keeps of its buffer between transactions: there may be thousands of writers.
constexpr size_t kKeptBytes = 64 * 1024;

}  // namespace

WalWriter::WalWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}

WalWriter::~WalWriter() { abort(); }

WalAnchor WalWriter::end() const { return state_->published.anchor(); }

Pgno WalWriter::size_pages() const { return state_->size_pages; }

File& WalWriter::database_file() { return *state_->files.database; }

uint32_t WalWriter::frames_to_checkpoint() const {
  uint32_t max_frame = state_->published.max_frame;
  return max_frame - std::min(max_frame, state_->index->checkpoint_info().backfilled);
}

Status WalWriter::read_page(Pgno pgno, MutableByteView page) { return state_->read_page(pgno, page); }

Status WalWriter::State::read_page(Pgno pgno, MutableByteView page) {
  CHECK_EQ(page.size(), options.page_size);
  // What is backfilled is in the database, and whoever moves more of the WAL there meanwhile moves
  // what we find in the WAL itself.
  uint32_t backfilled = index->checkpoint_info().backfilled;
  uint32_t frame = index->find(pgno, published.max_frame, backfilled);
  if (frame != 0) return files.wal->read_exactly(frame_offset(frame) + kWalFrameHeaderBytes, page);
  size_t n = TRY(files.database->read_at(static_cast<uint64_t>(pgno - 1) * options.page_size, page));
  std::memset(page.data() + n, 0, page.size() - n);
  return {};
}

Status WalWriter::begin() {
  State& s = *state_;
  CHECK(s.phase == State::Phase::kIdle);
  TRY(s.restart_if_possible());
  if (s.generation == State::Generation::kUnknown) s.start_generation();
  if (s.generation == State::Generation::kBegun) TRY(s.write_wal_header());
  s.run.clear();
  s.run_first = s.published.max_frame + 1;
  s.entered = s.published.max_frame;
  s.running = s.published.frame_checksum;
  s.phase = State::Phase::kOpen;
  return {};
}

// walRestartLog. A reader that uses the WAL holds one of READ1 to READ4. WAL_CKPT keeps out a
// checkpointer of another process that has read the old header, and would take the new generation's
// frames for the old one's.
Status WalWriter::State::restart_if_possible() {
  if (published.max_frame == 0) return {};
  if (index->checkpoint_info().backfilled != published.max_frame) return {};
  Result<HeldLock> checkpoint = lock_shm(kWalCheckpointLock, 1, LockKind::kExclusive);
  if (!checkpoint.ok()) {
    return checkpoint.error().code() == ErrorCode::kBusy ? Status() : checkpoint.error();
  }
  Result<HeldLock> readers = lock_shm(wal_read_lock(1), kWalReaders - 1, LockKind::kExclusive);
  if (!readers.ok()) {
    return readers.error().code() == ErrorCode::kBusy ? Status() : readers.error();
  }
  start_generation();
  index->set_read_mark(1, 0);
  for (int i = 2; i < kWalReaders; ++i) index->set_read_mark(i, kReadMarkUnused);
  return {};
}

// walRestartHdr, but for its order: a death behind the header would leave nBackfill above
// max_frame, and readers would pass over the new generation's frames. Before the header it only
// says that nothing is backfilled.
void WalWriter::State::start_generation() {
  WalHeader header;
  header.page_size = options.page_size;
  uint8_t salt[8];
  random.fill(salt);
  header.salts = {load_be32(salt), load_be32(salt + 4)};
  if (wal_header) {
    header.checkpoint_sequence = wal_header->checkpoint_sequence + 1;
    // After the index's, which is ahead of the file's where somebody restarted the WAL and wrote
    // nothing.
    header.salts.salt1 = published.salts.salt1 + 1;
  }
  uint8_t bytes[kWalHeaderBytes];
  header.store(bytes);
  header.checksum = {load_be32(bytes + 24), load_be32(bytes + 28)};

  published.max_frame = 0;
  published.big_endian_checksum = false;
  published.salts = header.salts;
  published.frame_checksum = header.checksum;
  index->set_backfilled(0);
  index->set_backfill_attempted(0);
  index->write_header(published);
  wal_header = header;
  generation = Generation::kBegun;
}

// After the index and without locks: whoever dies before it leaves an empty index over a generation
// that is in the database already, and readers need not wait for the device.
Status WalWriter::State::write_wal_header() {
  uint8_t bytes[kWalHeaderBytes];
  wal_header->store(bytes);
  TRY(files.wal->write_at(0, bytes));
  // Else the head of the old generation might survive a power cut without its overwritten rest, and
  // lay old pages over the database (SQLite's ticket ff5be73dee). Where the database itself is not
  // synced, the owner has said that it brings both up again.
  if (!database_unsynced) TRY(files.wal->sync());
  generation = Generation::kReady;
  return {};
}

Status WalWriter::add_page(Pgno pgno, ByteView page) {
  State& s = *state_;
  CHECK(s.phase == State::Phase::kOpen);
  CHECK_EQ(page.size(), s.options.page_size);
  // Until this has gone well.
  s.phase = State::Phase::kFailed;
  if (pgno == 0 || pgno == lock_page(s.options.page_size)) {
    return Error(ErrorCode::kInvalid, "page " + std::to_string(pgno) + " cannot be written to a WAL");
  }
  if (!s.run.empty()) s.seal_last_frame(0);
  if (s.run.size() + s.frame_bytes() > std::max(kRunBytes, s.frame_bytes())) {
    TRY(s.enter_run());
    TRY(s.write_run());
  }
  if (s.run_first + s.frames_in_run() >= kReadMarkUnused) {
    return Error(ErrorCode::kNoSpace, s.files.wal->path() + " has no more frame numbers");
  }
  uint8_t header[kWalFrameHeaderBytes] = {};
  store_be32(header, pgno);
  store_be32(header + 8, s.published.salts.salt1);
  store_be32(header + 12, s.published.salts.salt2);
  s.run.insert(s.run.end(), header, header + sizeof header);
  s.run.insert(s.run.end(), page.begin(), page.end());
  s.phase = State::Phase::kOpen;
  return {};
}

// The last frame waits with its checksum until it is known whether it is the commit frame.
void WalWriter::State::seal_last_frame(Pgno commit_size) {
  uint8_t* frame = run.data() + run.size() - frame_bytes();
  store_be32(frame + 4, commit_size);
  bool big_endian = published.big_endian_checksum;
  running = wal_checksum(big_endian, ByteView(frame, 8), running);
  running = wal_checksum(big_endian, ByteView(frame + kWalFrameHeaderBytes, options.page_size), running);
  store_be32(frame + 16, running.a);
  store_be32(frame + 20, running.b);
}

Status WalWriter::State::enter_run() {
  for (size_t at = 0; at < run.size(); at += frame_bytes()) {
    TRY(index->append(entered + 1, load_be32(run.data() + at)));
    ++entered;
  }
  return {};
}

Status WalWriter::State::write_run() {
  TRY(files.wal->write_at(frame_offset(run_first), run));
  run_first += static_cast<uint32_t>(frames_in_run());
  run.clear();
  return {};
}

Result<WalAnchor> WalWriter::prepare(Pgno size_after) {
  State& s = *state_;
  CHECK(s.phase == State::Phase::kOpen);
  s.phase = State::Phase::kFailed;
  if (s.run.empty() || size_after == 0) {
    return Error(ErrorCode::kInvalid, "a transaction of no pages cannot be written to a WAL");
  }
  s.seal_last_frame(size_after);
  // All that can fail but for the write itself: once a commit frame is in the file, a recovery
  // publishes it.
  TRY(s.enter_run());
  s.phase = State::Phase::kPrepared;
  s.size_after = size_after;
  return WalAnchor{s.published.salts, s.entered, s.running};
}

Status WalWriter::publish() {
  State& s = *state_;
  CHECK(s.phase == State::Phase::kPrepared);
  s.phase = State::Phase::kFailed;
  TRY(s.write_run());
  ++s.published.change;
  s.published.page_size = s.options.page_size;
  s.published.max_frame = s.entered;
  s.published.size_pages = s.size_after;
  s.published.frame_checksum = s.running;
  s.index->write_header(s.published);
  s.size_pages = s.size_after;
  if (s.run.capacity() > std::max(kKeptBytes, 2 * s.frame_bytes())) Bytes().swap(s.run);
  s.phase = State::Phase::kIdle;
  return {};
}

void WalWriter::abort() {
  State& s = *state_;
  if (s.phase == State::Phase::kIdle) return;
  // Readers pass over entries above max_frame, but a search gets slow among many of them.
  if (s.entered != s.published.max_frame) s.index->clean_above(s.published.max_frame);
  Bytes().swap(s.run);
  s.phase = State::Phase::kIdle;
}

}  // namespace litefs
