#include "node/export_stream.h"

#include <algorithm>

#include "sqlite/header.h"

namespace litefs {
namespace {

constexpr size_t kPieceBytes = 256u << 10;
constexpr size_t kFrameHeadBytes = 5;

void add_frame(Bytes& out, char type, ByteView payload) {
  CHECK_LE(payload.size(), kExportFrameBytesMax);
  ByteWriter w(out);
  w.u8(static_cast<uint8_t>(type));
  w.le32(static_cast<uint32_t>(payload.size()));
  w.bytes(payload);
}

void write_position(ByteWriter& w, const Position& position) {
  w.le64(position.epoch.value);
  w.le64(position.txid.value);
  w.le64(position.checksum.value);
}

Result<Position> read_position(ByteReader& r) {
  Position position;
  position.epoch.value = TRY(r.le64());
  position.txid.value = TRY(r.le64());
  position.checksum.value = TRY(r.le64());
  return position;
}

class FileRecord final : public RecordSource {
 public:
  FileRecord(File& file, uint64_t size_bytes) : file_(file), size_bytes_(size_bytes) {}
  Status read(uint64_t offset_bytes, MutableByteView out) override { return file_.read_exactly(offset_bytes, out); }
  uint64_t size_bytes() const override { return size_bytes_; }

 private:
  File& file_;
  uint64_t size_bytes_;
};

}  // namespace

// ---- the node's side ----

Result<std::unique_ptr<ExportSource>> ExportSource::open(std::shared_ptr<Database> database, uint64_t hold) {
  // What was committed before this request belongs to the copy (on a replica this does nothing).
  TRY(database->drain(false));
  std::unique_ptr<ExportSource> source(new ExportSource(std::move(database), hold));
  source->database_->hold_log(hold, source->database_->position().txid);
  // After the hold: a position that is newer than the held one is in the log all the more.
  source->start_ = source->database_->info();
  if (source->start_.size_pages == 0) {
    return Error(ErrorCode::kNotFound, "there is no database '" + source->start_.name + "'");
  }
  return source;
}

ExportSource::~ExportSource() { database_->release_log(hold_); }

Bytes ExportSource::failure(const Error& error) {
  Bytes out;
  std::string text = error.message().substr(0, kExportFrameBytesMax);
  add_frame(out, 'X', as_bytes(text));
  return out;
}

Result<Bytes> ExportSource::next() {
  Bytes out;
  switch (phase_) {
    case Phase::kHead:
      out = head();
      phase_ = Phase::kPages;
      break;
    case Phase::kPages: TRY(add_pages(out)); break;
    case Phase::kRecords: TRY(add_record_piece(out)); break;
    case Phase::kEnd:
      add_frame(out, 'Z', ByteView());
      phase_ = Phase::kDone;
      break;
    case Phase::kDone: break;
  }
  return out;
}

Bytes ExportSource::head() {
  Bytes payload;
  ByteWriter w(payload);
  w.le64(start_.id.value);
  write_position(w, start_.position);
  w.le32(start_.page_size);
  w.le64(static_cast<uint64_t>(start_.size_pages) * start_.page_size);
  Bytes out;
  add_frame(out, 'H', payload);
  return out;
}

Status ExportSource::add_pages(Bytes& out) {
  Bytes pages = TRY(copier_.read_from(&next_, kPieceBytes / start_.page_size + 1));
  if (pages.empty()) return add_target(out);
  add_frame(out, 'P', pages);
  return {};
}

Status ExportSource::add_target(Bytes& out) {
  target_ = database_->position();
  Bytes payload;
  ByteWriter w(payload);
  write_position(w, target_);
  add_frame(out, 'T', payload);
  phase_ = Phase::kEnd;
  if (target_ == start_.position) return {};
  cursor_ = TRY(database_->read_log_after(start_.position));
  phase_ = Phase::kRecords;
  return {};
}

Status ExportSource::add_record_piece(Bytes& out) {
  if (!in_record_) {
    if (!TRY(cursor_->next())) {
      return Error(ErrorCode::kIo, "the change log ends before " + position_text(target_));
    }
    in_record_ = true;
    offset_bytes_ = 0;
  }
  const LogEntryInfo& info = cursor_->info();
  Bytes piece(static_cast<size_t>(std::min<uint64_t>(kPieceBytes, info.record_bytes - offset_bytes_)));
  TRY(cursor_->record().read(offset_bytes_, piece));
  add_frame(out, 'R', piece);
  offset_bytes_ += piece.size();
  if (offset_bytes_ < info.record_bytes) return {};
  in_record_ = false;
  add_frame(out, 'E', ByteView());
  if (info.position == target_) phase_ = Phase::kEnd;
  return {};
}

// ---- the program's side ----

ExportReceiver::~ExportReceiver() {
  record_.reset();
  load_.reset();
  // A file of our own that is left over harms nobody; who looks finds it beside the copy.
  for (const char* suffix : {"-record", ".sums"}) static_cast<void>(files_.remove(path_ + suffix).ok());
}

Status ExportReceiver::take(ByteView bytes) {
  pending_.insert(pending_.end(), bytes.begin(), bytes.end());
  size_t at = 0;
  while (pending_.size() - at >= kFrameHeadBytes) {
    const uint32_t length = load_le32(pending_.data() + at + 1);
    if (length > kExportFrameBytesMax) {
      return Error(ErrorCode::kCorrupt, "export stream: a frame of " + std::to_string(length) + " bytes");
    }
    if (pending_.size() - at - kFrameHeadBytes < length) break;
    ByteView payload(pending_.data() + at + kFrameHeadBytes, length);
    TRY(take_frame(pending_[at], payload));
    at += kFrameHeadBytes + length;
  }
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>(at));
  return {};
}

Status ExportReceiver::take_frame(uint8_t type, ByteView payload) {
  if (type == 'X') {
    std::string text(reinterpret_cast<const char*>(payload.data()), payload.size());
    return Error(ErrorCode::kUnavailable, text);
  }
  if (ended_ || (type == 'H') != (load_ == nullptr)) {
    return Error(ErrorCode::kCorrupt, "export stream: a frame is out of place");
  }
  switch (type) {
    case 'H': return take_head(payload);
    case 'P': return load_->add_pages(payload);
    case 'T': {
      ByteReader r(payload, "export stream");
      load_->set_target(TRY(read_position(r)));
      return {};
    }
    case 'R': return take_record_piece(payload);
    case 'E': return apply_record();
    case 'Z': ended_ = true; return {};
    default: return Error(ErrorCode::kCorrupt, "export stream: unknown frame " + std::to_string(type));
  }
}

Status ExportReceiver::take_head(ByteView payload) {
  ByteReader r(payload, "export stream");
  const DatabaseId id{TRY(r.le64())};
  const Position start = TRY(read_position(r));
  TRY(r.le32());  // the pages say it too
  const uint64_t total_bytes = TRY(r.le64());
  load_ = TRY(SnapshotLoad::create(files_, {.path = path_, .id = id, .start = start, .total_bytes = total_bytes}));
  return {};
}

// A record may be as large as the database (an import, a VACUUM), so it goes to a file.
Status ExportReceiver::take_record_piece(ByteView payload) {
  if (!record_) {
    record_ = TRY(files_.open(path_ + "-record", OpenMode::kCreate));
    TRY(record_->truncate(0));
  }
  TRY(record_->write_at(record_bytes_, payload));
  record_bytes_ += payload.size();
  return {};
}

Status ExportReceiver::apply_record() {
  if (!record_) return Error(ErrorCode::kCorrupt, "export stream: a record without bytes");
  FileRecord source(*record_, record_bytes_);
  RecordReader reader = TRY(RecordReader::open(source));
  TRY(reader.verify());
  TRY(load_->apply(source, codec_));
  record_bytes_ = 0;
  return record_->truncate(0);
}

Status ExportReceiver::finish() {
  if (!ended_ || !pending_.empty()) {
    return Error(ErrorCode::kUnavailable, "the node ended the copy before it was complete");
  }
  if (!TRY(load_->complete()) || load_->size_pages() == 0) {
    return Error(ErrorCode::kCorrupt, "export stream: it ends before the state that it is to become");
  }
  Bytes page(load_->page_size());
  TRY(load_->read_page(1, page));
  mask_local_bytes(page);
  // Rollback format: it opens anywhere, read-only media included.
  set_local_bytes(page, false, 1, load_->size_pages());
  TRY(load_->write_page(1, page));
  TRY(load_->file().truncate(static_cast<uint64_t>(load_->size_pages()) * load_->page_size()));
  return load_->file().sync();
}

}  // namespace litefs
