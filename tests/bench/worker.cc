#include "bench/worker.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <iostream>
#include <random>
#include <sstream>
#include <stdexcept>

#include "bench/report.h"
#include "system/sql.h"

namespace litefs::bench {

namespace {

using test::Sql;
using test::SqlError;
using test::Statement;

constexpr unsigned kWorkerSecondsMax = 600;
constexpr int64_t kBuildRowsPerTransaction = 20000;
constexpr test::Millis kWorkerEnd{5000};
constexpr useconds_t kFirstReadPauseUs = 1000;

std::string random_bytes(std::mt19937_64& random, size_t size) {
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

// Hexadecimal digits of random bytes: half of it is information.
std::string random_text(std::mt19937_64& random, size_t size) {
  std::string out(size, '\0');
  for (char& c : out) c = "0123456789abcdef"[random() & 15];
  return out;
}

struct Content {
  int64_t rows;
  std::function<std::string()> value;
};

void build(const std::string& path, const std::string& journal_mode, const Content& content) {
  const int64_t rows = content.rows;
  Sql db(path);
  db.exec("PRAGMA journal_mode=" + journal_mode + "; PRAGMA synchronous=NORMAL");
  db.exec(
      "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, v);"
      "CREATE TABLE bulk(id INTEGER PRIMARY KEY, v);"
      // How many rows are read and updated, whatever is inserted later.
      "PRAGMA user_version=" +
      std::to_string(rows));
  Statement insert(db, "INSERT INTO t VALUES(?1, 1000000, ?2)");
  for (int64_t id = 1; id <= rows;) {
    db.exec("BEGIN");
    for (int64_t i = 0; i < kBuildRowsPerTransaction && id <= rows; i++, id++) {
      insert.bind(1, id).bind(2, std::string_view(content.value())).run();
    }
    db.exec("COMMIT");
  }
}

void build_small(const std::string& path, const std::string& journal_mode) {
  std::mt19937_64 random(1);
  build(path, journal_mode, {kSmallRows, [&] { return random_bytes(random, 100); }});
}

void build_many(const std::string& path) {
  std::mt19937_64 random(2);
  build(path, "WAL", {kManyRows, [&] { return random_bytes(random, 20); }});
}

void build_big(const std::string& path, const std::string& journal_mode, int64_t bytes) {
  std::mt19937_64 random(3);
  build(path, journal_mode, {bytes / (kBigRowBytes + 20), [&] { return random_text(random, kBigRowBytes); }});
}

// Runs `operation` until the time is over.
Slice measure(int64_t milliseconds, const std::function<void()>& operation) {
  Slice slice;
  int64_t start = now_ns();
  int64_t end = start + milliseconds * 1000000;
  int64_t now;
  do {
    operation();
    slice.operations++;
  } while ((now = now_ns()) < end);
  slice.seconds = static_cast<double>(now - start) / 1e9;
  return slice;
}

// SQLITE_BUSY after the busy timeout is not an answer that a slice expects: it is thrown.
class Operations {
 public:
  Operations(const std::string& kind, const std::string& path)
      : db_(path, SQLITE_OPEN_READWRITE), rows_(db_.integer("PRAGMA user_version")), random_(std::random_device()()) {
    db_.exec(std::string("PRAGMA synchronous=") + (kind.ends_with("_full") ? "FULL" : "NORMAL"));
    select_ = std::make_unique<Statement>(db_, "SELECT v FROM t WHERE id = ?1");
    update_ = std::make_unique<Statement>(db_, "UPDATE t SET n = n + 1 WHERE id = ?1");
    insert_ = std::make_unique<Statement>(db_, "INSERT INTO t(n, v) VALUES(1, ?1)");
    replace_ = std::make_unique<Statement>(db_, "INSERT OR REPLACE INTO bulk VALUES(?1, ?2)");
  }

  void point_read() {
    select_->bind(1, random_row());
    if (!select_->step()) throw SqlError(SQLITE_EMPTY, "a row is missing");
    select_->reset();
  }
  void one_row() { update_->bind(1, random_row()).run(); }
  void insert_row() { insert_->bind(1, std::string_view(random_bytes(random_, 100))).run(); }
  void rows_1000() {
    // Over a range that does not grow with the number of slices.
    int64_t first = 1 + static_cast<int64_t>(random_() % 200) * 1000;
    db_.exec("BEGIN");
    for (int64_t i = 0; i < 1000; i++) {
      replace_->bind(1, first + i).bind(2, std::string_view(random_bytes(random_, 100))).run();
    }
    db_.exec("COMMIT");
  }
  void update_200() {
    db_.exec("BEGIN");
    for (int i = 0; i < 200; i++) one_row();
    db_.exec("COMMIT");
  }
  void mix_90_10() {
    if (random_() % 10)
      point_read();
    else
      one_row();
  }

 private:
  int64_t random_row() { return 1 + static_cast<int64_t>(random_() % static_cast<uint64_t>(rows_)); }

  Sql db_;
  int64_t rows_;
  std::mt19937_64 random_;
  std::unique_ptr<Statement> select_, update_, insert_, replace_;
};

void answer(const Slice& slice) { std::cout << slice.operations << " " << slice.seconds << std::endl; }

void answer(const std::vector<int64_t>& times) {
  std::ostringstream line;
  for (int64_t t : times) line << t << " ";
  std::cout << line.str() << std::endl;
}

using Operation = void (Operations::*)();

Operation operation_of(const std::string& kind) {
  if (kind == "point_read") return &Operations::point_read;
  if (kind == "one_row_normal" || kind == "one_row_full" || kind == "update") return &Operations::one_row;
  if (kind == "insert_row" || kind == "insert") return &Operations::insert_row;
  if (kind == "rows_1000") return &Operations::rows_1000;
  if (kind == "update_200" || kind == "update_200_full") return &Operations::update_200;
  if (kind == "mix_90_10") return &Operations::mix_90_10;
  throw std::runtime_error("unknown worker " + kind);
}

int run_operations(const std::string& kind, const std::string& path) {
  Operation operation = operation_of(kind);
  Operations operations(kind, path);
  std::string verb;
  int64_t first;
  while (std::cin >> verb >> first) {
    if (verb == "run") {
      answer(measure(first, [&] { (operations.*operation)(); }));
      continue;
    }
    int64_t pause_us;
    std::cin >> pause_us;
    std::vector<int64_t> times;
    for (int64_t i = 0; i < first; i++) {
      (operations.*operation)();
      times.push_back(now_ns());
      if (pause_us) usleep(static_cast<useconds_t>(pause_us));
    }
    answer(times);
  }
  return 0;
}

int run_fsync(const std::string& path) {
  int fd = open((path + "-fsync").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  std::string block(4096, 'x');
  std::string verb;
  int64_t milliseconds;
  while (std::cin >> verb >> milliseconds) {
    answer(measure(milliseconds, [&] {
      if (pwrite(fd, block.data(), block.size(), 0) < 0 || fdatasync(fd) != 0) {
        throw std::runtime_error("cannot write " + path + "-fsync");
      }
    }));
  }
  close(fd);
  return 0;
}

int run_watch(const std::string& path) {
  Sql db(path, SQLITE_OPEN_READWRITE);
  Statement newest(db, "SELECT max(id) FROM t");
  auto newest_id = [&] {
    newest.step();
    int64_t id = newest.integer(0);
    newest.reset();
    return id;
  };
  std::string verb;
  int64_t last;
  int64_t pause_us;
  while (std::cin >> verb >> last >> pause_us) {
    int64_t seen = newest_id();
    std::vector<int64_t> times;
    std::cout << "ready" << std::endl;
    while (seen < last) {
      int64_t id = newest_id();
      if (id > seen) times.insert(times.end(), static_cast<size_t>(std::min(id, last) - seen), now_ns());
      seen = std::max(seen, id);
      if (pause_us)
        usleep(static_cast<useconds_t>(pause_us));
      else
        sched_yield();
    }
    answer(times);
  }
  return 0;
}

int run_first_read(const std::string& path) {
  for (;;) {
    try {
      // Without CREATE: below a mount point that has nothing mounted the name does not exist.
      Sql db(path, SQLITE_OPEN_READWRITE);
      db.exec("PRAGMA busy_timeout=0");
      // A replica that is still catching up shows earlier states.
      if (db.integer("SELECT max(id) >= (SELECT user_version FROM pragma_user_version) FROM t")) break;
      usleep(kFirstReadPauseUs);
    } catch (const SqlError&) {
      usleep(kFirstReadPauseUs);
    }
  }
  answer(std::vector<int64_t>{now_ns()});
  return 0;
}

}  // namespace

Worker::Worker(const std::string& kind, const std::string& path) : kind_(kind) {
  test::SpawnOptions options;
  options.argv = {"/proc/self/exe", "worker", kind, path};
  process_ = test::Process::spawn(options);
}

Worker::~Worker() {
  if (!process_) return;
  process_->close_input();
  process_->wait(kWorkerEnd);
}

Slice Worker::slice_answer() {
  std::optional<std::string> line = process_->read_line(test::Millis(120000));
  if (!line) throw std::runtime_error("worker " + kind_ + " ended");
  Slice slice;
  std::istringstream(*line) >> slice.operations >> slice.seconds;
  return slice;
}

std::vector<int64_t> Worker::times_answer(test::Millis timeout) {
  std::optional<std::string> line = process_->read_line(timeout);
  if (!line) throw std::runtime_error("worker " + kind_ + " ended");
  std::istringstream in(*line);
  std::vector<int64_t> times;
  int64_t t;
  while (in >> t) times.push_back(t);
  return times;
}

void run_builder(const std::string& kind, const std::string& path, int64_t bytes) {
  test::run_command({"/proc/self/exe", "worker", kind, path, std::to_string(bytes)}, test::Millis(600000));
}

int run_worker(const std::vector<std::string>& words) {
  alarm(kWorkerSecondsMax);
  try {
    const std::string& kind = words.at(0);
    const std::string& path = words.at(1);
    if (kind == "fsync") return run_fsync(path);
    if (kind == "watch") return run_watch(path);
    if (kind == "first_read") return run_first_read(path);
    if (kind == "build_small")
      build_small(path, "WAL");
    else if (kind == "build_small_delete")
      build_small(path, "DELETE");
    else if (kind == "build_many")
      build_many(path);
    else if (kind == "build_big")
      build_big(path, "WAL", std::stoll(words.at(2)));
    else if (kind == "build_big_delete")
      build_big(path, "DELETE", std::stoll(words.at(2)));
    else
      return run_operations(kind, path);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "worker: " << error.what() << std::endl;
    return 1;
  }
}

}  // namespace litefs::bench
