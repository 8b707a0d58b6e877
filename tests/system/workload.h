// The torture's data and its invariants: what writers do and what every snapshot must hold.
//
// Tables of one database:
//   counter   one row: `mark`, kCounterMagic and the number of committed transactions (8 bytes
//   big-endian), by
//             which a change log can be searched for it; `link`, the end of the chain
//   account   kAccounts rows whose balances always add up to kTotal
//   entry     one row a transaction, the last kEntriesKept: n, writer, number and bytes of its
//   items, and
//             link(n) = mix(link(n - 1), n, writer)
//   item      the rows of the last kItemEntries entries, of up to some thousand bytes, each with
//   its sum
// A snapshot in which any of it does not fit is no committed state. It knows nothing of liblitefs.
// Thread rule: one thread each.
#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "system/sql.h"

namespace litefs::test {

constexpr char kCounterMagic[] = "SPIKECTR";
constexpr size_t kCounterMagicBytes = 8;
constexpr int64_t kAccounts = 100;
constexpr int64_t kTotal = 100 * kAccounts;
constexpr int64_t kEntriesKept = 2000;
constexpr int64_t kItemEntries = 300;

// A snapshot that is no committed state, or one older than what was seen before.
class Violation : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Makes the tables, in the given journal mode.
void create_workload(const std::string& path, int page_size, const std::string& mode = "wal");

struct WriterOptions {
  int64_t writer = 0;  // its name in `entry`
  uint64_t seed = 0;
  double seconds = 0;        // 0: no limit
  int64_t transactions = 0;  // 0: no limit
  // mixed: every kind of transaction and checkpoint, in a WAL.
  // small: only small transactions.
  // checkpoints: small, and many of these.
  // savepoints: small, and spilled changes taken back by ROLLBACK TO. (SQLite before 3.51 then may
  // publish frames whose checksums are zero or wrong: walRewriteChecksums starts at a frame that
  // the savepoint has undone.) exclusive: mixed, by connections that come and go, most of them in
  // locking_mode=EXCLUSIVE before or after their first look at the database. rollback: mixed and
  // savepoints, in a database in a rollback mode; each connection has its own of the three, is in
  // locking_mode=EXCLUSIVE and without secure_delete at times. modes: exclusive and rollback, and
  // switches between all four modes.
  std::string profile = "mixed";
  std::string committed_path;  // each counter is appended here (8 bytes, native) once its COMMIT
                               // has returned
};
struct WriteReport {
  int64_t transactions = 0;
  int64_t switches = 0;  // of the database, to the WAL or from it
};
// Commits transactions until a limit or a SIGTERM. SqlError: the database refused something other
// than by SQLITE_BUSY.
WriteReport write_workload(const std::string& path, const WriterOptions& options);

struct ReaderOptions {
  uint64_t seed = 0;
  double seconds = 0;   // 0: no limit
  bool visits = false;  // comes for a few snapshots and goes: writers are alone at times
};
struct ReadReport {
  int64_t snapshots = 0;
  int64_t first = -1;  // counters seen
  int64_t last = -1;
};
// Checks one snapshot; answers its counter.
int64_t check_snapshot(Sql& db, std::mt19937_64& random);
// Checks snapshots until the time is over or a SIGTERM comes.
ReadReport read_workload(const std::string& path, const ReaderOptions& options);

// Asks write_workload and read_workload to end; for a signal handler.
void stop_workloads();
// And lets new ones begin, once those have ended.
void resume_workloads();
bool workloads_stopped();

}  // namespace litefs::test
