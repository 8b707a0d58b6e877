// The list of a node's earlier mounts. That it keeps databases fenced: tests/system/start_test.cc.
#include "env/dead_mounts.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "test.h"

using namespace litefs;
using namespace litefs::test;

namespace {
void write(FileSystem& files, const std::string& path, const std::string& text) {
  REQUIRE(files.write_atomically(path, as_bytes(text)).ok());
}
std::string read(FileSystem& files, const std::string& path) {
  const Bytes text = files.read_all(path, 1000).value();
  return {text.begin(), text.end()};
}
}  // namespace

TEST_CASE("a list of mounts that cannot be read is an error that says where it is") {
  TempDir directory;
  auto files = posix_file_system();
  auto clock = system_clock();
  const std::string path = directory.file("mounts");
  SUBCASE("none yet") { CHECK(DeadMounts::open(*files, *clock, path).ok()); }
  SUBCASE("of another boot: its mounts are gone") {
    write(*files, path, "another\nrubbish\n");
    CHECK(DeadMounts::open(*files, *clock, path).ok());
  }
  SUBCASE("rubbish") {
    for (const char* text : {"0:7x\n", "0\n", "a:b\n", "0:7\n:\n"}) {
      CAPTURE(text);
      write(*files, path, clock->boot_id() + "\n" + text);
      auto opened = DeadMounts::open(*files, *clock, path);
      REQUIRE_FALSE(opened.ok());
      CHECK(opened.error().code() == ErrorCode::kCorrupt);
      CHECK(opened.error().message().find(path) != std::string::npos);
    }
  }
}

TEST_CASE("a mount that nobody has files open of is forgotten, and the living one is none of the dead") {
  TempDir directory;
  auto files = posix_file_system();
  auto clock = system_clock();
  const std::string path = directory.file("mounts");
  write(*files, path, clock->boot_id() + "\n4095:1\n4095:2\n");
  auto mounts = DeadMounts::open(*files, *clock, path).value();
  CHECK(mounts->holders({"db"}).empty());
  REQUIRE(mounts->add(makedev(4095, 3)).ok());
  CHECK(read(*files, path) == clock->boot_id() + "\n4095:3\n");
  // One on which this process has a file open, and which is alive.
  struct stat info;
  REQUIRE(stat(path.c_str(), &info) == 0);
  write(*files, path,
        clock->boot_id() + "\n" + std::to_string(major(info.st_dev)) + ":" + std::to_string(minor(info.st_dev)) + "\n");
  auto file = files->open(path, OpenMode::kReadOnly);
  CHECK(DeadMounts::open(*files, *clock, path).value()->holders({"mounts"}).empty());
}
