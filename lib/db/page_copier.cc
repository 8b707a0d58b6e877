#include "db/page_copier.h"

#include <algorithm>
#include <span>

#include "sqlite/header.h"

namespace litefs {
namespace {

// How often the pages of one piece are put to the capture: as the file has them, as the journal has
// them, and as a journal has them that has been read anew.
constexpr int kTries = 3;

}  // namespace

Result<Bytes> PageCopier::read_from(Pgno* next, size_t pages_max) {
  uint64_t place = *next;
  Result<Bytes> piece = read(&place, pages_max, [](uint64_t pgno, Pgno size_pages) {
    return pgno <= size_pages ? static_cast<Pgno>(pgno) : 0;
  });
  *next = static_cast<Pgno>(place);
  return piece;
}

Result<Bytes> PageCopier::read_of(const std::vector<Pgno>& pgnos, size_t* next, size_t pages_max) {
  uint64_t place = *next;
  Result<Bytes> piece =
      read(&place, pages_max, [&](uint64_t index, Pgno) { return index < pgnos.size() ? pgnos[index] : 0; });
  *next = static_cast<size_t>(place);
  return piece;
}

Result<Bytes> PageCopier::read(uint64_t* next, size_t pages_max, const PgnoAt& pgno_at) {
  Bytes out;
  for (;;) {
    const DatabaseInfo info = database_->info();
    if (info.page_size == 0) return out;
    images_.clear();
    std::vector<uint64_t> places;
    uint64_t place = *next;
    for (; images_.size() < pages_max; ++place) {
      const Pgno pgno = pgno_at(place, info.size_pages);
      if (pgno == 0) break;
      if (pgno == lock_page(info.page_size) || pgno > info.size_pages) continue;
      images_.push_back({.pgno = pgno});
      places.push_back(place);
    }
    if (images_.empty()) {
      *next = place;
      journal_.reset();
      return out;
    }
    const size_t count = TRY(settle_first(info.page_size));
    if (count == 0) {
      return Error(ErrorCode::kBusy,
                   "page " + std::to_string(images_[0].pgno) + " of " + database_->name() +
                       " does not settle on its captured image: a transaction in flight has changed it");
    }
    *next = count < images_.size() ? places[count] : place;
    ByteWriter w(out);
    for (const PageImage& image : std::span(images_).first(count)) {
      if (image.state == PageImage::State::kBeyond) continue;
      if (out.empty()) w.le32(info.page_size);
      w.le32(image.pgno);
      w.bytes(image.bytes);
    }
    if (!out.empty()) return out;  // else the database shrank below all of them
  }
}

// How many of the first images are settled in the end.
Result<size_t> PageCopier::settle_first(uint32_t page_size) {
  TRY(read_file(page_size));
  for (int i = 0; i < kTries; ++i) {
    if (i > 0) read_journal(settled());
    const bool in_time = TRY(database_->settle(page_size, images_));
    if (settled() == images_.size()) {
      if (i == 0) journal_.reset();  // no transaction in flight is met any more
      break;
    }
    // What is settled goes first, so that a commit that waits for the capture has its turn.
    if (!in_time && settled() > 0) break;
  }
  return settled();
}

size_t PageCopier::settled() const {
  auto open = std::find_if(images_.begin(), images_.end(),
                           [](const PageImage& image) { return image.state == PageImage::State::kOpen; });
  return static_cast<size_t>(open - images_.begin());
}

Status PageCopier::read_file(uint32_t page_size) {
  buffer_.assign(images_.size() * page_size, 0);
  const std::shared_ptr<File> file = TRY(database_->file_for_copy());
  for (size_t i = 0; i < images_.size(); ++i) {
    PageImage& image = images_[i];
    image.bytes = MutableByteView(buffer_).subspan(i * page_size, page_size);
    if (!file) continue;
    TRY(file->read_at(static_cast<uint64_t>(image.pgno - 1) * page_size, image.bytes));
    image.take_hash();
  }
  return {};
}

// Takes the images that are open from the journal of the transaction in flight, where it has them.
// An error leaves them as they are: it is read while SQLite writes it, and what is not right does
// not agree.
void PageCopier::read_journal(size_t from) {
  if (!journal_ || !journal_->has(images_[from].pgno)) {
    Result<std::optional<JournalIndex>> read = database_->open_journal();
    journal_ = read.ok() ? std::move(read).value() : std::nullopt;
  }
  if (!journal_) return;
  for (PageImage& image : std::span(images_).subspan(from)) {
    if (image.state != PageImage::State::kOpen) continue;
    const Result<bool> original = journal_->original(image.pgno, image.bytes);
    if (original.ok() && original.value()) image.take_hash();
  }
}

}  // namespace litefs
