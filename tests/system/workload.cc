#include "system/workload.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <vector>

namespace litefs::test {

namespace {

std::atomic<bool> stopping{false};

using SteadyClock = std::chrono::steady_clock;

uint64_t mix(uint64_t a) {
  a = (a ^ (a >> 30)) * 0xbf58476d1ce4e5b9ull;
  a = (a ^ (a >> 27)) * 0x94d049bb133111ebull;
  return a ^ (a >> 31);
}

int64_t next_link(int64_t link, int64_t n, int64_t writer) {
  return static_cast<int64_t>(
      mix(static_cast<uint64_t>(link) ^ mix(static_cast<uint64_t>(n) * 64 + static_cast<uint64_t>(writer))));
}

int64_t sum_of(std::string_view body) {
  uint64_t sum = body.size();
  for (char c : body) sum = (sum ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return static_cast<int64_t>(sum);
}

std::string big_endian(uint64_t v) {
  std::string out(8, '\0');
  for (size_t i = 0; i < 8; i++) out[i] = static_cast<char>(v >> (56 - 8 * i));
  return out;
}

uint64_t from_big_endian(std::string_view bytes) {
  uint64_t v = 0;
  for (char c : bytes) v = v << 8 | static_cast<uint8_t>(c);
  return v;
}

struct Counter {
  int64_t value = 0;
  int64_t link = 0;
};

Counter read_counter(Statement& select) {
  if (!select.step()) throw Violation("the counter row is missing");
  std::string mark = select.blob(0);
  std::string link = select.blob(1);
  select.reset();
  if (mark.size() != 16 || mark.compare(0, kCounterMagicBytes, kCounterMagic) != 0) {
    throw Violation("the counter row is damaged");
  }
  return {static_cast<int64_t>(from_big_endian(mark.substr(8))), static_cast<int64_t>(from_big_endian(link))};
}

// Keeps the connections of several processes away while one of them wants to be alone. Who comes
// passes the gate; who is in, shares the room.
class Room {
 public:
  explicit Room(const std::string& path) : gate_(open_lock(path + ".gate")), room_(open_lock(path + ".room")) {}
  ~Room() {
    close(gate_);
    close(room_);
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;

  void enter() {
    lock(gate_, LOCK_EX);
    lock(room_, LOCK_SH);
    lock(gate_, LOCK_UN);
  }
  // Waits until all others have left.
  void enter_alone() {
    lock(gate_, LOCK_EX);
    lock(room_, LOCK_EX);
  }
  // From being alone.
  void share() {
    lock(room_, LOCK_SH);
    lock(gate_, LOCK_UN);
  }
  void leave() {
    lock(room_, LOCK_UN);
    lock(gate_, LOCK_UN);
  }

 private:
  static int open_lock(const std::string& path) {
    int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) throw std::runtime_error("cannot open " + path);
    return fd;
  }
  static void lock(int fd, int operation) {
    if (flock(fd, operation) != 0) throw std::runtime_error("flock failed");
  }

  int gate_;
  int room_;
};

class Writer {
 public:
  Writer(const std::string& path, const WriterOptions& options) : path_(path), options_(options) {
    random_.seed(options.seed);
    if (switches_modes()) {
      std::string directory = options.committed_path.substr(0, options.committed_path.rfind('/') + 1);
      room_ = std::make_unique<Room>(directory + path.substr(path.rfind('/') + 1));
    }
    if (!options.committed_path.empty()) {
      committed_ = ::open(options.committed_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
      if (committed_ < 0) throw std::runtime_error("cannot open " + options.committed_path);
    }
  }
  ~Writer() {
    if (committed_ >= 0) close(committed_);
  }

  WriteReport run() {
    auto start = SteadyClock::now();
    while (!stopping) {
      if (options_.transactions && report_.transactions >= options_.transactions) break;
      std::chrono::duration<double> elapsed = SteadyClock::now() - start;
      if (options_.seconds > 0 && elapsed.count() >= options_.seconds) break;
      try {
        report_.transactions += step();
      } catch (const SqlError& error) {
        if (!error.busy()) throw;
        if (db_ && db_->in_transaction()) db_->exec("ROLLBACK");
        steps_left_ = 0;
        // It keeps its SHARED lock, for which the one that kept it from writing may wait.
        if (exclusive_) close_connection();
      }
    }
    return report_;
  }

 private:
  uint64_t below(uint64_t limit) { return random_() % limit; }

  bool comes_and_goes() const { return options_.profile == "exclusive" || switches_modes(); }
  bool switches_modes() const { return options_.profile == "modes"; }
  bool rolls_back() const { return options_.profile == "rollback"; }

  void close_connection() {
    statements_.reset();
    db_.reset();
    if (room_) room_->leave();
  }

  void open() {
    close_connection();
    // Nobody gets an exclusive lock unless all others are away at times.
    if (comes_and_goes()) usleep(static_cast<useconds_t>(below(30000)));
    if (room_) room_->enter();
    connect();
  }

  void connect() {
    steps_left_ = 1 + below(25);
    exclusive_ = false;
    db_ = std::make_unique<Sql>(path_, SQLITE_OPEN_READWRITE);
    set_busy_timeout();
    // First of all, so that the wal-index is not shared.
    if (comes_and_goes() && below(2)) set_exclusive(true);
    static constexpr const char* kSynchronous[] = {"NORMAL", "FULL", "OFF"};
    static constexpr int kAutocheckpoint[] = {0, 10, 100, 1000};
    bool checkpoints = options_.profile == "checkpoints";
    db_->exec("PRAGMA cache_size=" + std::string(below(2) ? "5" : "-2000") +
              "; PRAGMA synchronous=" + kSynchronous[below(3)] +
              "; PRAGMA wal_autocheckpoint=" + std::to_string(checkpoints ? 10 : kAutocheckpoint[below(4)]) +
              "; PRAGMA mmap_size=" + (below(4) ? "0" : "1000000"));
    if (rolls_back() || switches_modes()) set_secure_delete();
    if (rolls_back()) set_mode(kModes[below(kRollbackModes)]);
    statements_ = std::make_unique<Statements>(*db_);
  }

  // Returns how many transactions of the counter it committed: 0 or 1.
  int64_t step() {
    // An opening that met SQLITE_BUSY left none.
    if (!statements_) open();
    if (comes_and_goes() && steps_left_-- == 0) {
      open();
      return 0;
    }
    if (comes_and_goes() || rolls_back()) {
      // From here on with a shared wal-index that nobody else uses; and back.
      if (below(rolls_back() ? 100 : 10) == 0) return set_exclusive(true);
      if (below(10) == 0 && (exclusive_ || !rolls_back())) return set_exclusive(false);
    }
    if (switches_modes() && below(15) == 0) return switch_mode();
    uint64_t dice = below(1000);
    if (options_.profile == "mixed" || comes_and_goes() || rolls_back()) {
      if (dice < 3) return housekeeping("VACUUM");
      if (dice < 30 && !rolls_back()) return checkpoint();
      if (dice < 36) {
        open();
        return 0;
      }
      if (dice < 60) return transaction(150 + below(100), Ending::kRollback);
      if (dice < 90) return transaction(100 + below(200), Ending::kCommit);
    }
    if (rolls_back() || switches_modes()) {
      if (dice < 130) return transaction(below(100), Ending::kSavepoint);
      if (dice < 150) return set_secure_delete();
    }
    if (options_.profile == "savepoints" && dice < 100) return transaction(below(100), Ending::kSavepoint);
    if (options_.profile == "checkpoints" && dice < 100) return checkpoint();
    return transaction(below(4), Ending::kCommit);
  }

  int64_t set_exclusive(bool exclusive) {
    exclusive_ = exclusive;
    housekeeping(std::string("PRAGMA locking_mode=") + (exclusive ? "EXCLUSIVE" : "NORMAL"));
    if (exclusive && (rolls_back() || switches_modes())) look_once();
    set_busy_timeout();
    return 0;
  }

  // Two that wait for each other to leave would wait for long.
  void set_busy_timeout() { sqlite3_busy_timeout(db_->handle(), comes_and_goes() || exclusive_ ? 100 : 10000); }

  // SQLite 3.40 lets a connection in EXCLUSIVE write without the RESERVED lock when it took
  // another's journal for a hot one, could not play it back for a SHARED lock, and tries again: two
  // write at once. So its first look waits for nobody, and one that failed is closed.
  void look_once() {
    sqlite3_busy_timeout(db_->handle(), 0);
    try {
      db_->integer("SELECT id FROM counter");
    } catch (const SqlError&) {
      close_connection();
      throw;
    }
  }

  int64_t set_secure_delete() {
    static constexpr const char* kValues[] = {"ON", "OFF", "FAST"};
    return housekeeping(std::string("PRAGMA secure_delete=") + kValues[below(3)]);
  }

  void set_mode(const std::string& mode) {
    std::string before = db_->text("PRAGMA journal_mode");
    std::string now = db_->text("PRAGMA journal_mode=" + mode);
    if ((before == "wal") != (now == "wal")) report_.switches++;
  }

  int64_t switch_mode() {
    std::string mode = kModes[below(std::size(kModes))];
    // The pragma alone answers what the mode was when this connection looked last.
    read_counter(statements_->counter);
    if (mode == "wal" || !in_wal()) {
      set_mode(mode);
    } else {
      leave_wal(mode);
    }
    return 0;
  }

  // SQLite 3.40 keeps the pages it has when it leaves the WAL, and loses what others have committed
  // since: nobody may commit between this connection's last look and the switch.
  void leave_wal(const std::string& mode) {
    if (below(2)) {
      set_exclusive(true);
      db_->exec("BEGIN IMMEDIATE");
      read_counter(statements_->counter);
      db_->exec("COMMIT");
      set_mode(mode);
    } else {
      close_connection();
      room_->enter_alone();
      connect();
      read_counter(statements_->counter);
      set_mode(mode);
      room_->share();
    }
  }

  bool in_wal() { return db_->text("PRAGMA journal_mode") == "wal"; }

  int64_t housekeeping(const std::string& text) {
    db_->exec(text);
    return 0;
  }

  int64_t checkpoint() {
    static constexpr const char* kKinds[] = {"PASSIVE", "FULL", "RESTART", "TRUNCATE"};
    return housekeeping(std::string("PRAGMA wal_checkpoint(") + kKinds[below(4)] + ")");
  }

  static constexpr size_t kRollbackModes = 3;
  static constexpr const char* kModes[] = {"delete", "truncate", "persist", "wal"};

  enum class Ending { kCommit, kRollback, kSavepoint };

  int64_t transaction(uint64_t items, Ending ending) {
    db_->exec("BEGIN IMMEDIATE");
    // SQLite 3.40 itself loses commits after a savepoint that takes back spilled pages in a WAL.
    if (switches_modes() && ending == Ending::kSavepoint && in_wal()) ending = Ending::kCommit;
    if (ending == Ending::kSavepoint) {
      db_->exec("SAVEPOINT s");
      change(read_counter(statements_->counter), items);
      db_->exec("ROLLBACK TO s; RELEASE s");
      items = below(4);
    }
    Counter counter = read_counter(statements_->counter);
    change(counter, items);
    if (ending == Ending::kRollback) {
      db_->exec("ROLLBACK");
      return 0;
    }
    db_->exec("COMMIT");
    report(counter.value + 1);
    return 1;
  }

  void change(const Counter& counter, uint64_t items) {
    int64_t n = counter.value + 1;
    int64_t link = next_link(counter.link, n, options_.writer);
    int64_t amount = static_cast<int64_t>(below(50));
    statements_->move.bind(1, -amount).bind(2, static_cast<int64_t>(below(kAccounts))).run();
    statements_->move.bind(1, amount).bind(2, static_cast<int64_t>(below(kAccounts))).run();
    int64_t bytes = 0;
    for (uint64_t i = 0; i < items; i++) {
      std::string body = random_bytes(below(items > 50 ? 2000 : 200));
      bytes += static_cast<int64_t>(body.size());
      statements_->add_item.bind(1, n).bind(2, body).bind(3, sum_of(body)).run();
    }
    statements_->add_entry.bind(1, n).bind(2, options_.writer).bind(3, static_cast<int64_t>(items));
    statements_->add_entry.bind(4, bytes).bind(5, link).run();
    statements_->trim_entries.bind(1, n - kEntriesKept).run();
    statements_->trim_items.bind(1, n - kItemEntries).run();
    std::string mark = std::string(kCounterMagic, kCounterMagicBytes) + big_endian(static_cast<uint64_t>(n));
    statements_->set_counter.bind(1, std::string_view(mark));
    statements_->set_counter.bind(2, std::string_view(big_endian(static_cast<uint64_t>(link)))).run();
  }

  std::string random_bytes(uint64_t size) {
    std::string out(size, '\0');
    for (size_t i = 0; i < size; i += 8) {
      uint64_t v = random_();
      std::memcpy(out.data() + i, &v, std::min<size_t>(8, size - i));
    }
    return out;
  }

  // Outside SQLite and the mount: what is in here was reported committed to its application.
  void report(int64_t n) {
    if (committed_ >= 0 && ::write(committed_, &n, sizeof n) != sizeof n) {
      throw std::runtime_error("cannot write " + options_.committed_path);
    }
  }

  struct Statements {
    explicit Statements(Sql& db)
        : counter(db, "SELECT mark, link FROM counter WHERE id = 1"),
          move(db, "UPDATE account SET balance = balance + ?1 WHERE id = ?2"),
          add_item(db, "INSERT INTO item(n, body, sum) VALUES(?1, ?2, ?3)"),
          add_entry(db, "INSERT INTO entry(n, writer, items, bytes, link) VALUES(?1, ?2, ?3, ?4, ?5)"),
          trim_entries(db, "DELETE FROM entry WHERE n <= ?1"),
          trim_items(db, "DELETE FROM item WHERE n <= ?1"),
          set_counter(db, "UPDATE counter SET mark = ?1, link = ?2 WHERE id = 1") {}
    Statement counter, move, add_item, add_entry, trim_entries, trim_items, set_counter;
  };

  std::string path_;
  WriterOptions options_;
  std::mt19937_64 random_;
  int committed_ = -1;
  WriteReport report_;
  uint64_t steps_left_ = 0;     // of this connection, where they come and go
  bool exclusive_ = false;      // this connection, by its PRAGMA
  std::unique_ptr<Room> room_;  // of all writers that switch modes
  std::unique_ptr<Sql> db_;
  std::unique_ptr<Statements> statements_;
};

void check_entries(Sql& db, const Counter& counter) {
  Statement entries(db, "SELECT n, writer, link, items, bytes FROM entry ORDER BY n");
  int64_t expected = std::max<int64_t>(1, counter.value - kEntriesKept + 1);
  int64_t link = 0;
  int64_t items = 0;
  int64_t bytes = 0;
  bool first = true;
  while (entries.step()) {
    int64_t n = entries.integer(0);
    if (n != expected++) throw Violation("entry " + std::to_string(n) + " is out of order");
    // The first one kept follows an entry that is gone, unless it is the first of all.
    if ((!first || n == 1) && entries.integer(2) != next_link(link, n, entries.integer(1))) {
      throw Violation("the chain breaks at entry " + std::to_string(n));
    }
    first = false;
    link = entries.integer(2);
    if (n > counter.value - kItemEntries) {
      items += entries.integer(3);
      bytes += entries.integer(4);
    }
  }
  if (expected != counter.value + 1 || link != counter.link) {
    throw Violation("the entries end at " + std::to_string(expected - 1) + ", the counter is " +
                    std::to_string(counter.value));
  }
  if (db.integer("SELECT count(*) FROM item") != items ||
      db.integer("SELECT ifnull(sum(length(body)), 0) FROM item") != bytes) {
    throw Violation("the items do not fit the entries at " + std::to_string(counter.value));
  }
}

// For the report of a wrong snapshot: by which mount this process has the database open, when, and how it is mapped.
std::string where_files_are(const std::string& path) {
  std::string text;
  const std::string name = path.substr(path.rfind('/'));
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code ignored;
    const std::string target = std::filesystem::read_symlink(entry.path(), ignored).string();
    if (target.find(name) == std::string::npos) continue;
    struct statx info = {};
    const bool alive = statx(AT_FDCWD, entry.path().c_str(), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &info) == 0;
    text += "; " + target + (alive ? " (alive)" : std::string(" (") + strerror(errno) + ")");
  }
  const auto now =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch());
  return text + "; at " + std::to_string(now.count() % 3600000) + " ms of the hour";
}

std::unique_ptr<Sql> open_reader(const std::string& path, std::mt19937_64& random) {
  auto db = std::make_unique<Sql>(path, SQLITE_OPEN_READWRITE);
  db->exec("PRAGMA cache_size=" + std::string(random() % 2 ? "5" : "-2000") +
           "; PRAGMA mmap_size=" + (random() % 2 ? "0" : "10000000"));
  return db;
}

}  // namespace

void stop_workloads() { stopping = true; }
void resume_workloads() { stopping = false; }
bool workloads_stopped() { return stopping; }

void create_workload(const std::string& path, int page_size, const std::string& mode) {
  Sql db(path);
  db.exec("PRAGMA page_size=" + std::to_string(page_size) + "; PRAGMA journal_mode=" + mode);
  db.exec(
      "BEGIN IMMEDIATE;"
      "CREATE TABLE counter(id INTEGER PRIMARY KEY, mark BLOB, link BLOB);"
      "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER);"
      "CREATE TABLE entry(n INTEGER PRIMARY KEY, writer, items, bytes, link);"
      "CREATE TABLE item(id INTEGER PRIMARY KEY, n INTEGER, body BLOB, sum INTEGER);"
      "CREATE INDEX item_n ON item(n);"
      "CREATE INDEX item_sum ON item(sum);");
  Statement account(db, "INSERT INTO account VALUES(?1, ?2)");
  for (int64_t i = 0; i < kAccounts; i++) account.bind(1, i).bind(2, kTotal / kAccounts).run();
  std::string mark = std::string(kCounterMagic, kCounterMagicBytes) + big_endian(0);
  Statement counter(db, "INSERT INTO counter VALUES(1, ?1, ?2)");
  counter.bind(1, std::string_view(mark)).bind(2, std::string_view(big_endian(0))).run();
  db.exec("COMMIT");
}

WriteReport write_workload(const std::string& path, const WriterOptions& options) {
  return Writer(path, options).run();
}

int64_t check_snapshot(Sql& db, std::mt19937_64& random) {
  db.exec("BEGIN");
  Statement select(db, "SELECT mark, link FROM counter WHERE id = 1");
  Counter counter = read_counter(select);
  Statement accounts(db, "SELECT count(*), sum(balance) FROM account");
  accounts.step();
  if (accounts.integer(0) != kAccounts || accounts.integer(1) != kTotal) {
    throw Violation("the accounts add up to " + std::to_string(accounts.integer(1)));
  }
  accounts.reset();
  check_entries(db, counter);
  // Every body takes long, so most snapshots check one index's worth of them.
  bool all = random() % 8 == 0;
  Statement items(db, all ? "SELECT body, sum FROM item" : "SELECT body, sum FROM item WHERE n BETWEEN ?1 AND ?1 + 20");
  if (!all) items.bind(1, counter.value - static_cast<int64_t>(random() % kItemEntries));
  while (items.step()) {
    if (sum_of(items.blob(0)) != items.integer(1)) {
      throw Violation("an item is damaged at " + std::to_string(counter.value));
    }
  }
  items.reset();
  db.exec("COMMIT");
  return counter.value;
}

ReadReport read_workload(const std::string& path, const ReaderOptions& options) {
  std::mt19937_64 random(options.seed);
  std::unique_ptr<Sql> db;
  ReadReport report;
  auto start = SteadyClock::now();
  while (!stopping) {
    std::chrono::duration<double> elapsed = SteadyClock::now() - start;
    if (options.seconds > 0 && elapsed.count() >= options.seconds) break;
    try {
      if (!db) db = open_reader(path, random);
      int64_t n = check_snapshot(*db, random);
      if (n < report.last) {
        throw Violation("the counter went back from " + std::to_string(report.last) + " to " + std::to_string(n));
      }
      if (report.first < 0) report.first = n;
      report.last = n;
      report.snapshots++;
    } catch (const SqlError& error) {
      if (!error.busy()) throw;
      if (db && db->in_transaction()) db->exec("ROLLBACK");
    } catch (const Violation& violation) {
      throw Violation(violation.what() + where_files_are(path));
    }
    // Leaves some of two cores to the writers.
    usleep(static_cast<useconds_t>(random() % 10000));
    if (random() % (options.visits ? 3 : 50) == 0) {
      db.reset();
      if (options.visits) usleep(static_cast<useconds_t>(random() % 50000));
    }
  }
  return report;
}

}  // namespace litefs::test
