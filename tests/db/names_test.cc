// Which names are databases, and which files of a data directory.
#include <filesystem>
#include <fstream>

#include "db/paths.h"
#include "node_fixture.h"

using namespace litefs;
using namespace litefs::test;

TEST_CASE("names that SQLite gives to other files are no databases' names") {
  for (const char* name : {"a.db", "a", "a-mj.db", "a-mj0123AB8CD", "a.db-mj0123ab9cd", "-wal", "a%2Fb", "ä ö"}) {
    CAPTURE(name);
    CHECK(check_database_name(name).ok());
  }
  for (const char* name : {"", ".a", "a-wal", "a-shm", "a-journal", "a-pos", "a.db-mj0123AB9CD"}) {
    CAPTURE(name);
    CHECK_FALSE(check_database_name(name).ok());
  }
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
