// A full disk under the node's own files: what cannot be captured is refused or comes later, and nothing is lost.
#include <sched.h>
#include <sys/mount.h>

#include <fstream>

#include "db/reserve.h"
#include "node_fixture.h"

using namespace litefs;
using namespace litefs::test;

namespace {

// A small file system at the given directory. It is seen by this process and its children alone, and goes with them,
// however the test ends.
class SmallDisk {
 public:
  SmallDisk(const std::string& path, const std::string& size) : path_(path) {
    REQUIRE(posix_file_system()->make_directories(path).ok());
    static const bool alone = have_own_mounts();
    mounted_ = alone && mount("none", path.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }

  // Leaves this much.
  void fill_but(size_t free_bytes) {
    make_room();
    std::ofstream out(ballast(), std::ios::binary);
    const std::string piece(kPiece, 'x');
    while (out.write(piece.data(), kPiece).flush()) {
    }
    out.close();
    const uint64_t full = posix_file_system()->info(ballast()).value().size_bytes;
    REQUIRE(truncate(ballast().c_str(), static_cast<off_t>(full - std::min<uint64_t>(full, free_bytes))) == 0);
  }
  void make_room() { std::remove(ballast().c_str()); }

 private:
  // Others' mounts of litefs are not kept: a node that is killed meanwhile would wait for their files to be closed.
  static bool have_own_mounts() {
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
    std::ifstream mounts("/proc/self/mounts");
    for (std::string source, path, type, rest; mounts >> source >> path >> type && std::getline(mounts, rest);) {
      if (type.rfind("fuse", 0) == 0) umount2(path.c_str(), MNT_DETACH);
    }
    return true;
  }

  static constexpr std::streamsize kPiece = 4096;
  std::string ballast() const { return path_ + "/%00ballast"; }
  const std::string path_;
  bool mounted_ = false;
};

// A primary whose own files, but not the databases, are on a small disk.
struct CrampedPrimary {
  TempDir directory;
  SmallDisk disk{directory.path() + "/meta", "1m"};
  TestNode node{directory.path()};
  std::shared_ptr<Database> database;

  std::unique_ptr<Shell> create() {
    database = node.start_primary("app.db", 1);
    Shell(node.file("app.db")).run("PRAGMA page_size=512; PRAGMA journal_mode=wal;");
    REQUIRE(database->capture_file().ok());
    auto shell = std::make_unique<Shell>(node.file("app.db"));
    shell->run("PRAGMA wal_autocheckpoint=0;");
    CHECK(shell->run("CREATE TABLE t(b);") == "");
    REQUIRE(database->tail_opened(false).ok());
    REQUIRE(database->tail_opened(true).ok());
    REQUIRE(database->drain(true).ok());
    return shell;
  }
  void check_position(Shell& shell) {
    const std::string copy = directory.file("copy.db");
    CHECK(shell.run(".backup " + copy) == "");
    const auto schema_version = static_cast<uint32_t>(std::stoul(shell.run("PRAGMA schema_version;")));
    CHECK(TestNode::content_checksum(copy, schema_version) == database->position().checksum);
    std::remove(copy.c_str());
  }
};

bool can_mount() {
  TempDir directory;
  SmallDisk disk(directory.path() + "/disk", "64k");
  if (!disk.mounted()) MESSAGE("skipped: needs root, to mount a small file system");
  return disk.mounted();
}

}  // namespace

TEST_CASE("a primary whose own files find no room captures the commits when there is some") {
  if (!can_mount()) return;
  // From no room at all up to enough for the record and the page sums: it ends in each of them once.
  bool refused = false, captured = false;
  for (size_t free_bytes = 0; free_bytes <= 400u << 10; free_bytes += 12u << 10) {
    CAPTURE(free_bytes);
    CrampedPrimary primary;
    auto shell = primary.create();
    primary.disk.fill_but(free_bytes);
    const Position before = primary.database->position();
    CHECK(shell->run("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3000) "
                     "INSERT INTO t SELECT zeroblob(400) FROM c;") == "");
    Status drained = primary.database->drain(true);
    (drained.ok() ? captured : refused) = true;
    if (!drained.ok()) {
      CHECK(drained.error().code() == ErrorCode::kNoSpace);
      CHECK(primary.database->position() == before);
    }
    primary.disk.make_room();
    REQUIRE(primary.database->drain(true).ok());
    primary.check_position(*shell);
    shell.reset();
  }
  CHECK(refused);
  CHECK(captured);
}

TEST_CASE("a database that found no room to be made is made when there is some") {
  if (!can_mount()) return;
  bool refused = false, made = false;
  for (size_t free_bytes = 0; free_bytes <= 32u << 10; free_bytes += 4096) {
    CAPTURE(free_bytes);
    CrampedPrimary primary;
    primary.disk.fill_but(free_bytes);
    Result<std::shared_ptr<Database>> first = primary.node.store().find_or_create("new.db");
    (first.ok() ? made : refused) = true;
    if (!first.ok()) {
      CHECK(first.error().code() == ErrorCode::kNoSpace);
      CHECK(primary.node.names().empty());
      CHECK_FALSE(posix_file_system()->exists(primary.directory.file("meta/new.db")).value());
    }
    primary.disk.make_room();
    CHECK(primary.node.start_primary("new.db", 1)->info().state == DatabaseState::kReady);
  }
  CHECK(refused);
  CHECK(made);
}

TEST_CASE("commits that cannot be captured are shown, and not any more when they are") {
  if (!can_mount()) return;
  CrampedPrimary primary;
  auto shell = primary.create();
  primary.disk.fill_but(0);
  shell->run("INSERT INTO t SELECT randomblob(100000);");
  CHECK_FALSE(primary.database->drain(true).ok());
  CHECK(primary.database->info().state == DatabaseState::kReady);
  CHECK(primary.database->info().detail.find("not captured yet") != std::string::npos);
  CHECK(primary.database->info().detail.find("No space left") != std::string::npos);
  primary.disk.make_room();
  REQUIRE(primary.database->drain(true).ok());
  CHECK(primary.database->info().detail.empty());
}

TEST_CASE("the reserve's room lets one write through, and is taken again when there is some") {
  if (!can_mount()) return;
  TempDir directory;
  SmallDisk disk(directory.path() + "/disk", "1m");
  auto files = posix_file_system();
  Reserve reserve(*files, directory.path() + "/disk");
  auto write = [&] { return files->write_atomically(directory.path() + "/disk/node", Bytes(5000)); };
  disk.fill_but(0);
  CHECK(reserve.lend(write).error().code() == ErrorCode::kNoSpace);
  reserve.fill();
  CHECK(reserve.lend(write).error().code() == ErrorCode::kNoSpace);
  disk.make_room();
  reserve.fill();
  disk.fill_but(0);
  CHECK(reserve.lend(write).ok());
  CHECK(files->info(directory.path() + "/disk/node").value().size_bytes == 5000);
}
