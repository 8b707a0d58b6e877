#include "history.h"

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <stdexcept>

#include "child.h"

namespace litefs::test {
namespace {

template <class T>
T expect(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.error().message());
  return std::move(result).value();
}
void expect(Status status) {
  if (!status.ok()) throw std::runtime_error(status.error().message());
}

std::string random_change(std::mt19937_64& random) {
  std::string k = std::to_string(random() % 400);
  std::string size = std::to_string(random() % 8 == 0 ? random() % 5000 : random() % 300);
  std::string row = k + ", randomblob(" + size + "), " + std::to_string(random() % 100000);
  switch (random() % 4) {
    case 0: return "DELETE FROM t WHERE k = " + k + ";";
    case 1: return "DELETE FROM t WHERE k BETWEEN " + k + " AND " + k + " + 5;";
    default: return "INSERT OR REPLACE INTO t VALUES(" + row + ");";
  }
}

std::string random_transaction(std::mt19937_64& random) {
  std::string sql = "BEGIN;";
  for (uint64_t i = random() % 6; i-- > 0;) sql += random_change(random);
  return sql;
}

constexpr const char* kCommit =
    "UPDATE meta SET n = n + 1, rows = (SELECT count(*) FROM t), total = (SELECT ifnull(sum(h), 0) "
    "FROM t);"
    "COMMIT";

}  // namespace

History make_history(const std::string& directory, const HistoryPlan& plan, std::mt19937_64& random) {
  History history;
  history.page_size = plan.page_size;
  std::string path = directory + "/source.db";
  SqliteProcess source(path);
  source.exec("PRAGMA page_size=" + std::to_string(plan.page_size) + "; PRAGMA journal_mode=WAL");
  // A small cache makes SQLite spill, and rewrite frames and their checksums.
  source.exec("PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=20");
  source.exec("CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB, h INTEGER); CREATE INDEX th ON t(h)");
  source.exec("CREATE TABLE meta(n, rows, total); INSERT INTO meta VALUES(0, 0, 0)");
  source.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  history.first = read_file(path);

  int64_t n = 0;
  for (int i = 0; i < plan.transactions; ++i) {
    if (plan.vacuum_every != 0 && i % plan.vacuum_every == plan.vacuum_every - 1) {
      source.exec("VACUUM");
    } else {
      std::string sql = random_transaction(random);
      if (i == plan.transactions / 2 && plan.big_rows != 0) {
        sql += "WITH RECURSIVE c(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM c WHERE i < " +
               std::to_string(plan.big_rows) + ") INSERT INTO t(v, h) SELECT randomblob(1000), i FROM c;";
      }
      source.exec(sql + kCommit);
      ++n;
    }
    history.n_after.push_back(n);
  }
  copy_file(path + "-wal", directory + "/source.wal");
  history.transactions = read_transactions(directory + "/source.wal");
  if (history.transactions.size() != history.n_after.size()) throw std::runtime_error("lost a transaction");
  source.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  history.last = read_file(path);
  return history;
}

std::vector<Transaction> read_transactions(const std::string& wal_path) {
  auto files = posix_file_system();
  auto wal = expect(files->open(wal_path, OpenMode::kReadOnly));
  Bytes bytes(kWalHeaderBytes);
  expect(wal->read_exactly(0, bytes));
  std::optional<WalHeader> header = expect(WalHeader::parse(bytes));
  if (!header) throw std::runtime_error("no WAL header");
  std::vector<Transaction> transactions;
  Transaction open;
  WalAnchor start{header->salts, 0, header->checksum};
  expect(scan_wal(*wal, *header, start, [&](uint32_t, const WalFrame& meaning, ByteView page) {
    open.frames.emplace_back(meaning.pgno, Bytes(page.begin(), page.end()));
    if (meaning.commit_size != 0) {
      open.size_pages = meaning.commit_size;
      transactions.push_back(std::exchange(open, {}));
    }
    return true;
  }));
  return transactions;
}

uint64_t test_seed(const char* test) {
  const char* given = std::getenv("LITEFS_TEST_SEED");
  uint64_t seed = given ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  std::cout << test << ": LITEFS_TEST_SEED=" << seed << std::endl;
  return seed;
}

void write_file(const std::string& path, const Bytes& content) {
  auto files = posix_file_system();
  auto file = expect(files->open(path, OpenMode::kCreate));
  expect(file->truncate(0));
  expect(file->write_at(0, content));
}

Bytes read_file(const std::string& path) { return expect(posix_file_system()->read_all(path, 1u << 30)); }

void copy_file(const std::string& from, const std::string& to) {
  std::filesystem::copy_file(from, to, std::filesystem::copy_options::overwrite_existing);
}

Result<std::unique_ptr<WalWriter>> attach_writer(const std::string& path, uint32_t page_size,
                                                 WalWriterOptions options) {
  static std::unique_ptr<Random> random = system_random();
  auto files = posix_file_system();
  std::unique_ptr<LockDoor> locks = TRY(direct_lock_door(*files, path));
  WalWriterFiles own;
  own.database = TRY(files->open(path, OpenMode::kReadWrite));
  own.wal = TRY(files->open(path + "-wal", OpenMode::kCreate));
  own.shm = TRY(files->open(path + "-shm", OpenMode::kCreate));
  options.page_size = page_size;
  return WalWriter::attach(std::move(own), std::move(locks), options, *random);
}

void apply(WalWriter& writer, const Transaction& transaction) {
  expect(writer.begin());
  for (const auto& [pgno, page] : transaction.frames) expect(writer.add_page(pgno, page));
  WalAnchor anchor = expect(writer.prepare(transaction.size_pages));
  expect(writer.publish());
  if (!(writer.end() == anchor)) throw std::runtime_error("publish did not reach its anchor");
}

}  // namespace litefs::test
