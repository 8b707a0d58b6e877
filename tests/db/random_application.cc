#include "db/random_application.h"

namespace litefs::test {

RandomApplication::RandomApplication(const Options& options) : options_(options), random_(options.seed) {
  connections_.resize(static_cast<size_t>(options.connections), nullptr);
  open(0);
  static const char* const kPageSizes[] = {"512", "1024", "4096"};
  run(connections_[0], std::string("PRAGMA page_size=") + kPageSizes[below(3)]);
  run(connections_[0], "PRAGMA auto_vacuum=" + std::to_string(below(3)));
  run(connections_[0],
      "BEGIN; CREATE TABLE IF NOT EXISTS count(n); INSERT INTO count SELECT 0 WHERE NOT EXISTS "
      "(SELECT * FROM count); COMMIT");
}

RandomApplication::~RandomApplication() { close(); }

void RandomApplication::close() {
  for (sqlite3*& db : connections_) {
    sqlite3_close(db);
    db = nullptr;
  }
}

void RandomApplication::open(size_t index) {
  sqlite3*& db = connections_[index];
  if (db) return;
  if (sqlite3_open_v2(options_.path.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, options_.vfs.c_str()) !=
      SQLITE_OK) {
    ++errors_;
    sqlite3_close(db);
    db = nullptr;
    return;
  }
  run(db, "PRAGMA cache_size=" + std::to_string(below(3) == 0 ? 200 : 5 + below(10)));
  run(db, "PRAGMA secure_delete=" + std::to_string(below(3) == 0));
  static const char* const kSync[] = {"OFF", "NORMAL", "FULL"};
  run(db, std::string("PRAGMA synchronous=") + kSync[below(3)]);
}

int RandomApplication::run(sqlite3* db, const std::string& sql) {
  if (!db) return SQLITE_MISUSE;
  char* message = nullptr;
  int code = sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &message);
  if (code != SQLITE_OK) {
    ++errors_;
    error_ = sql + ": " + (message ? message : "?");
  }
  sqlite3_free(message);
  return code;
}

std::string RandomApplication::value(sqlite3* db, const std::string& sql) {
  std::string out;
  auto take = [](void* to, int columns, char** values, char**) {
    if (columns > 0 && values[0]) *static_cast<std::string*>(to) = values[0];
    return 0;
  };
  if (db) sqlite3_exec(db, sql.c_str(), take, &out, nullptr);
  return out;
}

int64_t RandomApplication::count(const std::string& path, const std::string& vfs) {
  sqlite3* db = nullptr;
  int64_t count = -1;
  auto take = [](void* to, int, char** values, char**) {
    *static_cast<int64_t*>(to) = values[0] ? std::stoll(values[0]) : -1;
    return 0;
  };
  if (sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE, vfs.c_str()) == SQLITE_OK) {
    sqlite3_exec(db, "SELECT max(n) FROM count", take, &count, nullptr);
  }
  sqlite3_close(db);
  return count;
}

std::string RandomApplication::change() {
  const std::string table = "t" + std::to_string(below(4));
  const std::string id = std::to_string(below(60));
  const std::string size = std::to_string(below(8) == 0 ? below(9000) : below(400));
  switch (below(12)) {
    case 0: return "CREATE TABLE IF NOT EXISTS " + table + "(id INTEGER PRIMARY KEY, a, b);";
    case 1: return "CREATE INDEX IF NOT EXISTS i" + table + " ON " + table + "(a);";
    case 2: return below(4) == 0 ? "DROP TABLE IF EXISTS " + table + ";" : "DROP INDEX IF EXISTS i" + table + ";";
    case 3:
    case 4: return "DELETE FROM " + table + " WHERE id % " + std::to_string(2 + below(20)) + " = 0;";
    case 5:
      return "UPDATE " + table + " SET b = randomblob(" + size + ") WHERE id % 7 = " + std::to_string(below(7)) + ";";
    case 6:
      return "INSERT INTO " + table + "(a, b) WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < " +
             std::to_string(1 + below(60)) + ") SELECT random(), randomblob(" + size + ") FROM c;";
    default: return "INSERT OR REPLACE INTO " + table + " VALUES(" + id + ", random(), randomblob(" + size + "));";
  }
}

void RandomApplication::transaction(sqlite3* db) {
  in_doubt_ = false;
  if (run(db, below(2) ? "BEGIN IMMEDIATE" : "BEGIN") != SQLITE_OK) return;
  for (uint32_t i = 0; i <= below(6); ++i) {
    // Not in a WAL: SQLite 3.40 itself loses commits after a savepoint that takes back spilled pages.
    if (below(5) == 0 && !in_wal()) {
      run(db, "SAVEPOINT s");
      for (uint32_t j = 0; j <= below(3); ++j) run(db, change());
      run(db, below(2) ? "ROLLBACK TO s" : "RELEASE s");
    } else {
      run(db, change());
    }
    if (sqlite3_get_autocommit(db)) return;  // an error has rolled it back
  }
  if (below(6) == 0) {
    run(db, "ROLLBACK");
  } else if (run(db, "UPDATE count SET n = n + 1") == SQLITE_OK && sqlite3_changes(db) == 1) {
    if (run(db, "COMMIT") == SQLITE_OK) {
      ++committed_;
    } else {
      in_doubt_ = true;
    }
  }
  if (!sqlite3_get_autocommit(db)) run(db, "ROLLBACK");
}

void RandomApplication::set_mode(sqlite3* db) {
  static const char* const kModes[] = {"delete", "truncate", "persist", "wal"};
  const std::string mode = kModes[below(options_.wal ? 4 : 3)];
  // A WAL in EXCLUSIVE mode is another matter.
  for (sqlite3* each : connections_) {
    if (mode == "wal" && each) run(each, "PRAGMA locking_mode=NORMAL; SELECT count(*) FROM sqlite_schema");
  }
  // One connection alone can leave the WAL.
  if (in_wal() && mode != "wal") {
    for (sqlite3*& other : connections_) {
      if (other == db) continue;
      sqlite3_close(other);
      other = nullptr;
    }
    // SQLite 3.40 itself keeps a page cache from before the WAL over it, and loses the others' commits, where this
    // connection has not read since.
    value(db, "SELECT n FROM count");
  }
  std::string now = value(db, "PRAGMA journal_mode=" + mode);
  if (!now.empty()) mode_ = now;
}

void RandomApplication::pragma(sqlite3* db) {
  switch (below(9)) {
    case 0: set_mode(db); return;
    case 1: run(db, "VACUUM"); return;
    case 2: run(db, "PRAGMA incremental_vacuum(" + std::to_string(below(20)) + ")"); return;
    case 3: run(db, "PRAGMA cache_size=" + std::to_string(below(3) == 0 ? 200 : 5 + below(10))); return;
    case 4:
      if (options_.page_sizes && !in_wal()) {
        run(db, "PRAGMA page_size=" + std::to_string(512 << below(4)) + "; VACUUM");
      }
      return;
    case 5:
      if (options_.exclusive && !in_wal()) {
        run(db, std::string("PRAGMA locking_mode=") + (below(2) ? "EXCLUSIVE" : "NORMAL") +
                    "; SELECT count(*) FROM sqlite_schema");
      }
      return;
    case 6: run(db, "PRAGMA journal_size_limit=" + std::to_string(below(2) ? -1 : 4096)); return;
    case 7: run(db, "PRAGMA secure_delete=" + std::to_string(below(2))); return;
    case 8:
      if (in_wal()) run(db, "PRAGMA wal_checkpoint(TRUNCATE)");
      return;
  }
}

void RandomApplication::step() {
  size_t index = below(static_cast<uint32_t>(connections_.size()));
  open(index);
  sqlite3* db = connections_[index];
  if (!db) return;
  uint32_t kind = below(40);
  if (kind == 0) {
    sqlite3_close(db);
    connections_[index] = nullptr;
  } else if (kind < 5) {
    pragma(db);
  } else {
    transaction(db);
  }
}

}  // namespace litefs::test
