// One replicated database: its SQLite files, its change log, its position.
//
// On a primary it captures: drains the WAL's tail at the moments that the front ends report, and compares the file
// when a rollback journal is final. On a replica it applies: records go to its own log, then into the WAL. In both
// roles its position changes in exactly one function (advance()), after the log has the record and before anybody is
// told. After a crash recover() brings files, log, page sums and control file together (DESIGN section 12).
//
// Errors: after one that may leave database and log disagreeing the database is stopped (state kStopped, detail says
// why): it refuses work until it is reopened. Everything else leaves it usable.
//
// Thread rule: any thread, which may do disk I/O here; `mutex_` (the capture mutex) is held for that long. Nothing
// here touches the mount, waits for a peer, or calls back under `status_mutex_`. Lock order: mutex_, status_mutex_.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"
#include "changelog/change_log.h"
#include "changelog/page_codec.h"
#include "changelog/page_ranges.h"
#include "db/control.h"
#include "db/database_state.h"
#include "db/directories.h"
#include "db/page_set.h"
#include "db/page_sums.h"
#include "db/past_positions.h"
#include "db/paths.h"
#include "db/wal_tail.h"
#include "env/clock.h"
#include "env/file.h"
#include "env/process.h"
#include "sqlite/header.h"
#include "sqlite/journal.h"
#include "sqlite/locks.h"
#include "sqlite/wal_writer.h"

namespace litefs {

class SnapshotLoad;

// Records that became one database's log's end, in order.
struct CapturedBatch {
  struct Item {
    LogEntryInfo info;
    bool drops = false;
    Bytes record;
  };
  Position before;
  Position after;
  std::vector<Item> items;  // empty: the records are only in the log (too large for memory)
  size_t bytes = 0;
};

struct DatabaseInfo {
  std::string name;
  DatabaseId id;
  uint32_t page_size = 0;
  Pgno size_pages = 0;
  Position position;  // captured, or applied
  Position received;  // on a replica: in its log, perhaps not applied yet
  DatabaseState state = DatabaseState::kOpening;
  std::string detail;
  uint64_t log_bytes = 0;
  // Of a load, or of a hashing of the whole file; total 0: none is going on.
  uint64_t progress_bytes = 0;
  uint64_t progress_total_bytes = 0;
  int64_t progress_started_ns = 0;
};

// Who wants to know. Called without status_mutex_, some with mutex_ held: implementations only note and wake.
class DatabaseObserver {
 public:
  virtual ~DatabaseObserver() = default;
  // Records have been captured, in order (mutex_ held).
  virtual void committed(const std::string& name, CapturedBatch batch) = 0;
  // State or detail changed.
  virtual void changed(const std::string& name) = 0;
  // The position moved (mutex_ held).
  virtual void moved(const std::string&) {}
  // The node changed files behind the kernel's back. file_resized waits until the kernel knows, with a deadline;
  // the others only post.
  virtual Status file_resized(const std::string& file_name) = 0;
  virtual void file_created(const std::string& file_name) = 0;
  virtual void file_removed(const std::string& file_name) = 0;
};

// A page on its way into a copy.
struct PageImage {
  enum class State {
    kOpen,      // not known to be anything yet
    kCaptured,  // the captured image
    kBeyond,    // the database has no such page any more
  };
  Pgno pgno = 0;
  MutableByteView bytes{};
  Checksum hash{};
  State state = State::kOpen;

  // Of the bytes, whose local ones become zero.
  void take_hash() {
    if (pgno == 1) mask_local_bytes(bytes);
    hash = page_hash(pgno, bytes);
  }
};

// A copy that comes from the primary.
struct LoadStart {
  DatabaseId id;
  Position start;
  uint64_t total_bytes = 0;  // estimated
  uint32_t page_size = 0;    // of the sender's database, 0: not known
  Pgno size_pages = 0;
  bool compares = false;  // only pages come in which the two differ
  // Why the present state is kept under lost/ before it is overwritten; empty: the primary knows it.
  std::string keep_because;
};

// Hands out the node's locks on a database's files, by the door that its applications use.
class LockDoors {
 public:
  virtual ~LockDoors() = default;
  virtual Result<std::unique_ptr<LockDoor>> open(const std::string& name) = 0;
};

struct DatabaseEnvironment {
  FileSystem& files;
  Clock& clock;
  Random& random;
  Log log;
  std::string data_dir;
  NodeId node;
  DatabaseObserver& observer;
  LockDoors& lock_doors;
  // Who may have files of the names given open since before the node's start, where the locks of now are not theirs.
  std::function<std::vector<ProcessName>(const std::vector<std::string>& file_names)> left_over{};
  // Whether other processes may be using the databases, so that what appears is started as they go on (start_live_*);
  // null: never.
  std::function<bool()> attended{};
  // Runs a job in a moment, on a thread that may do disk I/O; null: nothing is put off.
  std::function<void(std::function<void()>)> run_later{};
  // Testing only: leaves out the drains that DESIGN section 5 asks for, to show that tests notice.
  bool skip_drains = false;
  uint64_t segment_bytes = 16u << 20;
};

class Database : public std::enable_shared_from_this<Database> {
 public:
  // Opens (or makes) the node's own files of this database. Touches no SQLite file. Where they cannot be opened the
  // database is stopped; one that is new has never been, and leaves nothing but the error.
  static Result<std::shared_ptr<Database>> open(const DatabaseEnvironment& environment, const std::string& name,
                                                bool is_new = false);
  ~Database();

  const std::string& name() const { return paths_.name(); }
  const DatabasePaths& paths() const { return paths_; }
  DatabaseInfo info();
  DatabaseState state();
  Position position();
  bool exists();  // has at least one page

  // ---- start and stop ----

  // Tries the fence (FUSE.md section 6): kBusy while a process from before the node's start may still write.
  // Afterwards nobody but the node has the files open. Idempotent.
  Status fence();
  // After the fence. Brings files, log, sums and control together; on a primary captures what was committed and
  // not captured, under its old epoch, and begins `epoch`.
  Status start_primary(Epoch epoch);
  // After the fence. The log's tail beyond the files is applied by attach().
  Status start_replica();
  // Starts a database that has just appeared: by start_live_replica() where the node is attended and somebody has it
  // open, else by fence() and start_replica().
  Status ensure_replica();

  // Whether somebody may have it open so that a fence would hurt him: the index in use, or a file open for writing.
  Result<bool> is_open_elsewhere();
  // The same starts without a fence, while other processes (and connections of this one) go on using the files, in the
  // middle of transactions too: the host of before has died, and they do nothing for which they must ask one
  // (database_live_start.cc). No database file, WAL, index or journal is touched, but by what SQLite's own locking
  // allows. kBusy: not now, or never; the state is kFenced and its detail says which. Idempotent.
  Status start_live_primary(Epoch epoch);
  // attach() included. What the log has beyond the files may still have to be applied: attach() says.
  Status start_live_replica();
  // A replica becomes the WAL's writer and applies what its log has beyond the files. Until then there must be no
  // readers. kBusy: an application holds a lock that is needed; call again.
  Status attach();
  bool attached() const { return attached_; }
  // Refuses work from here on, for this reason.
  void stop_for(const Error& why);
  // Is shown beside the state, which stays: empty, or until the next change of state.
  void show_trouble(const std::string& text);
  // Whether this many bytes more can be written. kNoSpace: not now.
  Status check_room(uint64_t size_bytes);
  // Drains or finishes, syncs the log, records a clean stop.
  Status stop();

  // ---- capture, on a primary: called by the front ends before they let a request take effect ----

  // An application has opened -wal so that it may write there, or uses -shm (SQLite opens -wal first); or nobody has
  // -shm open any more. An index is taken to be in use from the one to the other, unless note_index_unused() comes
  // between.
  Status tail_opened(bool shm);
  void index_closed();
  // The same for who found nobody to use it when -shm had been opened `opens` times (index_opens()).
  void index_unused(uint64_t opens);
  // What tail_opened(true) is for who sees the requests. An application has opened -shm: what it holds is no index yet,
  // but may look like one, left by killed processes. It is about to truncate it, as SQLite does where nobody else uses
  // it: from here on it is one. (Truncates it, so that nothing old is read before the application's own call.)
  Status index_opened();
  Status index_begins(uint64_t size_bytes);
  // Whether an index may be in use, and how often -shm was opened until now: for who finds out, before -wal is opened,
  // that no process has the index locked any more (kDmsByte). Never waits, so that threads that must not may call it.
  bool index_may_be_in_use() const { return index_may_be_in_use_; }
  uint64_t index_opens() const { return index_opens_; }
  void note_index_unused(uint64_t opens) { unused_at_opens_ = opens; }
  // Around an application's sync of -wal.
  void wal_sync_begins() { ++wal_syncs_; }
  void wal_sync_ended(const Status& synced);
  // Captures everything that is committed now. `urgent`: the caller is about to let a checkpoint take effect; the
  // log is synced too when the application syncs. Not urgent: the caller is a reader, who in chain mode waits up to
  // kHeldCommitMaxNs for a commit that does not count yet.
  Status drain(bool urgent);
  // As drain(), for the poller: answers whether anything was new, or will be in a moment; never waits for a torn
  // header.
  Result<bool> poll();
  // An application synced a file of this database: what is captured from now on is worth a sync.
  void note_application_sync() {
    application_syncs_ = true;
    transaction_synced_ = true;
  }
  // Whether the front end sees the application's writes to the database file. By default it does.
  void set_writes_unseen(bool unseen) {
    writes_unseen_ = unseen;
    unlinks_journal_ = false;
    if (unseen) were_writes_unseen_ = true;
  }
  // Where it does not: captures what was written with no journal (journal_mode MEMORY or OFF), by comparing all pages,
  // once no application is in the midst of writing. Takes a lock by the applications' door: not for who serves that.
  // Answers whether there was anything; kBusy: there may be, and a writer is at work.
  Result<bool> capture_unjournaled();
  // -wal and -shm have been unlinked (after a drain).
  void tail_unlinked();
  // When the record of a transaction that SQLite synced reaches the device: before the answer, or soon after it. That
  // is for a journal whose removal SQLite does not sync: as long as a power cut may bring that back, or longer.
  enum class SyncLog { kNow, kLater };
  // The rollback journal's transaction is about to be final: records what it changed. An error refuses the commit; a
  // transaction that has been rolled back is never refused.
  Status capture_file(SyncLog sync = SyncLog::kNow);
  // The super-journal that the journal names, by the path that the application uses; empty: none.
  Result<std::string> super_journal();
  // A transaction over several databases: their records become visible together, in the order of their ids, as a group
  // of this id. An error refuses it as a whole, or stops all of them when one's record could not be ended any more.
  static Status capture_together(std::vector<std::shared_ptr<Database>> members, uint64_t group);
  // At start: the group of the log's last record, where the transaction is not known to have become final.
  struct OpenGroup {
    uint64_t id = 0;
    std::vector<DatabaseId> members;
  };
  Result<std::optional<OpenGroup>> open_group();
  // Whether this member of it has its record. One that has been made final had it.
  Result<bool> has_group(uint64_t group);
  // Takes the log's last record back: another member has none.
  Status cut_group();
  // Before a write of the journal, which may make it final. A write of the database without one is refused.
  Status before_journal_write(uint64_t offset_bytes, ByteView data);
  void journal_cut();  // to nothing
  void journal_unlinked();
  // Whether the writes to a journal that is made now need not be seen, as its end probably will be. Then the front end
  // tells of its opening, of its syncs before they take effect, and of its last closing.
  bool journal_may_be_unseen() const { return unlinks_journal_ && !writes_unseen_; }
  Status journal_opened(bool unseen);
  Status before_journal_sync();
  Status journal_closed();
  // Records what a transaction has changed whose end was not seen.
  Status capture_unseen_end();
  bool journal_unseen() const { return journal_unseen_; }
  // Before an application's write or truncation of the database file itself. kReadOnly: no journal protects it.
  Status before_database_write(uint64_t offset_bytes, ByteView data);
  Status before_database_resize(uint64_t size_bytes);
  Status before_database_sync();
  // The application deletes the database: a drop record, then the files' own removal is the caller's.
  Status drop();
  // The same for one that is stopped: whatever its files hold, the drop record follows what its log has. Afterwards the
  // database is ready to be made anew. kIo: not even its log can be opened; the message says what to remove.
  Status drop_stopped();
  void removed();  // its file is gone
  // -wal is about to be unlinked. kBusy while it holds committed pages that are not in the database file: only
  // SQLite's own last close removes it safely.
  Status before_wal_unlink();
  // What is written when an application commits, for inotify: the WAL, or a database whose writes are unseen. -1: none.
  int watched_descriptor();

  // ---- whole files, on a primary (database_adopt.cc) ----

  // An application is about to write a file under this name that may become the database. kExists: there is one.
  Status begin_copy();
  // Its last writer has closed it. An error: it has been removed, and says why it cannot be the database (kInvalid), or
  // what failed. An empty file stays, and is no transaction.
  Status finish_copy();
  Status cancel_copy();  // it has been unlinked
  // Makes the database as a copy of a closed one, whole and recorded. kExists: there is a file of that name.
  Status adopt_copy_of(const std::string& path);
  // The file has been replaced by one with the same bytes.
  void file_replaced();

  // ---- reading for replication ----

  Result<std::unique_ptr<LogCursor>> read_log_after(const Position& position);
  // The position before the oldest record that the log still has.
  Result<std::optional<Position>> oldest_in_log();
  // Whether it is known that this database once stood there, though its log does not reach back any more.
  Result<bool> was_at(const Position& position);
  // Whether the log tells that this database, with this TXID, stood elsewhere. Epochs are not compared. It waits for
  // nobody, and takes the reading of a segment's envelopes.
  bool stood_elsewhere(const Position& position);
  DatabaseId id();
  // For a copy of its pages (db/page_copier.h). settle(): decides which images are the captured
  // ones; the others are read anew, one after the other, up to the first that does not agree all
  // the same. False: there was no time for that (the capture mutex is held for some kHoldMaxNs at
  // most, but for a drain). kBusy: the page size is another one by now.
  Result<bool> settle(uint32_t page_size, std::vector<PageImage>& images);
  Result<std::shared_ptr<File>> file_for_copy();  // read-only; null: there is none
  // The transaction in flight that has a hot journal, as far as it has been synced. Reads all of
  // the journal.
  Result<std::optional<JournalIndex>> open_journal();
  // For a comparison with another node (db/page_difference.h).
  Result<std::vector<Checksum>> sums(const SumsQuestion& question);
  // Keeps the log's entries after this TXID through retention, until released by the same key. Never waits.
  void hold_log(uint64_t key, TxId after);
  void release_log(uint64_t key);
  Status trim_log(int64_t older_than_wall_ms, uint64_t bytes_max);

  // ---- apply, on a replica ----

  // Appends records (whole, in order, from position() on) to the log and applies them as one WAL transaction. The
  // records come from a peer: nothing in them is trusted. kDiverged or kCorrupt: nothing was applied. kBusy and
  // kTimedOut: they are in the log, and the next call (with none, too) applies them.
  Status apply(const std::vector<Bytes>& records);
  // One record too large for memory: in pieces, then applied from the log.
  Status begin_large_record();
  Status append_large_record(ByteView piece);
  Status finish_large_record();
  void abort_large_record();

  // A copy from the primary. Until it is complete the database stays as it was.
  Status begin_load(const LoadStart& start);
  Status load_pages(ByteView piece);  // as db/page_copier.h makes them
  // What the copy builds on; zeros where it builds on nothing.
  Result<std::vector<Checksum>> load_sums(const SumsQuestion& question);
  Status end_load(const Position& consistent_at);  // records up to here complete it
  bool loading();
  void abort_load();
  // The content turned out to be another than log and page sums say: kept under lost/, and put at a position of its
  // own, so that the primary compares.
  Status stand_apart(const std::string& why);
  // The primary does not know this database: keeps it under lost/ and removes it.
  Status set_aside_and_remove(const std::string& why);

 private:
  Database(const DatabaseEnvironment& environment, const std::string& name);

  // -- shared (database.cc)
  std::vector<ProcessName> left_over();
  Error held_by(const std::vector<ProcessName>& holders, const std::string& otherwise);
  // The one function in which the position changes. `page_size` 0: as it was.
  void advance(const ControlPoint& point, uint32_t page_size = 0) REQUIRES(mutex_);
  void set_state(DatabaseState state, const std::string& detail);
  Status not_stopped();
  Status usable() REQUIRES(mutex_);
  Error stop_with(Error error) REQUIRES(mutex_);
  void publish_status() REQUIRES(mutex_);
  uint64_t boot_hash();
  bool read_page_agrees(Pgno pgno) REQUIRES(mutex_);
  Status clear_log() REQUIRES(mutex_);
  void abort_load_locked() REQUIRES(mutex_);
  Result<bool> read_current_page(Pgno pgno, MutableByteView page) REQUIRES(mutex_);
  void set_progress(uint64_t bytes, uint64_t total_bytes);

  // -- capture (database_capture.cc)
  struct Batch {
    Position position;  // after the last item
    Pgno size_pages = 0;
    uint32_t page_size = 0;
    WalAnchor anchor;
    CapturedBatch commits;
    std::unordered_map<Pgno, Checksum> sums;  // over sums_, until the log has the records
    void clear();
  };
  // A transaction's pages, as found in the WAL or the file.
  struct NewPages {
    std::vector<Pgno> pgnos;  // ascending: all that may have changed
    Pgno size_after = 0;
    uint32_t page_size = 0;
    // The image that a page had before, whose hash is `expected`; empty where it cannot be had any more.
    std::function<Result<ByteView>(Pgno pgno, Checksum expected)> previous{};
    bool replaces = false;  // a new database, or one of another page size: every page is in it
    std::function<Status(size_t index, MutableByteView page)> read;
  };
  // Of a transaction with a rollback journal.
  struct FileChanges {
    NewPages pages;
    std::optional<JournalIndex> journal;
  };
  // The group of the record that is being made.
  struct Group {
    uint64_t id = 0;  // 0: none
    std::vector<DatabaseId> members{};
    std::optional<LogEntryInfo> end{};  // the record is whole but for this
  };
  Result<FileInfo> open_file() REQUIRES(mutex_);
  bool in_wal_mode() REQUIRES(mutex_);
  Result<bool> drain_locked(bool patient) REQUIRES(mutex_);
  Status capture_transaction(const WalTail::Transaction& transaction) REQUIRES(mutex_);
  Status record_changes(NewPages& pages, const WalAnchor& anchor) REQUIRES(mutex_);
  Status commit_record(RecordEncoder& encoder, const RecordHeader& header, Checksum after,
                       const std::vector<std::pair<Pgno, Checksum>>& changed, const WalAnchor& anchor, bool large)
      REQUIRES(mutex_);
  Status flush_batch() REQUIRES(mutex_);
  Status settle_batch() REQUIRES(mutex_);
  void note_file_at_rest() REQUIRES(mutex_);
  std::optional<uint32_t> read_change_counter() REQUIRES(mutex_);
  Status forget_batch(Status captured) REQUIRES(mutex_);
  void capture_succeeded() REQUIRES(mutex_);
  Status sync_log() REQUIRES(mutex_);
  Checksum pending_sum(Pgno pgno) REQUIRES(mutex_);
  Result<ByteView> previous_image(Pgno pgno, Checksum expected, size_t page_size) REQUIRES(mutex_);

  // -- rollback modes (database_rollback.cc)
  void note_written(uint64_t offset_bytes, uint64_t size_bytes) REQUIRES(mutex_);
  Result<bool> transaction_undone() REQUIRES(mutex_);
  Status read_file_page(Pgno pgno, MutableByteView page) REQUIRES(mutex_);
  Status add_unseen_writes(const JournalIndex& journal, Pgno size_after, PageSet& pages) REQUIRES(mutex_);
  Status capture_rollback_locked() REQUIRES(mutex_);
  // The same, by comparing the whole file.
  Status capture_file_locked() REQUIRES(mutex_);
  Result<std::unique_ptr<FileChanges>> file_changes() REQUIRES(mutex_);
  void read_from_file(NewPages& pages, const JournalIndex* journal) REQUIRES(mutex_);
  Status record_file(NewPages& pages) REQUIRES(mutex_);
  bool missed_transaction(const DatabaseHeader& header) REQUIRES(mutex_);
  bool written_unjournaled() REQUIRES(mutex_);
  Status end_transaction(SyncLog sync = SyncLog::kNow) REQUIRES(mutex_);
  Status sync_log_later() REQUIRES(mutex_);

  // -- a journal whose writes are not seen (database_unseen_journal.cc)
  // What tells one transaction's journal from another's; 0: it is not hot, so that the database is at rest.
  static Result<uint64_t> journal_stamp(File& journal);
  Status check_unseen_super() REQUIRES(mutex_);
  void note_journal(uint64_t stamp) REQUIRES(mutex_);
  Status follow_journal() REQUIRES(mutex_);

  // -- several databases in one transaction (database_group.cc)
  class Together;
  Result<bool> differs(NewPages& pages) REQUIRES(mutex_);
  Result<bool> find_super_journal(const std::string& super);
  Status check_super_journal(uint64_t offset_bytes);
  Status check_super_is_here(const std::string& super);
  void give_id() REQUIRES(mutex_);
  // Against pages as they are at a size.
  Status compare_live(Pgno size_after) REQUIRES(mutex_);
  Result<bool> differs_from_captured(Pgno pgno) REQUIRES(mutex_);
  void begin_batch() REQUIRES(mutex_);

  // -- chain mode (database_chain.cc)
  Result<bool> drain_with(const WalTail::DrainOptions& options) REQUIRES(mutex_);
  Status drain_for_reader();
  void set_index_in_use(bool in_use) REQUIRES(mutex_);
  Status resynchronise(const Error& why) REQUIRES(mutex_);
  Status compare_unchained(std::optional<uint64_t> new_size_bytes);

  // -- recovery (database_recover.cc)
  // The database's files as a crash left them: the WAL's committed frames over the database file.
  struct OnDisk {
    bool file_exists = false;
    uint32_t page_size = 0;
    bool wal_mode = false;
    WalAnchor end;  // after the WAL's last commit; salts zero: there is no valid WAL
    Pgno size_pages = 0;
    WalMap frames;
    std::optional<WalHeader> wal_header;
    std::unique_ptr<File> wal;
  };
  Status open_own_files() REQUIRES(mutex_);
  void remove_own_files() REQUIRES(mutex_);
  Status recover_files() REQUIRES(mutex_);
  Status play_back_hot_journal() REQUIRES(mutex_);
  Result<bool> committed_with_others() REQUIRES(mutex_);
  Epoch last_epoch() REQUIRES(mutex_);
  Result<std::optional<Position>> dropped_since(const Position& position) REQUIRES(mutex_);
  Status recover_unknown(const OnDisk& disk) REQUIRES(mutex_);
  Result<bool> recover_interrupted() REQUIRES(mutex_);
  Result<bool> journal_came_back() REQUIRES(mutex_);
  Result<bool> files_end_with_log() REQUIRES(mutex_);
  Result<bool> has_pages_of(RecordReader& record) REQUIRES(mutex_);
  Result<bool> at_last_record(const PageSet& pages) REQUIRES(mutex_);
  Result<std::optional<DatabaseHeader>> read_file_header() REQUIRES(mutex_);
  Result<std::optional<DatabaseHeader>> read_header() REQUIRES(mutex_);
  bool counter_as_captured(const std::optional<DatabaseHeader>& header) REQUIRES(mutex_);
  Result<std::unique_ptr<LogCursor>> last_record() REQUIRES(mutex_);
  Result<std::unique_ptr<LogCursor>> last_entry() REQUIRES(mutex_);
  Status redo_last_record() REQUIRES(mutex_);
  Status capture_leftover_pages(PageSet& pages) REQUIRES(mutex_);
  Result<bool> sums_follow_log() REQUIRES(mutex_);
  Result<OnDisk> look_at_files() REQUIRES(mutex_);
  Status read_on_disk(const OnDisk& disk, Pgno pgno, MutableByteView page) REQUIRES(mutex_);
  Result<Checksum> rehash(const OnDisk& disk) REQUIRES(mutex_);
  bool at_rest_as_noted() REQUIRES(mutex_);
  bool log_is_short() REQUIRES(mutex_);
  bool at_rest_with_sums() REQUIRES(mutex_);
  Status finish_planned_file_change() REQUIRES(mutex_);
  Status recover_captured(const OnDisk& disk, bool trusted) REQUIRES(mutex_);
  Status recover_applied(const OnDisk& disk, bool trusted) REQUIRES(mutex_);
  Status recover_by_content(const OnDisk& disk) REQUIRES(mutex_);
  Status capture_leftover_frames(const OnDisk& disk, const WalAnchor& from) REQUIRES(mutex_);
  Status adopt_content(const OnDisk& disk) REQUIRES(mutex_);
  Status make_wal_mode() REQUIRES(mutex_);
  bool in_rollback_mode() REQUIRES(mutex_);
  Status make_rollback_mode() REQUIRES(mutex_);
  Status redo_offline() REQUIRES(mutex_);
  Status recover_by_planned_load(const OnDisk& disk) REQUIRES(mutex_);
  Result<WalChecksum> frame_checksum(const OnDisk& disk, uint32_t frame) REQUIRES(mutex_);
  Status sums_take(RecordReader& reader) REQUIRES(mutex_);

  // -- a start while others use the files (database_live_start.cc)
  Error not_live(const std::string& why);
  Error not_live_yet(const Error& why);
  Status check_live(bool replica) REQUIRES(mutex_);
  Status find_index_user() REQUIRES(mutex_);
  Status take_over_tail() REQUIRES(mutex_);
  Status drain_committed() REQUIRES(mutex_);
  Status take_over_journal() REQUIRES(mutex_);
  Result<bool> journal_is_hot_now();
  Result<bool> has_active_journal() REQUIRES(mutex_);
  Status capture_at_rest() REQUIRES(mutex_);
  Status take_over_writer() REQUIRES(mutex_);
  Status finish_file_change() REQUIRES(mutex_);
  Result<bool> follow_planned() REQUIRES(mutex_);
  Status position_by_content(uint32_t page_size, const std::vector<ControlPoint>& states) REQUIRES(mutex_);

  // -- whole files that applications bring (database_adopt.cc)
  Status check_alone() REQUIRES(mutex_);
  Status adopt_file() REQUIRES(mutex_);
  Status end_copy_mark() REQUIRES(mutex_);
  Status discard_unfinished_copy() REQUIRES(mutex_);

  // -- repair (database_repair.cc)
  Status open_log(std::optional<LogEnd> known_end) REQUIRES(mutex_);
  Status put_log_aside(const std::string& why) REQUIRES(mutex_);
  void take_log(std::unique_ptr<ChangeLog> log) REQUIRES(mutex_);
  Status rebuild_control() REQUIRES(mutex_);
  Status take_id_from_log() REQUIRES(mutex_);
  Status control_from_log() REQUIRES(mutex_);
  Status log_meets_files() REQUIRES(mutex_);
  Status salvage(const std::string& why) REQUIRES(mutex_);
  Status record_drop(const Position& position) REQUIRES(mutex_);

  // -- apply (database_apply.cc)
  struct Change;
  // Applies everything that the log has beyond the files, through writer_.
  Status redo_from_log() REQUIRES(mutex_);
  Status gather(Change& change) REQUIRES(mutex_);
  Status apply_record(RecordReader& reader, Change& change, bool streamed) REQUIRES(mutex_);
  Status add_page(Pgno pgno, MutableByteView page, Pgno size_after) REQUIRES(mutex_);
  Status publish_change(Change& change) REQUIRES(mutex_);
  Status check_follows(const RecordReader& reader, const Position& position) REQUIRES(mutex_);
  Result<bool> have_already(const Bytes& record) REQUIRES(mutex_);
  Status take_incoming() REQUIRES(mutex_);
  Status attach_writer() REQUIRES(mutex_);
  Result<std::unique_ptr<WalWriter>> open_writer(uint32_t page_size) REQUIRES(mutex_);
  void use_writer() REQUIRES(mutex_);
  Status catch_up() REQUIRES(mutex_);
  void checkpoint_when_due() REQUIRES(mutex_);

  // -- whole files (database_files.cc)
  Status apply_create(RecordReader& reader) REQUIRES(mutex_);
  Status apply_drop(RecordReader& reader) REQUIRES(mutex_);
  Status rename_into_place(SnapshotLoad& copy) REQUIRES(mutex_);
  Status put_file_in_place(const FileInfo* like) REQUIRES(mutex_);
  Status try_put_file_in_place(const FileInfo* like) REQUIRES(mutex_);
  DatabaseDirectories directories();
  Status remove_companions() REQUIRES(mutex_);
  Status remove_companion_files();
  Status remove_files(const Position& after) REQUIRES(mutex_);
  Status set_aside_locked(const std::string& why) REQUIRES(mutex_);

  // -- copies from the primary (database_load.cc)
  void note_load_progress(uint64_t through_bytes) REQUIRES(mutex_);
  Status publish_load_when_complete() REQUIRES(mutex_);
  Result<bool> schema_misleads() REQUIRES(mutex_);
  Status complete_load_file() REQUIRES(mutex_);
  Status publish_load_as_transaction() REQUIRES(mutex_);
  Status write_load() REQUIRES(mutex_);

  // -- comparison with another node (database_resync.cc)
  std::vector<Checksum> sums_locked(const SumsQuestion& question) REQUIRES(mutex_);
  Status stand_apart_locked(const std::string& why) REQUIRES(mutex_);
  Result<Checksum> rehash_live() REQUIRES(mutex_);
  bool settles(PageImage& image) REQUIRES(mutex_);
  Result<bool> settle_anew(PageImage& image) REQUIRES(mutex_);

  // -- what is kept under lost/ (database_lost.cc)
  struct Lost {
    std::string why;
    Position position;
    std::optional<Position> diverged_at{};
    std::optional<uint64_t> transactions{};
    Pgno size_pages = 0;
  };
  Status keep_lost(const std::string& why) REQUIRES(mutex_);
  Status find_own_transactions(Lost& lost) REQUIRES(mutex_);
  Status write_lost(const Lost& lost) REQUIRES(mutex_);
  Result<Checksum> write_lost_image(const std::string& path, Pgno size_pages) REQUIRES(mutex_);

  const DatabaseEnvironment env_;
  const DatabasePaths paths_;

  Mutex mutex_;
  bool is_replica_ GUARDED_BY(mutex_) = false;
  bool started_ GUARDED_BY(mutex_) = false;
  bool fenced_off_ GUARDED_BY(mutex_) = false;
  bool control_rebuilt_ GUARDED_BY(mutex_) = false;  // from the log, which does not say in which role it was written
  uint64_t boot_hash_ = 0;
  Epoch epoch_ GUARDED_BY(mutex_);
  Epoch start_epoch_ GUARDED_BY(mutex_);  // of start_primary(), which may have failed
  std::unique_ptr<Control> control_ GUARDED_BY(mutex_);
  std::unique_ptr<PageSums> sums_ GUARDED_BY(mutex_);
  std::shared_ptr<ChangeLog> log_ GUARDED_BY(mutex_);
  PastPositions past_ GUARDED_BY(mutex_);
  PageCodec codec_ GUARDED_BY(mutex_);

  // Capture.
  std::unique_ptr<WalTail> tail_ GUARDED_BY(mutex_);
  std::shared_ptr<File> file_ GUARDED_BY(mutex_);  // the database, read-only
  FileInfo file_at_open_ GUARDED_BY(mutex_);       // its inode stays its own while file_ has it open
  bool warned_of_frames_ GUARDED_BY(mutex_) = false;
  bool capture_fails_ GUARDED_BY(mutex_) = false;  // and status says so
  bool suspect_ GUARDED_BY(mutex_) = false;        // a page changed that no frame explains
  Batch batch_ GUARDED_BY(mutex_);
  Group group_ GUARDED_BY(mutex_);
  Bytes page_ GUARDED_BY(mutex_);
  Bytes previous_ GUARDED_BY(mutex_);
  std::atomic<bool> application_syncs_{false};
  std::atomic<bool> index_may_be_in_use_{false};
  std::atomic<uint64_t> index_opens_{0};               // written under mutex_
  std::atomic<uint64_t> unused_at_opens_{UINT64_MAX};  // note_index_unused, until -wal is opened
  std::atomic<int> wal_syncs_{0};
  std::atomic<bool> journal_active_{false};
  std::atomic<bool> journal_unseen_{false};
  std::atomic<bool> unlinks_journal_{false};  // the last transaction ended so, and no connection has come since
  std::unique_ptr<File> unseen_journal_ GUARDED_BY(mutex_);  // where journal_unseen_; null: not opened yet
  std::atomic<bool> transaction_synced_{false};              // the journal or the file since the journal's last end
  std::atomic<bool> writes_unseen_{false};
  std::atomic<bool> were_writes_unseen_{false};  // and it is not known whether there were any
  PageSet written_ GUARDED_BY(mutex_);           // in a rollback mode, and not captured yet
  bool compare_all_ GUARDED_BY(mutex_) = false;  // what changed is not known
  bool warned_of_leaves_ GUARDED_BY(mutex_) = false;

  // Apply.
  std::atomic<bool> attached_{false};
  std::unique_ptr<WalWriter> writer_ GUARDED_BY(mutex_);
  bool offline_ GUARDED_BY(mutex_) = false;     // the node is starting: no front end has the files
  bool behind_log_ GUARDED_BY(mutex_) = false;  // and brings the files up to the log
  std::unique_ptr<SnapshotLoad> load_ GUARDED_BY(mutex_);
  std::string load_keeps_ GUARDED_BY(mutex_);  // LoadStart::keep_because
  uint64_t load_compared_bytes_ GUARDED_BY(mutex_) = 0;
  int64_t load_started_ns_ GUARDED_BY(mutex_) = 0;
  int64_t next_progress_log_ns_ GUARDED_BY(mutex_) = 0;
  std::unique_ptr<LogCursor> apply_cursor_ GUARDED_BY(mutex_);
  bool apply_cursor_waits_ GUARDED_BY(mutex_) = false;  // its entry has not been applied
  std::unique_ptr<File> incoming_ GUARDED_BY(mutex_);   // a large record on its way
  uint64_t incoming_bytes_ GUARDED_BY(mutex_) = 0;

  Mutex status_mutex_;
  DatabaseInfo info_ GUARDED_BY(status_mutex_);
  std::unordered_map<uint64_t, TxId> log_holds_ GUARDED_BY(status_mutex_);
  std::shared_ptr<ChangeLog> log_to_read_ GUARDED_BY(status_mutex_);  // log_, for what waits for nobody
};

}  // namespace litefs
