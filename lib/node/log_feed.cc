#include "node/log_feed.h"

#include <algorithm>

#include "db/page_copier.h"
#include "db/page_difference.h"
#include "db/snapshot_codec.h"

namespace litefs {
namespace {

// A record larger than this comes in pieces of it.
constexpr size_t kPieceBytes = 256u << 10;
// A replica with nothing gets a copy where the log would be longer than this and the database.
constexpr uint64_t kLogInsteadOfCopyBytes = 1u << 20;

struct ReadPieces {
  std::vector<std::unique_ptr<Bytes>> owned;
};

RecordPlace place_of(const LogEntryInfo& info) {
  RecordPlace place;
  place.txid_first = info.txid_first;
  place.before = info.before;
  place.after = info.position;
  place.record_bytes = info.record_bytes;
  return place;  // never `drops`: a name's history goes on after a deletion
}

// The cursor and where it stands; the jobs' own, one at a time.
struct LogReader {
  std::unique_ptr<LogCursor> cursor;
  uint64_t offset_bytes = 0;  // of the next piece in the cursor's record
  bool in_record = false;

  Result<FeedChunk> read(size_t bytes_max) {
    auto owner = std::make_shared<ReadPieces>();
    FeedChunk chunk;
    size_t bytes = 0;
    while (bytes < bytes_max) {
      if (!in_record) {
        if (!TRY(cursor->next())) break;
        in_record = true;
        offset_bytes = 0;
      }
      uint64_t left = cursor->info().record_bytes - offset_bytes;
      auto piece = std::make_unique<Bytes>(static_cast<size_t>(std::min<uint64_t>(left, kPieceBytes)));
      TRY(cursor->record().read(offset_bytes, *piece));
      FeedPiece out;
      out.place = place_of(cursor->info());
      out.offset_bytes = offset_bytes;
      out.bytes = *piece;
      bytes += piece->size();
      offset_bytes += piece->size();
      in_record = offset_bytes < cursor->info().record_bytes;
      chunk.pieces.push_back(out);
      owner->owned.push_back(std::move(piece));
    }
    chunk.owner = owner;
    return chunk;
  }
};

class WorkerLogFeed final : public LogFeed {
 public:
  WorkerLogFeed(const FeedThreads& threads, std::shared_ptr<LogReader> reader)
      : threads_(threads), reader_(std::move(reader)) {}

  void read(size_t bytes_max, ReadDone done) override {
    threads_.workers.post([reader = reader_, bytes_max, done = std::move(done), &loop = threads_.loop] {
      auto chunk = std::make_shared<Result<FeedChunk>>(reader->read(bytes_max));
      loop.post([chunk, done] { done(std::move(*chunk)); });
    });
  }

 private:
  FeedThreads threads_;
  std::shared_ptr<LogReader> reader_;
};

// A whole copy, or the difference to what the other side has.
struct SnapshotReader {
  explicit SnapshotReader(std::shared_ptr<Database> of) : database(std::move(of)), copier(database) {}

  std::shared_ptr<Database> database;
  PageCopier copier;
  Pgno next = 1;
  std::optional<PageDifference> difference{};

  Result<SnapshotChunk> read(size_t bytes_max) {
    const size_t page_size = std::max<uint32_t>(database->info().page_size, 512);
    size_t pages = std::max<size_t>(1, std::min(bytes_max, kSnapshotPieceBytesMax / 4) / page_size);
    SnapshotChunk chunk;
    if (difference) {
      PageDifference::Step step = TRY(difference->step(pages));
      if (!step.pages.empty()) chunk.bytes = TRY(pack_snapshot_piece(step.pages));
      chunk.question = std::move(step.question);
      chunk.last = step.last;
    } else {
      Bytes raw = TRY(copier.read_from(&next, pages));
      if (!raw.empty()) chunk.bytes = TRY(pack_snapshot_piece(raw));
      chunk.last = raw.empty() || next > database->info().size_pages;
    }
    if (chunk.last) chunk.consistent_at = database->position();
    return chunk;
  }
};

class WorkerSnapshotFeed final : public SnapshotFeed {
 public:
  WorkerSnapshotFeed(const FeedThreads& threads, std::shared_ptr<SnapshotReader> reader)
      : threads_(threads), reader_(std::move(reader)) {}

  void read(size_t bytes_max, ReadDone done) override {
    threads_.workers.post([reader = reader_, bytes_max, done = std::move(done), &loop = threads_.loop] {
      auto chunk = std::make_shared<Result<SnapshotChunk>>(reader->read(bytes_max));
      loop.post([chunk, done] { done(std::move(*chunk)); });
    });
  }
  // No read is under way.
  void answer(std::vector<Checksum> sums) override { reader_->difference->answer(std::move(sums)); }

 private:
  FeedThreads threads_;
  std::shared_ptr<SnapshotReader> reader_;
};

Result<std::shared_ptr<LogReader>> open_reader(Database& database, DatabaseId id, const Position& position) {
  DatabaseInfo info = database.info();
  const bool nothing = position == Position();
  if (nothing) {
    uint64_t content = static_cast<uint64_t>(info.size_pages) * info.page_size;
    if (info.log_bytes > std::max(content, kLogInsteadOfCopyBytes)) {
      return Error(ErrorCode::kNotFound, "a copy is smaller than the log");
    }
  } else if (id != info.id) {
    return Error(ErrorCode::kDiverged, "it has another database of this name");
  }
  std::optional<Position> oldest_before = TRY(database.oldest_in_log());
  if (!oldest_before && position != info.position) {
    const bool was_here = TRY(database.was_at(position));
    return Error(was_here || nothing ? ErrorCode::kNotFound : ErrorCode::kDiverged,
                 "the log is empty, and its position is not the database's");
  }
  Result<std::unique_ptr<LogCursor>> cursor = database.read_log_after(position);
  if (!cursor.ok()) {
    if (cursor.error().code() != ErrorCode::kNotFound || nothing) return cursor.error();
    // Neither in the log nor known to have been: perhaps another history.
    return TRY(database.was_at(position))
               ? cursor.error()
               : Error(ErrorCode::kDiverged,
                       "its position " + position_text(position) + " is not known to have been this database's");
  }
  auto reader = std::make_shared<LogReader>();
  reader->cursor = std::move(cursor).value();
  return reader;
}

}  // namespace

void open_log_feed(const FeedThreads& threads, std::shared_ptr<Database> database, DatabaseId id,
                   const Position& position, PrimaryHost::FeedDone done) {
  threads.workers.post([threads, database, id, position, done = std::move(done)] {
    auto reader = std::make_shared<Result<std::shared_ptr<LogReader>>>(open_reader(*database, id, position));
    threads.loop.post([threads, reader, done] {
      if (!reader->ok()) return done(reader->error());
      done(std::unique_ptr<LogFeed>(new WorkerLogFeed(threads, std::move(*reader).value())));
    });
  });
}

void start_snapshot_feed(const FeedThreads& threads, std::shared_ptr<Database> database, bool compares,
                         PrimaryHost::SnapshotDone done) {
  threads.workers.post([threads, database, compares, done = std::move(done)] {
    DatabaseInfo info = database->info();
    auto start = std::make_shared<SnapshotStart>();
    start->id = info.id;
    start->start = info.position;
    start->estimated_bytes = static_cast<uint64_t>(info.size_pages) * info.page_size;
    start->page_size = info.size_pages == 0 ? 0 : info.page_size;
    start->size_pages = info.size_pages;
    auto reader = std::make_shared<SnapshotReader>(database);
    if (compares) reader->difference.emplace(database, info.size_pages);
    start->feed = std::make_unique<WorkerSnapshotFeed>(threads, std::move(reader));
    threads.loop.post([start, done] { done(std::move(*start)); });
  });
}

}  // namespace litefs
