// The tail: reads from a live WAL what SQLite has committed there, in order, each transaction once.
//
// It holds the real -wal and -shm open by descriptors of its own, reads both with pread only (a mapping could be
// truncated under it), takes no file lock, and never touches the mount. sqlite/tail.h decides what to deliver;
// this class reads it, checks every frame's checksum (see published_frame in wal_tail.cc for the one exception), and
// hands over whole transactions. Between two reads it
// remembers its anchor, which moves only with delivered transactions.
//
// Where no index is in use it follows the chain of frame checksums (tail.h). What SQLite 3.40 commits without right
// checksums (published_frame again) it cannot see there: for_each_unchained_page() tells which pages those may be,
// and its owner compares them when a checkpoint has moved them.
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
    ByteView buffer_;            // frames in memory
    uint32_t buffer_first_ = 0;  // number of the first of them
  };

  // Takes a transaction; its error stops the drain, and the transaction is delivered again next time.
  using Deliver = std::function<Status(const Transaction&)>;

  enum class Outcome {
    kIdle,       // nothing was new
    kDelivered,  // all that was published has been delivered
    kWait,       // the files were between two states for too long: try again
  };

  struct DrainOptions {
    bool patient = false;  // re-reads torn headers for up to a few milliseconds before it answers kWait
    ChainEnd chain_end = ChainEnd::kUnknown;
    bool syncing = false;  // a sync of the WAL is going on
  };

  WalTail(FileSystem& files, Clock& clock, const DatabasePaths& paths);

  // (Re)opens -wal and -shm when the names lead to other files than those it holds, or to none. What the old
  // ones still had must have been drained.
  Status refresh();
  // Forgets both files and the map: they have been unlinked.
  void forget();

  void set_index_in_use(bool in_use) { index_in_use_ = in_use; }
  // -shm has been unlinked and not been made anew: SQLite's last close does that before it unlinks -wal.
  bool index_unlinked();
  // Somebody opens the WAL anew, and recovers it where no index is in use.
  void new_user() { trust_.new_user(); }
  bool follows_chain() const { return !index_in_use_ || !shm_; }
  // For a recovery: what the index said before it was taken away. Its frames were published, whatever their
  // checksums say; the chain is followed behind them.
  void set_last_index(const std::optional<WalIndexHeader>& index) { last_index_ = index; }
  const WalAnchor& anchor() const { return anchor_; }
  void set_anchor(const WalAnchor& anchor);

  // Delivers what has been published since the anchor. kDiverged when the published history does not continue the
  // delivered one.
  Result<Outcome> drain(const Deliver& deliver, const DrainOptions& options);
  // Whether the last drain left a commit at the chain's end that will count in a moment, or did not look for one.
  bool holds_commit() const { return holds_commit_; }

  // Without an index: pages of frames that the WAL's user has written behind the chain's last commit. Most are what a
  // rollback left.
  Status for_each_unchained_page(const std::function<void(Pgno)>& visit);
  // The database file has a newer image of this page than every delivered frame.
  void moved_to_file(Pgno pgno);

  // The newest *delivered* image of a page (while a transaction is being delivered: the one before it), when it is in
  // the WAL; false when it is not there.
  Result<bool> read_delivered(Pgno pgno, MutableByteView out);
  // The generation that the WAL is in now; nothing where it has no valid header.
  Result<std::optional<WalSalts>> generation();
  // What was delivered is in the database file: no frame is looked at for it any more.
  void forget_frames() {
    map_.clear();
    map_valid_ = true;
  }
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
  Result<Outcome> deliver_published(const TailDecision& decision, const Deliver& deliver);
  Result<Outcome> deliver_chain(const WalAnchor& from, const Deliver& deliver, const DrainOptions& options);
  Result<bool> repeats_frame_before(uint32_t frame, ByteView bytes);
  Status look_at_anchor(TailInput& input);
  Result<uint32_t> frames_in_file(const WalHeader& header);
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
  WalHeader header_;        // of the anchor's generation
  WalMap map_;              // delivered pages of the anchor's generation
  bool map_valid_ = false;  // false: build it from the WAL when first needed
  Bytes buffer_;
  ChainTrust trust_;
  bool holds_commit_ = false;
  int64_t chain_not_before_ns_ = 0;  // impatient drains leave a long unfinished chain alone until then
  uint32_t unchecked_frames_ = 0;    // published ones in the last drain whose checksum was wrong
};

}  // namespace litefs
