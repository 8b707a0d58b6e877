#include "db/snapshot_load.h"

#include <algorithm>

#include "sqlite/header.h"

namespace litefs {

Result<std::unique_ptr<SnapshotLoad>> SnapshotLoad::create(FileSystem& files, const Options& options) {
  auto load = std::unique_ptr<SnapshotLoad>(new SnapshotLoad());
  TRY(remove_files(files, options.path));
  load->file_ = TRY(files.open(options.path, OpenMode::kCreate));
  load->hashes_ = TRY(PageSums::open(files, options.path + ".sums"));
  load->id_ = options.id;
  load->position_ = options.start;
  load->total_bytes_ = options.total_bytes;
  return load;
}

Status SnapshotLoad::remove_files(FileSystem& files, const std::string& path) {
  for (const std::string& file : {path, path + ".sums"}) {
    TRY(files.remove_if_there(file));
  }
  return {};
}

Status SnapshotLoad::build_on(Base base) {
  CHECK_EQ(size_pages_, 0u);
  size_pages_ = base.size_pages;
  page_size_ = base.page_size;
  // Only up to what is here: a sender's size, whatever it says, takes no room by itself.
  const Pgno common = std::min(base.size_pages, base.sums->highest());
  TRY(hashes_->reserve(common));
  for (Pgno pgno = 1; pgno <= common; ++pgno) hashes_->set(pgno, base.sums->get(pgno));
  base_ = std::move(base);
  return {};
}

void SnapshotLoad::resize(Pgno size_pages) {
  if (size_pages < size_pages_) hashes_->shrink(size_pages);
  size_pages_ = size_pages;
}

Status SnapshotLoad::add_pages(ByteView piece) {
  ByteReader in(piece, "snapshot piece");
  uint32_t page_size = TRY(in.le32());
  if (!valid_page_size(page_size) || (page_size_ != 0 && page_size != page_size_)) {
    return Error(ErrorCode::kCorrupt, "snapshot piece: page size " + std::to_string(page_size));
  }
  page_size_ = page_size;
  while (!in.at_end()) {
    Pgno pgno = TRY(in.le32());
    ByteView page = TRY(in.bytes(page_size));
    // A whole copy leaves out nothing but the lock page; the difference to a base ends with the sender's size.
    const Pgno last = base_ ? base_->size_pages : last_loaded_ + 2;
    if (pgno <= last_loaded_ || pgno > last || pgno == lock_page(page_size)) {
      return Error(ErrorCode::kCorrupt,
                   "snapshot piece: page " + std::to_string(pgno) + " after page " + std::to_string(last_loaded_));
    }
    if (pgno > size_pages_) resize(pgno);
    TRY(hashes_->reserve(pgno));
    hashes_->set(pgno, page_hash(pgno, page));
    TRY(write_page(pgno, page));
    loaded_bytes_ += page.size();
    last_loaded_ = pgno;
  }
  return {};
}

Status SnapshotLoad::read_page(Pgno pgno, MutableByteView page) {
  if (base_ && base_->sums->get(pgno) == hash(pgno)) {
    TRY(base_->read(pgno, page));
    if (page_hash(pgno, page) == hash(pgno)) return {};
    return Error(ErrorCode::kDiverged, "page " + std::to_string(pgno) + " here is not what its page hash says");
  }
  return file_->read_exactly(static_cast<uint64_t>(pgno - 1) * page.size(), page);
}

Status SnapshotLoad::write_page(Pgno pgno, ByteView page) {
  return file_->write_at(static_cast<uint64_t>(pgno - 1) * page.size(), page);
}

Status SnapshotLoad::apply(RecordSource& record, PageCodec& codec) {
  RecordReader reader = TRY(RecordReader::open(record));
  const RecordHeader& header = reader.header();
  if (header.txid_first.value != position_.txid.value + 1 || header.before != position_.checksum ||
      header.database != id_ || header.page_size != page_size_ ||
      (header.flags & (RecordHeader::kCreate | RecordHeader::kDrop))) {
    return Error(ErrorCode::kInvalid, "record " + hex16(header.txid_first.value) + " does not continue the copy at " +
                                          position_text(position_));
  }
  resize(header.size_after);
  for (;;) {
    std::optional<EncodedPage> page = TRY(reader.next());
    if (!page) break;
    TRY(apply_page(*page, codec));
  }
  std::erase_if(newer_, [&](Pgno pgno) { return pgno > header.size_after; });
  position_ = Position{header.epoch, header.txid_last, reader.after()};
  return {};
}

Status SnapshotLoad::apply_page(const EncodedPage& page, PageCodec& codec) {
  const Checksum have = hash(page.pgno);
  if (have == page.hash) {
    newer_.erase(page.pgno);
    return {};
  }
  current_.resize(page_size_);
  next_.resize(page_size_);
  bool self_contained = page.encoding == PageEncoding::kRaw || page.encoding == PageEncoding::kZstd;
  ByteView previous;
  if (!self_contained) {
    if (have == Checksum{}) {
      newer_.insert(page.pgno);
      return {};
    }
    TRY(read_page(page.pgno, current_));
    previous = current_;
  }
  Status decoded = codec.decode(page.encoding, page.bytes, previous, next_);
  if (!decoded.ok() || page_hash(page.pgno, next_) != page.hash) {
    if (self_contained) return Error(ErrorCode::kCorrupt, "a record's page does not meet its hash");
    newer_.insert(page.pgno);
    return {};
  }
  TRY(hashes_->reserve(page.pgno));
  TRY(write_page(page.pgno, next_));
  hashes_->set(page.pgno, page.hash);
  newer_.erase(page.pgno);
  return {};
}

Result<bool> SnapshotLoad::complete() const {
  if (!target_ || position_.before(*target_)) return false;
  if (!(position_ == *target_)) {
    return Error(ErrorCode::kCorrupt, "the copy went past its end without meeting it");
  }
  Checksum sum;
  for (Pgno pgno = 1; pgno <= size_pages_; ++pgno) {
    if (pgno == lock_page(page_size_)) continue;
    if (hash(pgno) == Checksum{}) {
      return Error(ErrorCode::kCorrupt, "the copy lacks page " + std::to_string(pgno));
    }
    sum ^= hash(pgno);
  }
  if (!newer_.empty() || sum != position_.checksum) {
    return Error(ErrorCode::kCorrupt,
                 "the copy does not meet the checksum of its position " + position_text(position_));
  }
  return true;
}

}  // namespace litefs
