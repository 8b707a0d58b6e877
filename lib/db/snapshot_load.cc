#include "db/snapshot_load.h"

#include "sqlite/header.h"

namespace litefs {

Result<std::unique_ptr<SnapshotLoad>> SnapshotLoad::create(FileSystem& files, const std::string& path,
                                                           DatabaseId id, const Position& start,
                                                           uint64_t total_bytes) {
  auto load = std::unique_ptr<SnapshotLoad>(new SnapshotLoad());
  load->file_ = TRY(files.open(path, OpenMode::kCreate));
  TRY(load->file_->truncate(0));
  load->id_ = id;
  load->position_ = start;
  load->total_bytes_ = total_bytes;
  return load;
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
    if (pgno <= hashes_.size() || pgno > hashes_.size() + 2) {
      return Error(ErrorCode::kCorrupt, "snapshot piece: page " + std::to_string(pgno) + " after page " +
                                            std::to_string(hashes_.size()));
    }
    hashes_.resize(pgno);
    hashes_[pgno - 1] = page_hash(pgno, page);
    TRY(write_page(pgno, page));
    loaded_bytes_ += page.size();
  }
  return {};
}

Status SnapshotLoad::read_page(Pgno pgno, MutableByteView page) {
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
    return Error(ErrorCode::kInvalid, "record " + hex16(header.txid_first.value) +
                                           " does not continue the copy at " + position_text(position_));
  }
  hashes_.resize(header.size_after);
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
  Checksum& have = hashes_[page.pgno - 1];
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
  TRY(write_page(page.pgno, next_));
  have = page.hash;
  newer_.erase(page.pgno);
  return {};
}

Result<bool> SnapshotLoad::complete() const {
  if (!target_ || position_.before(*target_)) return false;
  if (!(position_ == *target_)) {
    return Error(ErrorCode::kCorrupt, "the copy went past its end without meeting it");
  }
  Checksum sum;
  for (Pgno pgno = 1; pgno <= hashes_.size(); ++pgno) {
    if (pgno == lock_page(page_size_)) continue;
    if (hashes_[pgno - 1] == Checksum{}) {
      return Error(ErrorCode::kCorrupt, "the copy lacks page " + std::to_string(pgno));
    }
    sum ^= hashes_[pgno - 1];
  }
  if (!newer_.empty() || sum != position_.checksum) {
    return Error(ErrorCode::kCorrupt, "the copy does not meet the checksum of its position " +
                                          position_text(position_));
  }
  return true;
}

}  // namespace litefs
