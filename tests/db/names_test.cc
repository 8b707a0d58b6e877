// Which names are databases, and which files of a data directory.
#include <filesystem>
#include <fstream>

#include "db/paths.h"
#include "node_fixture.h"

using namespace litefs;
using namespace litefs::test;

TEST_CASE("names that SQLite gives to other files are no databases' names") {
  for (const char* name : {"a.db", "a", "a-mj.db", "a-mj0123AB8CD", "a.db-mj0123ab9cd", "-wal", "a%2Fb", "ä ö",
                           "a/b.db", "a/b/c/d/e.db"}) {
    CAPTURE(name);
    CHECK(check_database_name(name).ok());
  }
  for (const char* name : {"",
                           ".a",
                           "a-wal",
                           "a-shm",
                           "a-journal",
                           "a-pos",
                           "a.db-mj0123AB9CD",
                           "/a",
                           "a/",
                           "a//b",
                           ".",
                           "..",
                           "a/../b",
                           "../a",
                           "a/./b",
                           "a/.b",
                           "a-wal/b",
                           "a/b-shm",
                           "a-mj0123AB9CD/b",
                           "a-pos/b"}) {
    CAPTURE(name);
    CHECK_FALSE(check_database_name(name).ok());
  }
}

TEST_CASE("a name that would not stay in its line is no database's name") {
  for (const std::string name : {"two\nlines.db", "two\rlines.db", "\ttab.db", "a\x01.db", "d\x1f/x.db", "a\x7f.db"}) {
    Status checked = check_database_name(name);
    REQUIRE_FALSE(checked.ok());
    CHECK(checked.error().code() == ErrorCode::kInvalid);
    CHECK_FALSE(has_control_characters(checked.error().message()));
  }
  CHECK(check_database_name("\xc3\xa4 b.db").ok());
}

TEST_CASE("a database of a name with a line end, left by an older version, is left alone") {
  TempDir dir;
  { TestNode node(dir.path()); }
  std::ofstream(dir.file("db/two\nlines.db")).flush();
  std::filesystem::create_directories(dir.file("db/a\ndir"));
  std::filesystem::create_directories(dir.file("meta/two\nlines.db"));
  TestNode node(dir.path());
  CHECK(node.names().empty());
  CHECK(node.store().is_foreign("two\nlines.db"));
  CHECK(std::filesystem::exists(dir.file("db/two\nlines.db")));
  CHECK(std::filesystem::exists(dir.file("meta/two\nlines.db")));
}

TEST_CASE("names have bounds, by their parts and as a whole") {
  CHECK(check_database_name(std::string(243, 'a')).ok());
  CHECK_FALSE(check_database_name(std::string(244, 'a')).ok());
  CHECK(check_database_name(std::string(100, 'a') + "/" + std::string(152, 'a')).ok());
  CHECK_FALSE(check_database_name(std::string(100, 'a') + "/" + std::string(153, 'a')).ok());
  CHECK_FALSE(check_database_name(std::string("a\0b", 3)).ok());
}

TEST_CASE("a name under meta leads back to the database, and to no other") {
  for (const char* name : {"a", "a/b", "a%2Fb", "%", "%25", "a/b/c%", "%2F/%25"}) {
    CAPTURE(name);
    std::string escaped = escape_database_name(name);
    CHECK(escaped.find('/') == std::string::npos);
    CHECK(unescape_database_name(escaped) == name);
  }
  for (const char* escaped : {"%", "%2", "%2f", "a%41", "%%"}) {
    CAPTURE(escaped);
    CHECK_FALSE(unescape_database_name(escaped).has_value());
  }
  CHECK(escape_database_name("a/b") != escape_database_name("a%2Fb"));
}

TEST_CASE("databases in directories are found at a start") {
  TempDir directory;
  std::filesystem::create_directories(directory.file("db/a/b"));
  std::filesystem::create_directories(directory.file("db/.hidden"));
  for (const char* name : {"a.db", "a/a.db", "a/b/c.db", ".hidden/x.db"}) {
    Shell(directory.file("db/") + name).run("CREATE TABLE t(x);");
  }
  TestNode node(directory.path());
  const std::vector<std::string> all{"a.db", "a/a.db", "a/b/c.db"};
  CHECK(node.names() == all);
  node.start_primary("a/b/c.db", 1);
  CHECK(std::filesystem::exists(directory.file("meta/a%2Fb%2Fc.db/control")));
  node.restart();
  CHECK(node.names() == all);
}

TEST_CASE("a super-journal that a crash left is no database") {
  TempDir directory;
  std::filesystem::create_directories(directory.file("db"));
  Shell(directory.file("db/a.db")).run("CREATE TABLE t(x);");
  std::ofstream(directory.file("db/a.db-mj0000019AB")) << "/somewhere/a.db-journal" << '\0';
  TestNode node(directory.path());
  CHECK(node.names() == std::vector<std::string>{"a.db"});
  node.restart();
  CHECK(node.names() == std::vector<std::string>{"a.db"});
}

namespace {

struct Source {
  TempDir directory;
  std::string path = directory.file("source.db");
  Source() { Shell(path).run("CREATE TABLE t(x); INSERT INTO t VALUES(hex(zeroblob(5000)));"); }
};

std::string count(const std::string& path) { return Shell(path, true).run("SELECT count(*) FROM t;"); }

}  // namespace

TEST_CASE("a copy that was not written to its end is gone after a crash, one that was is not") {
  TempDir directory;
  TestNode node(directory.path());
  Source source;
  auto db = node.start_primary("a.db", 1);
  REQUIRE(db->begin_copy().ok());
  bool whole = false;
  SUBCASE("whole, but not closed") { std::filesystem::copy(source.path, node.file("a.db")); }
  SUBCASE("half") {
    std::filesystem::copy(source.path, node.file("a.db"));
    std::filesystem::resize_file(node.file("a.db"), 4096);
  }
  SUBCASE("nothing") {}
  SUBCASE("closed, but not recorded") {
    std::filesystem::copy(source.path, node.file("a.db"));
    std::filesystem::remove(db->paths().copying());
    whole = true;
  }
  db.reset();
  node.restart();
  db = node.start_primary("a.db", 2);
  CHECK(db->exists() == whole);
  CHECK(std::filesystem::exists(node.file("a.db")) == whole);
  CHECK_FALSE(std::filesystem::exists(db->paths().copying()));
  CHECK(node.batches().size() == (whole ? 1 : 0));
}

TEST_CASE("a database that is renamed is there under one name or both, wherever a crash comes") {
  TempDir directory;
  TestNode node(directory.path());
  std::filesystem::create_directories(directory.file("db"));
  Source source;
  std::filesystem::copy(source.path, node.file("old.db"));
  auto from = node.start_primary("old.db", 1);
  auto to = node.start_primary("new.db", 1);
  REQUIRE(from->exists());
  bool old_there = true, new_there = true;
  SUBCASE("in the middle of the copy") {
    std::filesystem::copy(source.path, to->paths().load());
    std::filesystem::resize_file(to->paths().load(), 4096);
    new_there = false;
  }
  SUBCASE("copied, not recorded") { std::filesystem::copy(source.path, node.file("new.db")); }
  SUBCASE("recorded, not dropped") { REQUIRE(to->adopt_copy_of(node.file("old.db")).ok()); }
  SUBCASE("dropped, not renamed") {
    REQUIRE(to->adopt_copy_of(node.file("old.db")).ok());
    REQUIRE(from->drop().ok());
    old_there = false;
  }
  SUBCASE("renamed") {
    REQUIRE(to->adopt_copy_of(node.file("old.db")).ok());
    REQUIRE(from->drop().ok());
    std::filesystem::rename(node.file("old.db"), node.file("new.db"));
    old_there = false;
  }
  from.reset();
  to.reset();
  node.restart();
  from = node.start_primary("old.db", 2);
  to = node.start_primary("new.db", 2);
  CHECK(from->exists() == old_there);
  CHECK(std::filesystem::exists(node.file("old.db")) == old_there);
  CHECK(to->exists() == new_there);
  if (old_there) CHECK(count(node.file("old.db")) == "1");
  if (new_there) CHECK(count(node.file("new.db")) == "1");
}

TEST_CASE("only a whole database is adopted") {
  TempDir directory;
  TestNode node(directory.path());
  Source source;
  auto db = node.start_primary("a.db", 1);
  auto size = std::filesystem::file_size(source.path);
  for (uint64_t bytes : {uint64_t{1}, uint64_t{99}, uint64_t{100}, uint64_t{4096}, size - 4096, size - 1}) {
    CAPTURE(bytes);
    REQUIRE(db->begin_copy().ok());
    std::filesystem::copy(source.path, node.file("a.db"));
    std::filesystem::resize_file(node.file("a.db"), bytes);
    Status taken = db->finish_copy();
    REQUIRE_FALSE(taken.ok());
    CHECK(taken.error().code() == ErrorCode::kInvalid);
    CHECK_FALSE(std::filesystem::exists(node.file("a.db")));
    CHECK_FALSE(db->exists());
  }
  // Left by another database of this name.
  std::ofstream(node.file("a.db-wal")) << "old";
  REQUIRE(db->begin_copy().ok());
  std::filesystem::copy(source.path, node.file("a.db"));
  CHECK_FALSE(db->finish_copy().ok());
  std::filesystem::remove(node.file("a.db-wal"));

  REQUIRE(db->begin_copy().ok());
  std::filesystem::copy(source.path, node.file("a.db"));
  REQUIRE(db->finish_copy().ok());
  CHECK(db->exists());
  CHECK(db->position().txid == TxId{1});
  CHECK(node.batches().size() == 1);
  CHECK_FALSE(db->begin_copy().ok());
  CHECK(count(node.file("a.db")) == "1");
}
