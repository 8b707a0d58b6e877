// A copy of one database in one committed state, on its way from a node to a program of the same
// machine (local_requests.h: the request "export").
//
// The node sends frames: u8 type, u32 length (at most kExportFrameBytesMax), payload; all numbers
// little-endian.
//
//   H  u64 database id; the copy's start: u64 epoch, u64 TXID, u64 checksum; u32 page size;
//      u64 bytes of pages that will come, as an estimate
//   P  pages as db/page_copier.h makes them: u32 page size, then (u32 pgno, page) each
//   T  no more pages: the state that the copy is to become: u64 epoch, u64 TXID, u64 checksum
//   R  a piece of a change record
//   E  that record is complete
//   Z  the end: all is there
//   X  text: the copy failed, for this reason; nothing follows
//
// H comes first and once, then P's, then T, then the records from the start to T's state, then Z. A
// stream that ends without Z or X was cut. The copy is fuzzy: pages are read one after the other
// while writers go on, and the records bring all of them to one state (DESIGN section 7,
// db/snapshot_load.h); its checksum over all pages proves it. So nobody is made to wait.
//
// Thread rule: ExportSource is used by one thread at a time and does disk I/O; ExportReceiver
// belongs to one thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "db/database.h"
#include "db/page_copier.h"
#include "db/snapshot_load.h"

namespace litefs {

constexpr size_t kExportFrameBytesMax = 1u << 20;

// The node's side: makes the frames, a few at a time.
class ExportSource {
 public:
  // `hold` keeps the log's records for this copy, by a key that nobody else uses. kNotFound: the
  // database has no content.
  static Result<std::unique_ptr<ExportSource>> open(std::shared_ptr<Database> database, uint64_t hold);
  ~ExportSource();
  ExportSource(const ExportSource&) = delete;
  ExportSource& operator=(const ExportSource&) = delete;

  // The next frames; empty behind the last. kBusy: a transaction is on its way into the file, and
  // the same call will succeed later. Any other error ends the copy.
  Result<Bytes> next();
  // What tells the receiver that there will be no copy.
  static Bytes failure(const Error& error);

 private:
  enum class Phase { kHead, kPages, kRecords, kEnd, kDone };
  ExportSource(std::shared_ptr<Database> database, uint64_t hold) : database_(std::move(database)), hold_(hold) {}
  Bytes head();
  Status add_pages(Bytes& out);
  Status add_target(Bytes& out);
  Status add_record_piece(Bytes& out);

  std::shared_ptr<Database> database_;
  PageCopier copier_{database_};
  const uint64_t hold_;
  Phase phase_ = Phase::kHead;
  DatabaseInfo start_;
  Position target_;
  Pgno next_ = 1;
  std::unique_ptr<LogCursor> cursor_;
  bool in_record_ = false;
  uint64_t offset_bytes_ = 0;  // in the cursor's record
};

// The program's side: makes a SQLite file of them.
class ExportReceiver {
 public:
  // The file is made at `path`, which must be the caller's own; records lie beside it meanwhile.
  ExportReceiver(FileSystem& files, const std::string& path) : files_(files), path_(path) {}
  // Removes what it has made beside the file.
  ~ExportReceiver();
  ExportReceiver(const ExportReceiver&) = delete;
  ExportReceiver& operator=(const ExportReceiver&) = delete;

  // Bytes as they arrive, cut anywhere. kUnavailable: the node's own error (frame X); kCorrupt: no
  // such stream.
  Status take(ByteView bytes);
  // After the last byte: the file is a database in rollback-journal mode, at position(), synced.
  Status finish();

  const Position& position() const { return load_->position(); }
  Pgno size_pages() const { return load_->size_pages(); }
  uint32_t page_size() const { return load_->page_size(); }
  uint64_t received_bytes() const { return load_ ? load_->loaded_bytes() : 0; }
  uint64_t total_bytes() const { return load_ ? load_->total_bytes() : 0; }

 private:
  Status take_frame(uint8_t type, ByteView payload);
  Status take_head(ByteView payload);
  Status take_record_piece(ByteView payload);
  Status apply_record();

  FileSystem& files_;
  const std::string path_;
  PageCodec codec_;
  Bytes pending_;  // a frame that has not arrived whole
  std::unique_ptr<SnapshotLoad> load_;
  std::unique_ptr<File> record_;
  uint64_t record_bytes_ = 0;
  bool ended_ = false;
};

}  // namespace litefs
