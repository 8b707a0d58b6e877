// The change log under a full disk, failing writes and deaths at every file operation.
#include <filesystem>
#include <functional>
#include <set>

#include "changelog/log_fixture.h"
#include "faulty_file_system.h"
#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {

constexpr ChangeLogOptions kSmallSegments{1500};

Result<std::unique_ptr<ChangeLog>> open_log(FileSystem& files, const std::string& directory,
                                            const ChangeLogOptions& options = kSmallSegments) {
  return ChangeLog::open(files, directory, options, std::nullopt, Log(null_log_sink()));
}

// How many there were since this was asked, or anything else planned.
uint64_t take_syncs(FaultyFileSystem& files) {
  const uint64_t count = files.operations();
  files.plan({.kinds = kFaultSync});
  return count;
}

std::vector<MadeRecord> make_records(size_t count) {
  RecordMaker maker;
  std::vector<MadeRecord> records;
  for (size_t i = 0; i < count; ++i) records.push_back(maker.next(i % 4 == 3 ? 6 : 1));
  return records;
}

// One step of a story: `record` alone or in pieces, or two in a batch. Answers how many records it
// adds.
size_t step_size(size_t next) { return next % 4 == 1 ? 2 : 1; }
Status append_step(ChangeLog& log, const std::vector<MadeRecord>& records, size_t next) {
  if (next % 4 == 3) return append_in_pieces(log, records[next]);
  if (step_size(next) == 2) return log.append({records[next].entry(), records[next + 1].entry()});
  return log.append({records[next].entry()});
}

// How many records the log holds, which must be the first ones.
size_t check_holds_first(ChangeLog& log, const std::vector<MadeRecord>& records) {
  std::unique_ptr<LogCursor> cursor = std::move(log.read_after(Position())).value();
  size_t count = 0;
  while (cursor->next().value()) {
    REQUIRE(count < records.size());
    REQUIRE(same_info(cursor->info(), records[count].info));
    REQUIRE(read_record(cursor->record()).value() == records[count].bytes);
    ++count;
  }
  std::optional<LogEntryInfo> last = log.last();
  REQUIRE(last.has_value() == (count > 0));
  if (last) REQUIRE(same_info(*last, records[count - 1].info));
  return count;
}

// REQUIRE around a call would swallow the death.
void must(const Status& status) { REQUIRE(status.ok()); }

constexpr FaultAction kDeaths[] = {FaultAction::kKillBefore, FaultAction::kKillHalf, FaultAction::kKillAfter};

// Runs `story` to its end to count its operations, then with a death at each of them, and `check`
// on what is left, with a directory of its own each time.
using Story = std::function<void(FileSystem&, const std::string& directory)>;
void die_everywhere(const Story& prepare, const Story& story, const Story& check) {
  std::unique_ptr<FileSystem> real = posix_file_system();
  FaultyFileSystem alive(*real);
  uint64_t operations = 0;
  {
    TempDir dir;
    prepare(alive, dir.file("log"));
    alive.plan({});
    story(alive, dir.file("log"));
    operations = alive.operations();
  }
  REQUIRE(operations > 0);
  for (uint64_t at = 1; at <= operations; ++at) {
    for (FaultAction action : kDeaths) {
      TempDir dir;
      prepare(alive, dir.file("log"));
      FaultyFileSystem files(*real);
      files.plan({.at = at, .action = action});
      REQUIRE_THROWS_AS(story(files, dir.file("log")), Killed);
      check(alive, dir.file("log"));
    }
  }
}

}  // namespace

TEST_CASE("a write that fails leaves the log as it was and usable") {
  const std::vector<MadeRecord> records = make_records(15);
  std::unique_ptr<FileSystem> real = posix_file_system();
  for (FaultAction action : {FaultAction::kFail, FaultAction::kFailHalf}) {
    // Kinds that a full disk refuses; what undoes them must work (see the next test).
    for (uint64_t at = 1;; ++at) {
      TempDir dir;
      FaultyFileSystem files(*real);
      std::unique_ptr<ChangeLog> log = std::move(open_log(files, dir.file("log"))).value();
      files.plan({.at = at, .action = action, .kinds = kFaultOpen | kFaultWrite | kFaultRename});
      size_t failures = 0;
      for (size_t next = 0; next < records.size();) {
        LogEnd end = log->end();
        Status status = append_step(*log, records, next);
        if (status.ok()) {
          next += step_size(next);
          continue;
        }
        ++failures;
        REQUIRE(status.error().code() == ErrorCode::kNoSpace);
        REQUIRE(log->end() == end);
        REQUIRE(check_holds_first(*log, records) == next);
        // Nothing of it is left in the files either.
        uint64_t in_files = 0;
        const std::vector<std::string> names = real->list(dir.file("log")).value();
        for (const std::string& name : names) {
          in_files += real->info(dir.file("log") + "/" + name).value().size_bytes;
        }
        REQUIRE(in_files == log->size_bytes());
      }
      REQUIRE(check_holds_first(*log, records) == records.size());
      log = std::move(open_log(*real, dir.file("log"))).value();
      REQUIRE(check_holds_first(*log, records) == records.size());
      if (failures == 0) break;
    }
  }
}

TEST_CASE("when what was written cannot be cut either, the log stops until it is opened again") {
  const std::vector<MadeRecord> records = make_records(3);
  std::unique_ptr<FileSystem> real = posix_file_system();
  TempDir dir;
  FaultyFileSystem files(*real);
  std::unique_ptr<ChangeLog> log = std::move(open_log(files, dir.file("log"))).value();
  REQUIRE(log->append({records[0].entry()}).ok());
  files.plan({.at = 1, .action = FaultAction::kFailHalf, .stays = true});
  CHECK(log->append({records[1].entry()}).error().code() == ErrorCode::kNoSpace);
  files.plan({});
  CHECK(log->append({records[1].entry()}).error().code() == ErrorCode::kIo);
  CHECK(log->sync().error().code() == ErrorCode::kIo);
  CHECK(log->cut_after(Position()).error().code() == ErrorCode::kIo);
  CHECK(check_holds_first(*log, records) == 1);
  log = std::move(open_log(files, dir.file("log"))).value();
  CHECK(check_holds_first(*log, records) == 1);
  CHECK(log->append({records[1].entry()}).ok());
}

TEST_CASE("after a sync that failed nothing is promised any more") {
  const std::vector<MadeRecord> records = make_records(3);
  std::unique_ptr<FileSystem> real = posix_file_system();
  for (uint64_t at : {1, 2}) {  // of the segment, of the directory
    TempDir dir;
    FaultyFileSystem files(*real);
    std::unique_ptr<ChangeLog> log = std::move(open_log(files, dir.file("log"))).value();
    REQUIRE(log->append({records[0].entry()}).ok());
    files.plan({.at = at, .error = ErrorCode::kIo, .kinds = kFaultSync});
    CHECK_FALSE(log->sync().ok());
    CHECK_FALSE(log->sync().ok());
    CHECK(log->append({records[1].entry()}).error().code() == ErrorCode::kIo);
  }
}

TEST_CASE("syncs reach the disk once, a full segment's before the next one begins") {
  const std::vector<MadeRecord> records = make_records(8);
  std::unique_ptr<FileSystem> real = posix_file_system();
  TempDir dir;
  FaultyFileSystem files(*real);
  auto syncs = [&] { return take_syncs(files); };
  std::unique_ptr<ChangeLog> log = std::move(open_log(files, dir.file("log"))).value();
  (void)syncs();
  REQUIRE(log->sync().ok());
  CHECK(syncs() == 0);
  REQUIRE(log->append({records[0].entry()}).ok());
  REQUIRE(log->sync().ok());
  CHECK(syncs() == 2);  // segment and directory
  REQUIRE(log->append({records[1].entry()}).ok());
  REQUIRE(log->sync().ok());
  REQUIRE(log->sync().ok());
  CHECK(syncs() == 1);
  REQUIRE(log->append({records[2].entry(), records[3].entry()}).ok());  // full now
  REQUIRE(log->append({records[4].entry()}).ok());
  CHECK(syncs() == 1);
  REQUIRE(log->sync().ok());
  CHECK(syncs() == 2);
  // What a predecessor wrote may not be synced.
  log = std::move(open_log(files, dir.file("log"))).value();
  REQUIRE(log->sync().ok());
  CHECK(syncs() == 2);
}

TEST_CASE("a sync that is done later is of all that has been written until it begins") {
  const std::vector<MadeRecord> records = make_records(16);
  std::unique_ptr<FileSystem> real = posix_file_system();
  TempDir dir;
  FaultyFileSystem files(*real);
  auto syncs = [&] { return take_syncs(files); };
  auto open = [&] { return std::move(open_log(files, dir.file("log"), ChangeLogOptions{6000})).value(); };
  std::unique_ptr<ChangeLog> log = open();
  CHECK(log->begin_sync().value() == nullptr);
  REQUIRE(log->append({records[0].entry()}).ok());
  (void)syncs();
  CHECK(log->begin_sync().value() == nullptr);  // the first of a segment at once, as its name is new
  CHECK(syncs() == 2);
  REQUIRE(log->append({records[1].entry()}).ok());
  std::shared_ptr<LogSync> first = log->begin_sync().value();
  REQUIRE(first);
  REQUIRE(log->append({records[2].entry()}).ok());
  CHECK(log->begin_sync().value() == nullptr);  // the first will do it
  CHECK(syncs() == 0);
  CHECK(first->finish().ok());
  CHECK(first->finish().ok());
  CHECK(syncs() == 1);
  REQUIRE(log->append({records[3].entry()}).ok());
  std::shared_ptr<LogSync> second = log->begin_sync().value();
  REQUIRE(second);
  CHECK(second != first);
  CHECK(syncs() == 0);
  // Who wants it now does not wait for another thread.
  REQUIRE(log->sync().ok());
  CHECK(syncs() >= 1);
  CHECK(second->begun());
  CHECK(second->finish().ok());
  CHECK(syncs() == 0);
  // A segment that ends with one that nobody has done.
  REQUIRE(log->append({records[4].entry()}).ok());
  std::shared_ptr<LogSync> last = log->begin_sync().value();
  for (size_t next = 5; next < records.size(); ++next) REQUIRE(log->append({records[next].entry()}).ok());
  REQUIRE(log->begin_sync().ok());
  log.reset();
  CHECK((!last || last->finish().ok()));
  CHECK(std::distance(std::filesystem::directory_iterator(dir.file("log")), {}) > 1);
  log = open();
  CHECK(check_holds_first(*log, records) == records.size());
}

TEST_CASE("the error of a sync that was done later is not forgotten") {
  const std::vector<MadeRecord> records = make_records(4);
  std::unique_ptr<FileSystem> real = posix_file_system();
  for (const bool asks_for_sync : {false, true}) {
    TempDir dir;
    FaultyFileSystem files(*real);
    std::unique_ptr<ChangeLog> log = std::move(open_log(files, dir.file("log"))).value();
    REQUIRE(log->append({records[0].entry()}).ok());
    REQUIRE(log->sync().ok());
    REQUIRE(log->append({records[1].entry()}).ok());
    std::shared_ptr<LogSync> sync = log->begin_sync().value();
    REQUIRE(sync);
    files.plan({.at = 1, .error = ErrorCode::kIo, .kinds = kFaultSync});
    CHECK_FALSE(sync->finish().ok());
    // The system would tell of it no more.
    REQUIRE(log->append({records[2].entry()}).ok());
    CHECK_FALSE((asks_for_sync ? log->sync().ok() : log->begin_sync().ok()));
    CHECK(log->append({records[3].entry()}).error().code() == ErrorCode::kIo);
  }
}

TEST_CASE("a death at any operation of appends costs nothing that was acknowledged") {
  const std::vector<MadeRecord> records = make_records(15);
  size_t acknowledged = 0, in_flight = 0;
  die_everywhere([](FileSystem&, const std::string&) {},
                 [&](FileSystem& files, const std::string& directory) {
                   acknowledged = in_flight = 0;
                   std::unique_ptr<ChangeLog> log = std::move(open_log(files, directory)).value();
                   for (size_t next = 0; next < records.size(); next = acknowledged) {
                     in_flight = next + step_size(next);
                     must(append_step(*log, records, next));
                     acknowledged = in_flight;
                     if (next % 5 == 0) must(log->sync());
                   }
                 },
                 [&](FileSystem& files, const std::string& directory) {
                   std::unique_ptr<ChangeLog> log = std::move(open_log(files, directory)).value();
                   size_t held = check_holds_first(*log, records);
                   REQUIRE(held >= acknowledged);
                   REQUIRE(held <= in_flight);
                   // It goes on from there, and is whole when opened again.
                   for (size_t next = held; next < records.size(); ++next) {
                     REQUIRE(log->append({records[next].entry()}).ok());
                   }
                   log = std::move(open_log(files, directory)).value();
                   REQUIRE(check_holds_first(*log, records) == records.size());
                 });
}

TEST_CASE("a death at any operation of a cut, a clear or a trim leaves a log without gaps") {
  const std::vector<MadeRecord> records = make_records(15);
  auto prepare = [&](FileSystem& files, const std::string& directory) {
    std::unique_ptr<ChangeLog> log = std::move(open_log(files, directory)).value();
    for (const MadeRecord& record : records) REQUIRE(log->append({record.entry()}).ok());
  };
  size_t kept = 0;
  auto cut = [&](FileSystem& files, const std::string& directory) {
    std::unique_ptr<ChangeLog> log = std::move(open_log(files, directory)).value();
    Position position = kept == 0 ? Position() : records[kept - 1].info.position;
    must(log->cut_after(position));
    REQUIRE(check_holds_first(*log, records) == kept);
  };
  auto check_cut = [&](FileSystem& files, const std::string& directory) {
    std::unique_ptr<ChangeLog> log = std::move(open_log(files, directory)).value();
    REQUIRE(check_holds_first(*log, records) >= kept);
  };
  for (size_t at : {0u, 2u, 9u}) {
    kept = at;
    die_everywhere(prepare, cut, check_cut);
  }
  auto trim = [&](FileSystem& files, const std::string& directory) {
    std::unique_ptr<ChangeLog> log = std::move(open_log(files, directory)).value();
    size_t removed = log->trim({.bytes_max = 1}).value();
    REQUIRE(removed > 1);
  };
  auto check_trimmed = [&](FileSystem& files, const std::string& directory) {
    std::unique_ptr<ChangeLog> log = std::move(open_log(files, directory)).value();
    Position position = *log->oldest_before().value();
    std::unique_ptr<LogCursor> cursor = std::move(log->read_after(position)).value();
    while (cursor->next().value()) position = cursor->info().position;
    REQUIRE(position == records.back().info.position);
  };
  die_everywhere(prepare, trim, check_trimmed);
}

TEST_CASE("a cut that fails half-way stops the log until it is opened again") {
  const std::vector<MadeRecord> records = make_records(15);
  std::unique_ptr<FileSystem> real = posix_file_system();
  for (uint64_t at = 1;; ++at) {
    TempDir dir;
    FaultyFileSystem files(*real);
    std::unique_ptr<ChangeLog> log = std::move(open_log(files, dir.file("log"))).value();
    for (const MadeRecord& record : records) REQUIRE(log->append({record.entry()}).ok());
    files.plan({.at = at, .error = ErrorCode::kIo});
    Status cut = log->cut_after(records[2].info.position);
    if (cut.ok()) break;
    CHECK(log->append({records[3].entry()}).error().code() == ErrorCode::kIo);
    log = std::move(open_log(files, dir.file("log"))).value();
    CHECK(check_holds_first(*log, records) >= 3);
    CHECK(log->cut_after(records[2].info.position).ok());
    CHECK(check_holds_first(*log, records) == 3);
  }
}
