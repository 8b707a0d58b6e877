// Database at start, where a crash left a rollback journal: its transaction is rolled back, and the log decides whether
// it is to be done again. Only pages that it can have touched are looked at.
//
// The journal stays until all is done, so that a crash in between does the same once more.
#include "db/database.h"
#include "sqlite/free_list.h"

namespace litefs {

// Whether the journal belongs to a transaction over several databases that has been committed: its super-journal is
// gone (pager_playback's rule). Journals name it by the path that the application used; in DATA/db it lies under the
// end of that path.
Result<bool> Database::committed_with_others() {
  const std::string super = TRY(super_journal());
  if (super.empty()) return false;
  return !TRY(find_super_journal(super));
}

// Whether a super-journal is there; an empty one counts as gone. It is looked for below each directory that leads to
// this database, as applications may have a path of their own to one of them (a bind mount).
Result<bool> Database::find_super_journal(const std::string& super) {
  std::string below = env_.data_dir + "/db";
  for (size_t begin = 0;;) {
    for (size_t slash = super.rfind('/'); slash != std::string::npos;
         slash = slash == 0 ? std::string::npos : super.rfind('/', slash - 1)) {
      Result<FileInfo> info = env_.files.info(below + super.substr(slash));
      if (info.ok()) return info.value().size_bytes != 0;
      if (info.error().code() != ErrorCode::kNotFound) return info.error();
    }
    const size_t end = name().find('/', begin);
    if (end == std::string::npos) return false;
    below += "/" + name().substr(begin, end - begin);
    begin = end + 1;
  }
}

Result<std::string> Database::super_journal() {
  std::unique_ptr<File> journal = TRY(env_.files.open_if_there(paths_.journal(), OpenMode::kReadOnly));
  return journal ? journal_super_name(*journal) : std::string();
}

Status Database::play_back_hot_journal() {
  if (TRY(committed_with_others())) return {};
  std::unique_ptr<File> journal = TRY(env_.files.open_if_there(paths_.journal(), OpenMode::kReadOnly));
  std::unique_ptr<File> database = TRY(env_.files.open_if_there(paths_.database(), OpenMode::kReadWrite));
  if (journal && database && TRY(play_back_journal(*journal, *database))) {
    env_.log.info("interrupted transaction rolled back").kv("database", name());
  }
  return {};
}

// Nothing where the file is empty or missing.
Result<std::optional<DatabaseHeader>> Database::read_file_header() {
  Result<FileInfo> opened = open_file();
  if (!opened.ok()) {
    if (opened.error().code() == ErrorCode::kNotFound) return std::optional<DatabaseHeader>();
    return opened.error();
  }
  return read_header();
}

// Of file_.
Result<std::optional<DatabaseHeader>> Database::read_header() {
  uint8_t first[kDatabaseHeaderBytes];
  size_t n = TRY(file_->read_at(0, first));
  if (n == 0) return std::optional<DatabaseHeader>();
  Result<DatabaseHeader> header = DatabaseHeader::parse(ByteView(first, n));
  if (!header.ok()) return header.error().with_context(paths_.database());
  return std::optional<DatabaseHeader>(header.value());
}

// No later writer has raised the change counter; EXCLUSIVE mode raises it once for many transactions.
bool Database::counter_as_captured(const std::optional<DatabaseHeader>& header) {
  const ControlState& state = control_->state();
  if (!header) return state.change_counter == 0 || state.change_counter_before == 0;
  return header->change_counter == state.change_counter || header->change_counter == state.change_counter_before;
}

// False: what the file is cannot be told by the journal; it must be compared as a whole.
Result<bool> Database::recover_interrupted() {
  const ControlState& state = control_->state();
  if (!(state.current.anchor == WalAnchor()) || TRY(env_.files.exists(paths_.wal()))) return false;
  std::optional<JournalIndex> journal = TRY(open_journal());
  // Final, or never synced: the database has not been touched since.
  if (!journal) return false;
  // Another transaction had begun to write, and its end was not seen (database_unseen_journal.cc).
  if (state.journal_stamp != 0 && state.journal_stamp != TRY(journal_stamp(journal->file()))) return false;
  PageSet pages;
  for (const auto& [pgno, offset] : journal->places()) pages.add(pgno);
  if (TRY(committed_with_others())) {
    std::optional<DatabaseHeader> header = TRY(read_file_header());
    if (!header || header->page_size != state.page_size || journal->header().page_size != state.page_size) return false;
    FileInfo info = TRY(file_->info());
    TRY(add_unseen_writes(*journal, header->effective_size(info.size_bytes), pages));
    TRY(capture_leftover_pages(pages));
    return true;
  }
  if (state.current.size_pages != 0) {
    Result<std::unique_ptr<LogCursor>> last = last_record();
    if (!last.ok()) return false;
    RecordReader reader = TRY(RecordReader::open(last.value()->record()));
    for (;;) {
      std::optional<EncodedPage> page = TRY(reader.next());
      if (!page) break;
      pages.add(page->pgno);
    }
  }
  if (!TRY(at_last_record(pages))) {
    TRY(play_back_hot_journal());
    if (!counter_as_captured(TRY(read_file_header()))) return false;
    if (state.current.size_pages == 0) return false;  // nothing was captured of it: it is empty again
    Status redone = redo_last_record();
    if (!redone.ok()) {
      if (redone.error().code() != ErrorCode::kCorrupt) return redone.error();
      env_.log.warning("the log's last record cannot be repeated").kv("database", name()).error(redone.error());
      return false;
    }
  }
  TRY(capture_leftover_pages(pages));
  return true;
}

// After a power cut, which can bring a journal back that SQLite had removed: whether the files are what the log ends
// with, by that journal's transaction. To roll it back would leave a state that the log does not know, as free pages
// that it took into use are not in the journal. Of several databases it is in all logs (Store::settle_groups), and in
// all files, as SQLite syncs them before.
Result<bool> Database::journal_came_back() {
  Result<bool> came_back = files_end_with_log();
  if (came_back.ok() || came_back.error().code() == ErrorCode::kIo) return came_back;
  return false;  // torn files, perhaps, which the journal mends
}

Result<bool> Database::files_end_with_log() {
  if (!log_->last() || TRY(env_.files.exists(paths_.wal()))) return false;
  const OnDisk disk = TRY(look_at_files());
  if (!disk.file_exists) return false;
  std::optional<JournalIndex> journal = TRY(open_journal());
  if (!journal || journal->header().page_size != disk.page_size) return false;
  if (journal->header().original_size == disk.size_pages && TRY(transaction_undone())) return false;
  std::unique_ptr<LogCursor> last = TRY(last_entry());
  RecordReader record = TRY(RecordReader::open(last->record()));
  if (record.header().page_size != disk.page_size || record.header().size_after != disk.size_pages) return false;
  // Before all of a large file is read.
  if (!TRY(has_pages_of(record))) return false;
  return TRY(rehash(disk)) == last->info().position.checksum;
}

// Of file_.
Result<bool> Database::has_pages_of(RecordReader& record) {
  Bytes page(record.header().page_size);
  for (;;) {
    std::optional<EncodedPage> recorded = TRY(record.next());
    if (!recorded) return true;
    TRY(read_file_page(recorded->pgno, page));
    if (recorded->pgno == 1) mask_local_bytes(page);
    if (page_hash(recorded->pgno, page) != recorded->hash) return false;
  }
}

// The log's last entry, if it is the captured state.
Result<std::unique_ptr<LogCursor>> Database::last_record() {
  std::optional<LogEntryInfo> last = log_->last();
  if (!last || !(last->position == control_->state().current.position)) {
    return Error(ErrorCode::kNotFound, "the change log does not end with the captured state");
  }
  return last_entry();
}

// The log is not empty.
Result<std::unique_ptr<LogCursor>> Database::last_entry() {
  const LogEntryInfo last = *log_->last();
  const Position before{last.before_epoch, TxId{last.txid_first.value - 1}, last.before};
  std::unique_ptr<LogCursor> cursor = TRY(log_->read_after(before));
  if (!TRY(cursor->next())) return Error(ErrorCode::kCorrupt, "the change log's last record is missing");
  return cursor;
}

// Whether the file is what was captured last, as far as these pages tell: its transaction had only to be made final.
Result<bool> Database::at_last_record(const PageSet& pages) {
  const ControlState& state = control_->state();
  Result<std::optional<DatabaseHeader>> read_header = read_file_header();
  if (!read_header.ok()) {
    if (read_header.error().code() == ErrorCode::kInvalid) return false;  // torn
    return read_header.error();
  }
  const std::optional<DatabaseHeader>& header = read_header.value();
  if (!header || header->page_size != state.page_size || header->change_counter != state.change_counter) return false;
  FileInfo info = TRY(file_->info());
  if (header->effective_size(info.size_bytes) != state.current.size_pages) return false;
  Bytes page(state.page_size);
  Status read;
  bool equal = true;
  pages.for_each([&](Pgno pgno) NO_THREAD_SAFETY_ANALYSIS {
    if (!equal || !read.ok() || pgno > state.current.size_pages) return;
    read = read_file_page(pgno, page);
    if (pgno == 1) mask_local_bytes(page);
    equal = page_hash(pgno, page) == sums_->get(pgno);
  });
  TRY(read);
  return equal;
}

// Writes those pages of the log's last record that the file does not have. A page that the record has as a change of
// the image before it can be decoded, as the journal has brought that image back.
Status Database::redo_last_record() {
  std::unique_ptr<LogCursor> cursor = TRY(last_record());
  RecordReader reader = TRY(RecordReader::open(cursor->record()));
  const RecordHeader& header = reader.header();
  std::optional<DatabaseHeader> there = TRY(read_file_header());
  const bool creates = (header.flags & RecordHeader::kCreate) != 0;
  if (!creates && (!there || there->page_size != header.page_size)) {
    return Error(ErrorCode::kCorrupt, "the log's last record is of another page size than the file");
  }
  const uint32_t counter = there ? there->change_counter : 0;
  std::unique_ptr<File> file = TRY(env_.files.open(paths_.database(), OpenMode::kReadWrite));
  Bytes previous(header.page_size), image(header.page_size);
  size_t written = 0;
  for (;;) {
    std::optional<EncodedPage> page = TRY(reader.next());
    if (!page) break;
    TRY(read_file_page(page->pgno, previous));
    if (page->pgno == 1) mask_local_bytes(previous);
    if (page_hash(page->pgno, previous) == page->hash && !creates) continue;
    TRY(codec_.decode(page->encoding, page->bytes, previous, image));
    if (page_hash(page->pgno, image) != page->hash) {
      return Error(ErrorCode::kCorrupt, "page " + std::to_string(page->pgno) + " of record " +
                                            hex16(header.txid_first.value) + " does not meet its hash");
    }
    if (page->pgno == 1) set_local_bytes(image, false, counter + 1, header.size_after);
    TRY(file->write_at(static_cast<uint64_t>(page->pgno - 1) * header.page_size, image));
    ++written;
  }
  FileInfo info = TRY(file->info());
  const uint64_t size_bytes = static_cast<uint64_t>(header.size_after) * header.page_size;
  if (written == 0 && info.size_bytes == size_bytes) return {};
  TRY(file->truncate(size_bytes));
  TRY(file->sync());
  env_.log.info("interrupted transaction completed from the change log")
      .kv("database", name())
      .kv("txid", log_->last()->position.txid)
      .kv("pages", written);
  return {};
}

// What still differs are free pages that the interrupted transaction had taken into use: a transaction of its own.
Status Database::capture_leftover_pages(PageSet& pages) {
  std::optional<DatabaseHeader> header = TRY(read_file_header());
  if (!header) return Error(ErrorCode::kCorrupt, paths_.database() + " is empty");
  FileInfo info = TRY(file_->info());
  begin_batch();
  NewPages found;
  found.page_size = header->page_size;
  found.size_after = header->effective_size(info.size_bytes);
  auto read = [&](Pgno pgno, MutableByteView page) NO_THREAD_SAFETY_ANALYSIS { return read_file_page(pgno, page); };
  TRY(visit_free_leaves(found.page_size, found.size_after, read, [&](Pgno leaf) { pages.add(leaf); }));
  for (Pgno pgno = batch_.size_pages + 1; pgno <= found.size_after; ++pgno) pages.add(pgno);
  pages.for_each([&](Pgno pgno) {
    if (pgno <= found.size_after) found.pgnos.push_back(pgno);
  });
  read_from_file(found, nullptr);
  return record_file(found);
}

}  // namespace litefs
