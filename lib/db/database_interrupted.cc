// Database at start, where a crash left a rollback journal: the transaction in it is rolled back, and the log decides
// whether it was the last one that counts. Only the pages that a transaction can have touched are looked at.
#include "db/database.h"
#include "sqlite/free_list.h"
#include "sqlite/header.h"

namespace litefs {

// Rolls back what a hot journal says. The journal stays: until the caller is done, a crash does the same again.
Result<Database::Interrupted> Database::play_back_hot_journal() {
  Interrupted interrupted;
  Result<std::unique_ptr<File>> journal = env_.files.open(paths_.journal(), OpenMode::kReadOnly);
  if (!journal.ok()) {
    if (journal.error().code() == ErrorCode::kNotFound) return interrupted;
    return journal.error();
  }
  interrupted.found = true;
  Result<std::unique_ptr<File>> database = env_.files.open(paths_.database(), OpenMode::kReadWrite);
  if (!database.ok()) {
    if (database.error().code() == ErrorCode::kNotFound) return interrupted;
    return database.error();
  }
  std::unique_ptr<File> again = TRY(env_.files.open(paths_.journal(), OpenMode::kReadOnly));
  std::optional<JournalIndex> index = TRY(JournalIndex::read(std::move(again)));
  if (!index) return interrupted;  // final, or not synced yet: the database is as it was
  for (const auto& [pgno, offset] : index->places()) interrupted.pages.add(pgno);
  if (TRY(play_back_journal(*journal.value(), *database.value()))) {
    env_.log.info("interrupted transaction rolled back").kv("database", name());
  }
  return interrupted;
}

// Whether the file can only have been changed by the transaction that was interrupted: it is in a rollback mode, of the
// page size that was captured, and no later writer has raised its change counter.
bool Database::only_interrupted(const OnDisk& disk) {
  const ControlState& state = control_->state();
  if (state.current.size_pages == 0 || !(state.current.anchor == WalAnchor())) return false;
  if (disk.page_size != state.page_size || disk.wal_header) return false;
  uint8_t first[kDatabaseHeaderBytes];
  Result<size_t> got = file_->read_at(0, first);
  if (!got.ok()) return false;
  Result<DatabaseHeader> header = DatabaseHeader::parse(ByteView(first, got.value()));
  if (!header.ok()) return false;
  const uint32_t counter = header.value().change_counter;
  return counter == state.change_counter || counter == state.change_counter_before;
}

// Brings a file whose interrupted transaction has been rolled back to the log's last record. What then still differs are
// free pages that were in use for a while: a transaction of its own.
Status Database::recover_interrupted(const OnDisk& disk, Interrupted& interrupted) {
  Pgno size_pages = disk.size_pages;
  Status redone = redo_last_record(interrupted.pages, size_pages);
  if (!redone.ok()) {
    if (redone.error().code() != ErrorCode::kCorrupt && redone.error().code() != ErrorCode::kNotFound) return redone;
    env_.log.warning("the last record cannot be repeated; comparing the whole database").kv("database", name()).error(redone.error());
    return recover_by_content(TRY(look_at_files()));
  }
  TRY(open_file());
  auto read = [&](Pgno pgno, MutableByteView page) NO_THREAD_SAFETY_ANALYSIS { return read_file_page(pgno, page); };
  TRY(visit_free_leaves(disk.page_size, size_pages, read, [&](Pgno leaf) { interrupted.pages.add(leaf); }));
  begin_batch();
  for (Pgno pgno = batch_.size_pages + 1; pgno <= size_pages; ++pgno) interrupted.pages.add(pgno);
  NewPages pages;
  pages.page_size = disk.page_size;
  pages.size_after = size_pages;
  interrupted.pages.for_each([&](Pgno pgno) {
    if (pgno <= size_pages) pages.pgnos.push_back(pgno);
  });
  return capture_pages(pages, nullptr);
}

// Writes those pages of the log's last record that the file does not have; `pages` gets all of the record's. A page that
// the record has as a change of the image before it can be decoded, as the journal has brought that image back.
Status Database::redo_last_record(PageSet& pages, Pgno& size_pages) {
  std::optional<LogEntryInfo> last = log_->last();
  if (!last || !(last->position == control_->state().current.position)) return {};
  Position before{last->before_epoch, TxId{last->txid_first.value - 1}, last->before};
  std::unique_ptr<LogCursor> cursor = TRY(log_->read_after(before));
  if (!TRY(cursor->next())) return Error(ErrorCode::kNotFound, "the log's last record is gone");
  RecordReader reader = TRY(RecordReader::open(cursor->record()));
  const RecordHeader& header = reader.header();
  const uint32_t page_size = control_->state().page_size;
  if (header.page_size != page_size) return Error(ErrorCode::kCorrupt, "the log's last record has another page size");
  std::unique_ptr<File> file = TRY(env_.files.open(paths_.database(), OpenMode::kReadWrite));
  TRY(open_file());
  uint8_t first[kDatabaseHeaderBytes];
  TRY(file->read_exactly(0, first));
  const uint32_t counter = TRY(DatabaseHeader::parse(first)).change_counter;
  Bytes previous(page_size), image(page_size);
  size_t written = 0;
  for (;;) {
    std::optional<EncodedPage> page = TRY(reader.next());
    if (!page) break;
    pages.add(page->pgno);
    TRY(read_file_page(page->pgno, previous));
    if (page->pgno == 1) mask_local_bytes(previous);
    if (page_hash(page->pgno, previous) == page->hash) continue;
    TRY(codec_.decode(page->encoding, page->bytes, previous, image));
    if (page_hash(page->pgno, image) != page->hash) {
      return Error(ErrorCode::kCorrupt, "page " + std::to_string(page->pgno) + " of record " +
                                            hex16(header.txid_first.value) + " does not meet its hash");
    }
    if (page->pgno == 1) set_local_bytes(image, false, counter + 1, header.size_after);
    TRY(file->write_at(static_cast<uint64_t>(page->pgno - 1) * page_size, image));
    ++written;
  }
  if (written == 0 && header.size_after == size_pages) return {};
  size_pages = header.size_after;
  TRY(file->truncate(static_cast<uint64_t>(size_pages) * page_size));
  TRY(file->sync());
  env_.log.info("interrupted transaction completed from the change log")
      .kv("database", name())
      .kv("txid", last->position.txid)
      .kv("pages", written);
  return {};
}

}  // namespace litefs
