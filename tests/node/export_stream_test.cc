#include "node/export_stream.h"

#include "db/node_fixture.h"
#include "node/local_requests.h"

namespace litefs {
namespace {

using test::Shell;
using test::TempDir;
using test::TestNode;

// A primary with an application that writes app.db.
struct Node {
  TempDir dir;
  TestNode node{dir.path()};
  std::shared_ptr<Database> database = node.start_primary("app.db", 1);
  std::unique_ptr<Shell> shell;

  explicit Node(const std::string& page_size) {
    {
      Shell maker(node.file("app.db"));
      maker.run("PRAGMA page_size=" + page_size + ";");
      CHECK(maker.run("PRAGMA journal_mode=wal;") == "wal");
    }
    REQUIRE(database->capture_file().ok());
    shell = std::make_unique<Shell>(node.file("app.db"));
    CHECK(shell->run("CREATE TABLE t(id INTEGER PRIMARY KEY, v);") == "");
    REQUIRE(database->tail_opened(false).ok());
    REQUIRE(database->tail_opened(true).ok());
  }
  void insert(int rows) {
    CHECK(shell->run("WITH c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < " + std::to_string(rows) +
                     ") INSERT INTO t(v) SELECT randomblob(1000) FROM c;") == "");
    REQUIRE(database->drain(false).ok());
  }
};

// The frames of an export, in which `meanwhile` happens behind the first page.
std::vector<Bytes> export_frames(const std::shared_ptr<Database>& database, const std::function<void()>& meanwhile) {
  auto source = ExportSource::open(database, 1).value();
  std::vector<Bytes> frames;
  for (;;) {
    Result<Bytes> next = source->next();
    INFO((next.ok() ? "" : next.error().message()));
    REQUIRE(next.ok());
    if (next.value().empty()) return frames;
    frames.push_back(next.value());
    if (frames.size() == 2) meanwhile();
  }
}

Bytes joined(const std::vector<Bytes>& frames) {
  Bytes all;
  for (const Bytes& frame : frames) all.insert(all.end(), frame.begin(), frame.end());
  return all;
}

Status receive(ExportReceiver& receiver, ByteView stream, size_t piece) {
  for (size_t at = 0; at < stream.size(); at += piece) {
    TRY(receiver.take(stream.subspan(at, std::min(piece, stream.size() - at))));
  }
  return receiver.finish();
}

TEST_CASE("an export is the state at its end, whatever was committed meanwhile, however it is cut") {
  for (const std::string page_size : {"512", "4096", "65536"}) {
    Node primary(page_size);
    primary.insert(600);
    std::vector<Bytes> frames = export_frames(primary.database, [&] {
      primary.shell->run("UPDATE t SET v = 'changed' WHERE id % 7 = 0;");
      primary.insert(50);
      primary.shell->run("DELETE FROM t WHERE id > 400;");
      primary.shell->run("VACUUM;");
      REQUIRE(primary.database->drain(false).ok());
    });
    const std::string content = primary.shell->run(".sha3sum");
    const Bytes stream = joined(frames);
    for (size_t piece : {size_t{7}, size_t{4099}, stream.size()}) {
      TempDir dir;
      const std::string copy = dir.file("copy.db");
      auto files = posix_file_system();
      {
        ExportReceiver receiver(*files, copy);
        Status received = receive(receiver, stream, piece);
        INFO((received.ok() ? "" : received.error().message()));
        REQUIRE(received.ok());
        CHECK(receiver.position() == primary.database->position());
      }
      CHECK(files->list(dir.path()).value() == std::vector<std::string>{"copy.db"});
      Shell reader(copy);
      CHECK(reader.run("PRAGMA integrity_check;") == "ok");
      CHECK(reader.run("PRAGMA journal_mode;") == "delete");
      CHECK(reader.run(".sha3sum") == content);
      uint32_t version = static_cast<uint32_t>(std::stoul(reader.run("PRAGMA schema_version;")));
      CHECK(TestNode::content_checksum(copy, version) == primary.database->position().checksum);
    }
  }
}

TEST_CASE("a stream that is cut or changed anywhere is no database") {
  Node primary("512");
  Bytes stream = joined(export_frames(primary.database, [] {}));
  TempDir dir;
  auto files = posix_file_system();
  for (size_t end = 0; end < stream.size(); ++end) {
    ExportReceiver receiver(*files, dir.file("copy"));
    REQUIRE_FALSE(receive(receiver, ByteView(stream).first(end), stream.size()).ok());
  }
  for (size_t bit = 0; bit < stream.size() * 8; ++bit) {
    stream[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    {
      ExportReceiver receiver(*files, dir.file("copy"));
      // What nothing depends on: the database's id where no records follow, and the estimate.
      const bool passes = receive(receiver, stream, stream.size()).ok();
      if (passes) REQUIRE(receiver.position() == primary.database->position());
    }
    stream[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
  }
}

TEST_CASE("a node's reason for not going on arrives") {
  TempDir dir;
  auto files = posix_file_system();
  ExportReceiver receiver(*files, dir.file("copy"));
  Status taken = receiver.take(ExportSource::failure(Error(ErrorCode::kIo, "the disk is gone")));
  REQUIRE_FALSE(taken.ok());
  CHECK(taken.error().code() == ErrorCode::kUnavailable);
  CHECK(taken.error().message() == "the disk is gone");
}

TEST_CASE("a database without content is not exported") {
  TempDir dir;
  TestNode node(dir.path());
  auto source = ExportSource::open(node.start_primary("app.db", 1), 1);
  REQUIRE_FALSE(source.ok());
  CHECK(source.error().code() == ErrorCode::kNotFound);
}

TEST_CASE("requests to the local socket") {
  auto kind = [](const std::string& line) { return parse_local_request(line).value().kind; };
  CHECK(kind("json\n") == LocalRequest::Kind::kStatus);
  CHECK(kind("importx") == LocalRequest::Kind::kStatus);
  CHECK(kind("") == LocalRequest::Kind::kStatus);
  CHECK(kind(import_request("a b.db")) == LocalRequest::Kind::kImport);
  CHECK(kind(export_request("x")) == LocalRequest::Kind::kExport);
  CHECK(parse_local_request(import_request("a b.db")).value().argument == "a b.db");
  for (const char* other : {"import 2 db\n", "export ", "export db"}) {
    Result<LocalRequest> request = parse_local_request(other);
    REQUIRE_FALSE(request.ok());
    CHECK(request.error().code() == ErrorCode::kUnsupported);
  }
  CHECK(local_error(Error(ErrorCode::kIo, "two\nlines")) == "error: two lines\n");
}

}  // namespace
}  // namespace litefs
