// The tail: reads from a live WAL what SQLite has committed there, in order, each transaction once.
//
// It holds the real -wal and -shm open by descriptors of its own, reads both with pread only (a mapping could be
// truncated under it), takes no file lock, and never touches the mount. sqlite/tail.h decides what to deliver;
// this class reads it, checks every frame's checksum (see published_frame in wal_tail.cc for the one exception), and
// hands over whole transactions. Between two reads it
// remembers its anchor, which moves only with delivered transactions.
//
// Promise: given that drain() is called before every complete checkpoint takes effect and before -wal or -shm are
// unlinked, every transaction is delivered once, in commit order, with the pages that its last frames hold.
// Thread rule: the owner serialises (the database's capture mutex).
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "db/paths.h"
#include "db/wal_map.h"
#include "env/clock.h"
#include "env/file.h"
#include "sqlite/tail.h"

namespace litefs {

class WalTail {
 public:
  // One committed transaction: its pages ascending, each with its last frame. The bytes of small transactions
  // are in memory; of large ones they are read again from the WAL.
  class Transaction {
   public:
    struct Page {
      Pgno pgno;
      uint32_t frame;
    };
    const std::vector<Page>& pages() const { return pages_; }
    Pgno size_after() const { return size_after_; }
    const WalAnchor& end() const { return end_; }
    uint32_t page_size() const { return header_->page_size; }
    Status read(const Page& page, MutableByteView out) const;

   private:
    friend class WalTail;
    std::vector<Page> pages_;
    Pgno size_after_ = 0;
    WalAnchor end_;
    const WalHeader* header_ = nullptr;
    File* wal_ = nullptr;
    ByteView buffer_;           // frames in memory
    uint32_t buffer_first_ = 0;  // number of the first of them
  };

  // Takes a transaction; its error stops the drain, and the transaction is delivered again next time.
  using Deliver = std::function<Status(const Transaction&)>;

  enum class Outcome {
    kIdle,       // nothing was new
    kDelivered,  // all that was published has been delivered
    kWait,       // the files were between two states for too long: try again
  };

  WalTail(FileSystem& files, Clock& clock, const DatabasePaths& paths);

  // (Re)opens -wal and -shm when the names lead to other files than those it holds, or to none. What the old
  // ones still had must have been drained.
  Status refresh();
  // Forgets both files and the map: they have been unlinked.
  void forget();

  void set_index_in_use(bool in_use) { index_in_use_ = in_use; }
  // For a recovery: what the index said before it was taken away. Its frames were published, whatever their
  // checksums say; the chain is followed behind them.
  void set_last_index(const std::optional<WalIndexHeader>& index) { last_index_ = index; }
  const WalAnchor& anchor() const { return anchor_; }
  void set_anchor(const WalAnchor& anchor);

  // Delivers what has been published since the anchor. `patient`: re-reads torn headers for up to a few
  // milliseconds before it answers kWait. kDiverged when the published history does not continue the delivered
  // one.
  Result<Outcome> drain(const Deliver& deliver, bool patient);

  // The newest *delivered* image of a page (while a transaction is being delivered: the one before it), when it is in
  // the WAL; false when it is not there.
  Result<bool> read_delivered(Pgno pgno, MutableByteView out);
  // Every page that a delivered frame of this generation holds.
  Status for_each_delivered_page(const std::function<Status(Pgno)>& visit);
  // Whether `pgno` has a published frame behind the anchor, so that the database file may be ahead of what was
  // delivered (a checkpoint moved it).
  Result<bool> published_beyond(Pgno pgno);
  // Whether some committed frame of this generation holds exactly this page image (by its hash, masked).
  Result<bool> holds_image(Pgno pgno, Checksum hash);

  // Published frames of the last drain whose checksum was wrong: SQLite's own recovery would lose them.
  uint32_t unchecked_frames() const { return unchecked_frames_; }
  File* wal() { return wal_.get(); }
  bool has_wal() const { return wal_ != nullptr; }

 private:
  class Frames;
  Result<TailInput> look();
  Result<Outcome> deliver_frames(const TailDecision& decision, const Deliver& deliver);
  Status deliver_one(Frames& frames, std::vector<Transaction::Page>& pages, Pgno size_after, const WalAnchor& end,
                     const Deliver& deliver);
  Status build_map();
  Result<std::optional<WalHeader>> read_wal_header();
  Result<std::optional<WalIndexHeader>> read_index_header();
  Status reopen(const std::string& path, std::unique_ptr<File>& held);

  FileSystem& files_;
  Clock& clock_;
  DatabasePaths paths_;
  std::unique_ptr<File> wal_;
  std::unique_ptr<File> shm_;
  bool index_in_use_ = false;
  std::optional<WalIndexHeader> last_index_;
  WalAnchor anchor_;
  WalHeader header_;      // of the anchor's generation
  WalMap map_;            // delivered pages of the anchor's generation
  bool map_valid_ = false;  // false: build it from the WAL when first needed
  Bytes buffer_;
  uint32_t unchecked_frames_ = 0;  // published ones in the last drain whose checksum was wrong
};

}  // namespace litefs
