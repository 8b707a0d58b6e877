#include <string>

#include "sqlite/header.h"
#include "sqlite/wal_writer_state.h"

namespace litefs {
namespace {

// unixLockSharedMemory truncates to this, too short for a header: whoever meets it knows that it
// was on purpose.
constexpr uint64_t kTruncatedShmBytes = 3;

// WAL_CKPT, WAL_RECOVER and the read locks lie side by side.
constexpr uint64_t kRecoveryLocks = kDmsByte - kWalCheckpointLock;

}  // namespace

Result<std::unique_ptr<WalWriter>> WalWriter::attach(WalWriterFiles files, std::unique_ptr<LockDoor> locks,
                                                     const WalWriterOptions& options, Random& random) {
  CHECK(valid_page_size(options.page_size));
  auto state = std::make_unique<State>(std::move(files), std::move(locks), options, random);
  // SHARED first: it keeps a closing connection from taking the files for its own and unlinking
  // them.
  state->shared.emplace(TRY(take_shared(*state->locks)));
  // Then WAL_WRITE: whoever is recovering the wal-index holds it, so from here on its header stays
  // as it is.
  state->write.emplace(TRY(state->lock_shm(kWalWriteLock, 1, LockKind::kExclusive)));
  TRY(state->join_shared_memory());
  state->index = TRY(WalIndexWriter::open(*state->files.shm));
  TRY(state->load_or_recover());
  TRY(state->check_database());
  return std::unique_ptr<WalWriter>(new WalWriter(std::move(state)));
}

// SQLite asks with F_GETLK whether somebody holds DMS; a door can only try. Exclusive first:
// granted, we are alone and what the file holds may be from before a power cut. Shared after it was
// refused joins those who hold it shared, and asking for exclusive once more covers a holder that
// died in between.
Status WalWriter::State::join_shared_memory() {
  Result<HeldLock> lock = lock_shm(kDmsByte, 1, LockKind::kExclusive);
  bool alone = lock.ok();
  if (!alone) {
    if (lock.error().code() != ErrorCode::kBusy) return lock.error();
    lock = lock_shm(kDmsByte, 1, LockKind::kShared);
    if (!lock.ok()) return lock.error();
    Status again = lock.value().convert(LockKind::kExclusive);
    if (!again.ok() && again.error().code() != ErrorCode::kBusy) return again;
    alone = again.ok();
  }
  dms.emplace(std::move(lock).value());
  if (!alone) return {};
  TRY(files.shm->truncate(kTruncatedShmBytes));
  return dms->convert(LockKind::kShared);
}

Status WalWriter::State::load_or_recover() {
  uint8_t bytes[kWalHeaderBytes];
  size_t n = TRY(files.wal->read_at(0, bytes));
  wal_header = TRY(WalHeader::parse(ByteView(bytes, n)));
  std::optional<WalIndexHeader> header = index->header();
  return header ? adopt(*header) : recover();
}

Error WalWriter::State::other_page_size(uint32_t found) const {
  return Error(ErrorCode::kInvalid, files.wal->path() + " has pages of " + std::to_string(found) + " bytes, not " +
                                        std::to_string(options.page_size));
}

// Others have the wal-index open and it is valid: it says what is committed, even where the WAL
// goes on with a commit that its writer did not live to publish.
Status WalWriter::State::adopt(const WalIndexHeader& header) {
  published = header;
  if (header.max_frame == 0) return {};
  if (header.page_size != options.page_size) return other_page_size(header.page_size);
  uint8_t frame[kWalFrameHeaderBytes];
  TRY(files.wal->read_exactly(frame_offset(header.max_frame), frame));
  WalSalts salts{load_be32(frame + 8), load_be32(frame + 12)};
  WalChecksum checksum{load_be32(frame + 16), load_be32(frame + 20)};
  uint32_t backfilled = index->checkpoint_info().backfilled;
  if (!wal_header || wal_header->salts != header.salts || salts != header.salts ||
      wal_header->big_endian != header.big_endian_checksum || checksum != header.frame_checksum ||
      backfilled > header.max_frame) {
    return Error(ErrorCode::kCorrupt, files.shm->path() + " and " + files.wal->path() + " disagree at frame " +
                                          std::to_string(header.max_frame));
  }
  TRY(index->map_to(header.max_frame));
  index->clean_above(header.max_frame);
  generation = Generation::kReady;
  return {};
}

// walIndexRecover, but for the read locks: SQLite leaves the mark of a reader that is there as it
// is; we want all readers gone, as nothing then depends on the rebuilt index being the one that
// they began with.
Status WalWriter::State::recover() {
  HeldLock others = TRY(lock_shm(kWalCheckpointLock, kRecoveryLocks, LockKind::kExclusive));
  index->reset();
  published = WalIndexHeader{};
  if (wal_header) {
    published.salts = wal_header->salts;
    published.big_endian_checksum = wal_header->big_endian;
  }
  if (wal_header) {
    Status entered_all;
    WalAnchor start{wal_header->salts, 0, wal_header->checksum};
    WalScanResult found =
        TRY(scan_wal(*files.wal, *wal_header, start, [&](uint32_t frame, const WalFrame& meaning, ByteView) {
          entered_all = index->append(frame, meaning.pgno);
          return entered_all.ok();
        }));
    TRY(entered_all);
    if (found.end.frame != 0) {
      if (wal_header->page_size != options.page_size) return other_page_size(wal_header->page_size);
      published.page_size = options.page_size;
      published.max_frame = found.end.frame;
      published.size_pages = found.size_pages;
      published.frame_checksum = found.end.checksum;
      generation = Generation::kReady;
    }
    index->clean_above(published.max_frame);
  }
  index->write_header(published);
  index->set_backfilled(0);
  index->set_backfill_attempted(published.max_frame);
  index->set_read_mark(0, 0);
  index->set_read_mark(1, published.max_frame != 0 ? published.max_frame : kReadMarkUnused);
  for (int i = 2; i < kWalReaders; ++i) index->set_read_mark(i, kReadMarkUnused);
  return {};
}

// By the newest page 1, as the database file's may be older than the WAL, and torn by a power cut.
Status WalWriter::State::check_database() {
  Bytes page1(options.page_size);
  TRY(read_page(1, page1));
  Result<DatabaseHeader> header = DatabaseHeader::parse(page1);
  if (!header.ok()) return header.error().with_context(files.database->path());
  if (header.value().page_size != options.page_size || !header.value().is_wal()) {
    return Error(ErrorCode::kInvalid,
                 files.database->path() + " is not in WAL mode with page size " + std::to_string(options.page_size));
  }
  size_pages = published.size_pages;
  if (size_pages == 0) {
    size_pages = header.value().effective_size(TRY(files.database->info()).size_bytes);
  }
  return {};
}

}  // namespace litefs
