// A data directory whose databases go on being used while its hosts die and follow each other.
#pragma once

#include <filesystem>

#include "db/guest.h"
#include "db/log_replay.h"
#include "sqlite/journal.h"

namespace litefs::test {

inline std::string sums_difference(Database& db, const Bytes& all) {
  const uint32_t page_size = db.info().page_size;
  const Pgno size_pages = static_cast<Pgno>(all.size() / page_size);
  if (size_pages != db.info().size_pages) return "another size";
  Bytes page(page_size);
  for (Pgno first = 1; first <= size_pages; first += kRangePages) {
    SumsQuestion question;
    question.of_pages = true;
    question.ranges = {(first - 1) / kRangePages};
    std::vector<Checksum> sums = db.sums(question).value();
    for (Pgno pgno = first; pgno < first + kRangePages; ++pgno) {
      Checksum expected;
      if (pgno <= size_pages && pgno != lock_page(page_size)) {
        std::copy_n(all.begin() + static_cast<ptrdiff_t>(pgno - 1) * page_size, page_size, page.begin());
        if (pgno == 1) mask_local_bytes(page);
        expected = page_hash(pgno, page);
      }
      if (sums[pgno - first] != expected) return "the sum of page " + std::to_string(pgno) + " is wrong";
    }
  }
  return "";
}

// What the log says, the page sums and the file agree; nobody is in the middle of a transaction. Empty: they do.
inline std::string difference(TestNode& node, Database& db, LogReplay& replay, Guest& reader) {
  Status drained = db.drain(true);
  if (!drained.ok()) return drained.error().message();
  const std::string wrong = replay.follow(db);
  if (!wrong.empty()) return wrong;
  if (!(replay.position() == db.position())) return "the log ends elsewhere than the database";
  const std::string copy = node.directory() + "/copy.db";
  std::filesystem::remove(copy);
  const std::string version = reader.run("PRAGMA schema_version");
  {
    Shell shell(node.file("app.db"), true);
    const std::string said = shell.run(".backup " + copy);
    if (!said.empty()) return said;
  }
  auto files = posix_file_system();
  Bytes all = files->read_all(copy, 1u << 30).value();
  // The backup has raised it.
  if (!all.empty()) store_be32(all.data() + 40, static_cast<uint32_t>(std::stoul(version)));
  REQUIRE(files->open(copy, OpenMode::kReadWrite).value()->write_at(0, all).ok());
  const std::string differs = replay.difference(copy);
  if (!differs.empty()) return differs;
  return sums_difference(db, all);
}

// A data directory, the host of the moment, and guests.
struct LiveStory {
  LiveStory() {
    node = std::make_unique<TestNode>(dir.path());
    db = node->start_primary("app.db", epoch);
    db->set_writes_unseen(true);  // as for guests
  }

  Guest::Host host() {
    return [this](const std::string& what, const std::string& file) -> Status {
      if (!node) FAIL("a guest asks for " << what << ", and no host is there");
      if (what == "super") return node->store().capture_group(file);
      return serve_guest(*node->database(file.substr(file.rfind('/') + 1)), what);
    };
  }
  std::unique_ptr<Guest> guest(const std::string& name = "app.db") {
    return std::make_unique<Guest>(node->file(name), host());
  }
  // Nothing of the host is told to stop: it is gone between two instructions.
  void host_dies() {
    db.reset();
    node.reset();
  }
  void take_over() {
    node = std::make_unique<TestNode>(dir.path());
    db = node->take_over("app.db", ++epoch);
    CHECK(db->state() == DatabaseState::kReady);
  }
  void host_changes() {
    host_dies();
    take_over();
  }
  void check(Guest& reader) { CHECK(difference(reader) == ""); }
  std::string difference(Guest& reader) { return test::difference(*node, *db, replay, reader); }
  bool journal_is_hot() {
    auto journal = posix_file_system()->open_if_there(node->file("app.db-journal"), OpenMode::kReadOnly).value();
    uint8_t first[kJournalHeaderBytes];
    return journal && litefs::journal_is_hot(ByteView(first, journal->read_at(0, first).value()));
  }
  uint64_t txid() { return db->position().txid.value; }

  TempDir dir;
  uint64_t epoch = 1;
  std::unique_ptr<TestNode> node;
  std::shared_ptr<Database> db;
  LogReplay replay;
};

}  // namespace litefs::test
