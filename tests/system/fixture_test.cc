// The torture's own tools, tried on plain files: a tool that finds nothing proves nothing.
#define DOCTEST_CONFIG_IMPLEMENT
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "changelog/change_log.h"
#include "changelog/record.h"
#include "system/cluster.h"
#include "system/janitor.h"
#include "system/log_counters.h"
#include "system/workload.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

// A database's pages as its file holds them after a full checkpoint.
std::vector<Bytes> pages_of(const std::string& path, size_t page_size) {
  Sql(path).exec("PRAGMA wal_checkpoint(TRUNCATE)");
  std::string file = read_text_file(path);
  std::vector<Bytes> pages;
  for (size_t at = 0; at < file.size(); at += page_size) {
    pages.emplace_back(file.begin() + static_cast<ptrdiff_t>(at),
                       file.begin() + static_cast<ptrdiff_t>(at + page_size));
  }
  return pages;
}

// Writes a change log of a database's states, one after each transaction, but for the one numbered
// `left_out`. The workload's counter is all that is right about it: positions are those of no real
// node.
void write_log(const std::string& data, const std::string& path, size_t page_size, int left_out) {
  auto files = posix_file_system();
  std::string directory = data + "/meta/db/log";
  CHECK(files->make_directories(directory).ok());
  auto log = ChangeLog::open(*files, directory, ChangeLogOptions(), std::nullopt, Log(null_log_sink()));
  REQUIRE(log.ok());
  PageCodec codec;
  std::vector<Bytes> before;
  uint64_t txid = 0;
  for (int i = 0; i <= 30; i++) {
    WriterOptions options;
    options.transactions = 1;
    options.writer = 1;
    options.seed = static_cast<uint64_t>(i) + 10;
    options.profile = i == 15 ? "mixed" : "small";
    if (i > 0) write_workload(path, options);
    if (i == 20) Sql(path).exec("VACUUM");
    if (i == left_out) continue;
    std::vector<Bytes> after = pages_of(path, page_size);
    RecordHeader header;
    header.page_size = static_cast<uint32_t>(page_size);
    header.size_after = static_cast<Pgno>(after.size());
    header.database = DatabaseId{1};
    header.epoch = Epoch{1};
    header.txid_first = header.txid_last = TxId{++txid};
    header.before = Checksum{txid == 1 ? 0 : txid - 1};
    header.flags = txid == 1 ? RecordHeader::kCreate : 0;
    RecordEncoder encoder(codec, header);
    for (size_t p = 0; p < after.size(); p++) {
      Bytes previous = p < before.size() ? before[p] : Bytes();
      if (previous == after[p]) continue;
      Pgno pgno = static_cast<Pgno>(p + 1);
      encoder.add_page(pgno, after[p], page_hash(pgno, after[p]), previous);
    }
    encoder.finish(Checksum{txid});
    Bytes record = encoder.take();
    ChangeLog::Entry entry;
    entry.info.position = Position{Epoch{1}, TxId{txid}, Checksum{txid}};
    entry.info.before = header.before;
    entry.info.txid_first = TxId{txid};
    entry.record = record;
    REQUIRE(log.value()->append({entry}).ok());
    before = std::move(after);
  }
}

std::string app() {
  const char* path = getenv("LITEFS_APP");
  return path ? path : "";
}

// Most snapshots check a sample of the items only.
void check_all(Sql& db, std::mt19937_64& random) {
  for (int i = 0; i < 100; i++) check_snapshot(db, random);
}

}  // namespace

TEST_CASE("writers and readers of the workload agree on a plain disk, at every page size") {
  for (int page_size : {512, 4096, 65536}) {
    TempDir directory;
    std::string path = directory.file("db");
    create_workload(path, page_size);
    std::vector<std::unique_ptr<Process>> processes;
    for (int i = 1; i <= 2; i++) {
      SpawnOptions options;
      options.argv = {app(),
                      "write",
                      path,
                      std::to_string(i),
                      std::to_string(i),
                      "1",
                      "mixed",
                      directory.file("committed" + std::to_string(i))};
      processes.push_back(Process::spawn(options));
    }
    SpawnOptions reader;
    reader.argv = {app(), "read", path, "7", "1"};
    processes.push_back(Process::spawn(reader));
    for (auto& process : processes) CHECK(process->join(Millis(30000)).ok());
    int64_t committed =
        std::stoll(processes[0]->read_all(Millis(1000))) + std::stoll(processes[1]->read_all(Millis(1000)));
    Sql db(path);
    std::mt19937_64 random(1);
    CHECK(check_snapshot(db, random) == committed);
    CHECK(read_text_file(directory.file("committed1")).size() + read_text_file(directory.file("committed2")).size() ==
          static_cast<size_t>(committed) * 8);
  }
}

TEST_CASE("a state that no transaction committed is noticed") {
  TempDir directory;
  std::string path = directory.file("db");
  create_workload(path, 4096);
  WriterOptions options;
  options.transactions = 50;
  options.writer = 1;
  options.seed = 3;
  write_workload(path, options);
  for (const char* damage :
       {"UPDATE account SET balance = balance + 1 WHERE id = 3", "DELETE FROM entry WHERE n = 20",
        "DELETE FROM entry WHERE n = (SELECT max(n) FROM entry)", "UPDATE entry SET writer = 2 WHERE n = 9",
        "DELETE FROM item WHERE id = (SELECT max(id) FROM item)", "UPDATE item SET sum = sum + 1",
        "UPDATE counter SET mark = x'00'"}) {
    CAPTURE(damage);
    std::string copy = directory.file("copy");
    std::filesystem::copy_file(path, copy, std::filesystem::copy_options::overwrite_existing);
    Sql db(copy);
    std::mt19937_64 random(1);
    REQUIRE(check_snapshot(db, random) == 50);
    db.exec(damage);
    CHECK_THROWS_AS(check_all(db, random), Violation);
  }
}

TEST_CASE("a walk over a change log sees every value of the counter, and a missing one") {
  for (int page_size : {512, 4096, 65536}) {
    TempDir directory;
    std::string path = directory.file("db");
    create_workload(path, page_size);
    SUBCASE("whole") {
      write_log(directory.path(), path, static_cast<size_t>(page_size), -1);
      CounterWalk walk = log_counters(directory.path(), "db", directory.file("scratch"));
      CHECK(walk.faults == std::vector<std::string>());
      CHECK(walk.skipped == std::vector<std::string>());
      CHECK(walk.records == 31);
      CHECK(walk.last == 30);
    }
    SUBCASE("without one transaction") {
      write_log(directory.path(), path, static_cast<size_t>(page_size), 12);
      CounterWalk walk = log_counters(directory.path(), "db", directory.file("scratch"));
      CHECK(walk.skipped == std::vector<std::string>{"the counter goes from 11 to 13"});
    }
  }
}

TEST_CASE("a process is waited for with a deadline and never left behind") {
  SpawnOptions options;
  options.argv = {app(), "sql", ":memory:"};
  pid_t pid;
  {
    App conversation(Process::spawn(options));
    pid = conversation.process().pid();
    CHECK(conversation.value("SELECT 6 * 7") == "42");
    CHECK(conversation.try_sql("SELECT nothing").error == SQLITE_ERROR);
    CHECK(conversation.sql("SELECT 1, x'0aff', NULL, 'a'") == std::vector<std::string>{"1|x'0aff'|NULL|a"});
    CHECK_THROWS(conversation.process().join(Millis(20)));
  }
  CHECK(kill(pid, 0) != 0);
}

TEST_CASE("the janitor unmounts and removes what a killed owner leaves") {
  if (geteuid() != 0) {
    MESSAGE("skipped: mounting needs root");
    return;
  }
  TempDir parent;
  std::string directory = parent.file("cluster");
  std::filesystem::create_directories(directory + "/node0/mount");
  REQUIRE(mount("none", (directory + "/node0/mount").c_str(), "tmpfs", 0, nullptr) == 0);
  CHECK(mounts_below(directory).size() == 1);
  int lifeline[2];
  REQUIRE(pipe2(lifeline, O_CLOEXEC) == 0);
  pid_t janitor = start_janitor(directory, lifeline[0], lifeline[1]);
  close(lifeline[0]);
  close(lifeline[1]);
  int status;
  REQUIRE(waitpid(janitor, &status, 0) == janitor);
  CHECK(mounts_below(directory).empty());
  CHECK_FALSE(std::filesystem::exists(directory));
}

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  alarm(120);
  doctest::Context context(argc, argv);
  return context.run();
}
