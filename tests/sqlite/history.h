// A database's life, as SQLite wrote it: where it began, its transactions page by page, and where
// it ended.
//
// Its tables: t(k, v, h) of random rows, and one row of meta(n, rows, total), which each
// transaction but VACUUM brings up to date: n counts them, rows and total say what t holds. So a
// snapshot can be checked by itself.
#pragma once

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "sqlite/wal.h"
#include "sqlite/wal_writer.h"

namespace litefs::test {

struct Transaction {
  std::vector<std::pair<Pgno, Bytes>> frames;
  Pgno size_pages = 0;
};

struct History {
  uint32_t page_size = 0;
  Bytes first;  // the database file before the transactions, in WAL mode
  Bytes last;   // and after them
  std::vector<Transaction> transactions;
  std::vector<int64_t> n_after;  // meta.n after each
};

struct HistoryPlan {
  uint32_t page_size = 4096;
  int transactions = 100;
  int vacuum_every = 0;  // 0: never
  int big_rows = 0;      // rows of 1000 bytes that one transaction in the middle inserts
};

// Lets SQLite write it in `directory`/source.db, and leaves its WAL in `directory`/source.wal.
History make_history(const std::string& directory, const HistoryPlan& plan, std::mt19937_64& random);

// The transactions of a WAL file.
std::vector<Transaction> read_transactions(const std::string& wal_path);

// The seed of a random test: LITEFS_TEST_SEED or a new one; printed.
uint64_t test_seed(const char* test);

// Writes a file anew.
void write_file(const std::string& path, const Bytes& content);
Bytes read_file(const std::string& path);
void copy_file(const std::string& from, const std::string& to);

// A writer on PATH, PATH-wal and PATH-shm, through direct locks.
Result<std::unique_ptr<WalWriter>> attach_writer(const std::string& path, uint32_t page_size,
                                                 WalWriterOptions options = {});

// All of it: begin, pages, prepare, publish. Throws on an error.
void apply(WalWriter& writer, const Transaction& transaction);

}  // namespace litefs::test
