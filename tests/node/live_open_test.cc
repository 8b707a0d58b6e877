// A node that takes over databases which another process goes on using.
#include "db/shell.h"
#include "node/node.h"

using namespace litefs;
using namespace litefs::test;

namespace {

class Sink final : public LogSink {
 public:
  void write(LogLevel, std::string_view) override {}
};

class PlainFrontEnd final : public FrontEnd {
 public:
  PlainFrontEnd(FileSystem& files, std::string root) : files_(files), root_(std::move(root)) {}
  Result<std::unique_ptr<LockDoor>> lock_door(const std::string& name) override {
    return direct_lock_door(files_, root_ + "/db/" + name);
  }
  Status file_resized(const std::string&) override { return {}; }
  void file_created(const std::string&) override {}
  void file_removed(const std::string&) override {}
  void database_changed(const std::string&) override {}

 private:
  FileSystem& files_;
  std::string root_;
};

struct Host {
  explicit Host(const std::string& data_dir) : front_end(*files, data_dir) {
    Options options;
    options.data_dir = data_dir;
    options.candidate = true;
    options.hostname = "here";
    options.listen = HostPort{"127.0.0.1", 0};
    node = Node::create({*files, *clock, *random, Log(std::make_shared<Sink>(), LogLevel::kError)}, options).value();
    node->set_front_end(&front_end);
  }
  std::unique_ptr<FileSystem> files = posix_file_system();
  std::unique_ptr<Clock> clock = system_clock();
  std::unique_ptr<Random> random = system_random();
  PlainFrontEnd front_end;
  std::unique_ptr<Node> node;
};

}  // namespace

TEST_CASE("a node takes over what another process uses, and fences nothing that it cannot take over") {
  TempDir dir;
  const std::string path = dir.path() + "/db/app.db";
  {
    Host host(dir.path());
    REQUIRE(host.node->open_databases().ok());
    REQUIRE(host.node->create_database("app.db").ok());
    Shell shell(path);
    CHECK(shell.run("PRAGMA journal_mode=WAL; CREATE TABLE t(x);") == "wal");
  }
  Shell shell(path);
  CHECK(shell.run("INSERT INTO t VALUES(1); BEGIN; SELECT count(*) FROM t;") == "1");
  {
    Host host(dir.path());
    REQUIRE(host.node->open_databases(true).ok());
    std::shared_ptr<Database> database = host.node->store().find("app.db");
    REQUIRE(database);
    INFO(database->info().detail);
    CHECK(database->state() == DatabaseState::kReady);
    const TxId before = database->position().txid;
    CHECK(shell.run("COMMIT; INSERT INTO t VALUES(2); SELECT count(*) FROM t;") == "2");
    CHECK(database->drain(true).ok());
    CHECK(database->position().txid.value == before.value + 1);
    // One that appears later is taken over likewise.
    Shell other(dir.path() + "/db/other.db");
    CHECK(other.run("SELECT count(*) FROM sqlite_schema;") == "0");
    REQUIRE(host.node->create_database("other.db").ok());
    CHECK(other.run("SELECT count(*) FROM sqlite_schema;") == "0");
  }
  for (const auto& meta : std::filesystem::recursive_directory_iterator(dir.path() + "/meta")) {
    if (meta.path().filename() == "control") std::filesystem::resize_file(meta.path(), 0);
  }
  Host host(dir.path());
  REQUIRE(host.node->open_databases(true).ok());
  std::shared_ptr<Database> database = host.node->store().find("app.db");
  CHECK(database->state() == DatabaseState::kFenced);
  CHECK(database->info().detail.find("Close it in all processes") != std::string::npos);
  CHECK_FALSE(host.node->create_database("app.db").ok());
  CHECK(shell.run("INSERT INTO t VALUES(3); SELECT count(*) FROM t;") == "3");
}
