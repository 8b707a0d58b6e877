// The processes that a benchmark measures: `litefs-bench worker KIND PATH …`, ordinary SQLite
// applications.
//
// Each reads one command a line and answers with one line. Slices ("run MILLISECONDS" → "OPERATIONS
// SECONDS"):
//   point_read        autocommit SELECT of one row by its key, of kSmallRows
//   one_row_normal, one_row_full, insert_row
//                     autocommit: an UPDATE of one row, the same with synchronous=FULL, an INSERT
//   rows_1000         1000 rows inserted or replaced in one transaction
//   update_200, update_200_full
//                     200 rows updated in one transaction, of kBigRows
//   mix_90_10         of ten operations nine point_read, one one_row_normal
//   fsync             4096 bytes written to PATH-fsync, and fdatasync: the disk's own noise
// Others:
//   insert            "insert COUNT PAUSE_US" → times (ns) at which each COMMIT had returned; rows
//   of 100 random bytes update            "update COUNT PAUSE_US" → the same, one-row updates watch
//   "watch ID PAUSE_US" → "ready", then times at which each row up to ID was first seen, polling
//   first_read        opens and reads, again and again until it works; answers the time, without a
//   command build_small, build_many, build_big BYTES
//                     make a database in WAL at PATH, and end. The big one's content compresses
//                     about two to one. build_small_delete, build_big_delete BYTES: the same in
//                     DELETE mode
// Thread rule: its process has one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "system/process.h"

namespace litefs::bench {

constexpr int64_t kSmallRows = 100000;
constexpr int64_t kManyRows = 300000;
constexpr int64_t kBigRowBytes = 460;  // about 500 bytes of file each

struct Slice {
  double operations = 0;
  double seconds = 0;
  double rate() const { return seconds > 0 ? operations / seconds : 0; }
};

// Our end of one worker.
class Worker {
 public:
  Worker(const std::string& kind, const std::string& path);
  // Lets it close its connection: the last one takes the WAL away.
  ~Worker();
  Worker(Worker&&) = default;
  Worker& operator=(Worker&&) = delete;

  void command(const std::string& text) { process_->write_line(text); }
  Slice slice_answer();
  std::vector<int64_t> times_answer(test::Millis timeout = test::Millis(120000));
  test::Process& process() { return *process_; }

 private:
  std::string kind_;
  std::unique_ptr<test::Process> process_;
};

// Runs a worker of a kind that ends by itself; throws unless it succeeds.
void run_builder(const std::string& kind, const std::string& path, int64_t bytes = 0);

// The worker's main function; words: KIND PATH and what else the kind takes.
int run_worker(const std::vector<std::string>& words);

}  // namespace litefs::bench
