#include "fuse/cli.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <thread>

#include "changelog/page_codec.h"
#include "db/lost_state.h"
#include "fuse/cli_config.h"
#include "fuse/cli_log.h"
#include "litefs/litefs.h"
#include "node/status.h"
#include "sqlite/header.h"
#include "unix_server.h"

namespace litefs {
namespace {

constexpr const char* kConfig = "fuse: {dir: /litefs}\ndata: {dir: /var/lib/litefs}\nlog: {level: error}\n";

// A user's shell: a working directory, a home directory, and what the last command printed.
class Shell {
 public:
  Shell() {
    std::filesystem::create_directory(home());
    setenv("HOME", home().c_str(), 1);
    REQUIRE(chdir(dir_.path().c_str()) == 0);
  }
  ~Shell() { static_cast<void>(chdir("/") == 0); }

  std::string path(const std::string& name) const { return dir_.file(name); }
  std::string home() const { return dir_.file("home"); }
  void write(const std::string& name, const std::string& text) { std::ofstream(dir_.file(name)) << text; }

  // Runs litefs with these words; the exit code.
  int litefs(std::vector<std::string> words) {
    std::vector<const char*> argv = {"litefs"};
    for (const std::string& word : words) argv.push_back(word.c_str());
    std::ostringstream out_stream, err_stream;
    options.reset();
    int code = run_cli(static_cast<int>(argv.size()), argv.data(), {out_stream, err_stream},
                       [&](const Options& given, const Log&, Signals& signals) -> Result<int> {
                         options = given;
                         signals.release();
                         if (mount_error) return *mount_error;
                         return 42;
                       });
    out = out_stream.str();
    err = err_stream.str();
    return code;
  }

  std::optional<Options> options;    // what mount was called with
  std::optional<Error> mount_error;  // what it answers
  std::string out, err;

 private:
  test::TempDir dir_;
};

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_CASE("help goes to the output, a wrong command line to the errors with exit code 2") {
  Shell shell;
  for (std::vector<std::string> words : {std::vector<std::string>{"help"}, {"-h"}, {"--help"}}) {
    CHECK(shell.litefs(words) == 0);
    CHECK(contains(shell.out, "litefs status"));
    CHECK(shell.err.empty());
  }
  CHECK(shell.litefs({"help", "mount"}) == 0);
  CHECK(contains(shell.out, "-config FILE"));
  CHECK(shell.litefs({"status", "-help"}) == 0);
  CHECK(contains(shell.out, "--json"));

  struct Wrong {
    std::vector<std::string> words;
    const char* first_line;
  };
  const Wrong wrongs[] = {
      {{"mnt"}, "litefs: unknown command 'mnt'\n"},
      {{"help", "mnt"}, "litefs: unknown command 'mnt'\n"},
      {{"mount", "-confg", "x"}, "litefs: unknown flag '-confg'\n"},
      {{"mount", "x"}, "litefs: unexpected 'x'\n"},
      {{"mount", "-config"}, "litefs: -config needs a value\n"},
      {{"mount", "-config="}, "litefs: -config needs a value\n"},
      {{"mount", "--"}, "litefs: no command after '--'\n"},
      {{"status", "--json=yes"}, "litefs: -json takes no value\n"},
      {{"status", "-config", "a", "-data", "b"}, "litefs: -config and -data exclude each other\n"},
      {{"version", "-x"}, "litefs: unknown flag '-x'\n"},
      {{"import", "file"}, "litefs: import takes a file and a database's name\n"},
      {{"import", "a", "b", "c"}, "litefs: import takes a file and a database's name\n"},
      {{"import", "-wait", "soon", "a", "b"}, "litefs: -wait: "},
      {{"export", "db"}, "litefs: export takes a database's name and a file\n"},
      {{"export", "--force=1", "db", "x"}, "litefs: -force takes no value\n"},
      {{"export", "-config", "a", "-data", "b", "db", "x"}, "litefs: -config and -data exclude each other\n"},
  };
  for (const Wrong& wrong : wrongs) {
    CHECK(shell.litefs(wrong.words) == 2);
    CHECK_MESSAGE(shell.err.rfind(wrong.first_line, 0) == 0, shell.err);
    CHECK(contains(shell.err, "Usage:"));
    CHECK(shell.out.empty());
  }
  CHECK(shell.litefs({}) == 2);
  CHECK(shell.err.rfind("litefs replicates", 0) == 0);
}

TEST_CASE("the version is the library's") {
  Shell shell;
  CHECK(shell.litefs({"version"}) == 0);
  CHECK(shell.out == std::string("litefs ") + litefs_version() + "\n");
  CHECK(shell.litefs({"--version"}) == 0);
}

TEST_CASE("mount takes its configuration in every spelling and ends with the node's exit code") {
  Shell shell;
  shell.write("a.yml", kConfig);
  for (std::vector<std::string> words : {std::vector<std::string>{"mount", "-config", "a.yml"},
                                         {"mount", "--config", "a.yml"},
                                         {"mount", "-config=a.yml"},
                                         {"mount", "--config=" + shell.path("a.yml")}}) {
    CHECK(shell.litefs(words) == 42);
    REQUIRE(shell.options);
    CHECK(shell.options->fuse_dir == "/litefs");
  }
}

TEST_CASE("the configuration is searched for where LiteFS does, the nearest first") {
  Shell shell;
  CHECK(shell.litefs({"mount"}) == 1);
  CHECK_MESSAGE(shell.err.rfind("litefs: cannot start: no configuration file; looked for litefs.yml, ", 0) == 0,
                shell.err);
  shell.write("home/litefs.yml", std::string(kConfig) + "http: {addr: ':1'}\n");
  CHECK(shell.litefs({"mount"}) == 42);
  CHECK(shell.options->listen.port == 1);
  shell.write("litefs.yml", std::string(kConfig) + "http: {addr: ':2'}\n");
  CHECK(shell.litefs({"mount"}) == 42);
  CHECK(shell.options->listen.port == 2);
}

TEST_CASE("what stands after -- replaces exec, word by word") {
  Shell shell;
  shell.write("litefs.yml", std::string(kConfig) + "exec: other\n");
  CHECK(shell.litefs({"mount", "--", "sh", "-c", "exit 3", "--", "-config"}) == 42);
  REQUIRE(shell.options->exec.size() == 1);
  CHECK(shell.options->exec[0].argv == std::vector<std::string>{"sh", "-c", "exit 3", "--", "-config"});
}

TEST_CASE("variables come from the environment, unless told not to") {
  Shell shell;
  shell.write("litefs.yml", std::string(kConfig) + "lease: {hostname: $LITEFS_TEST_NAME}\n");
  unsetenv("LITEFS_TEST_NAME");
  CHECK(shell.litefs({"mount"}) == 1);
  CHECK(contains(shell.err, "litefs.yml:4: lease.hostname: the environment variable LITEFS_TEST_NAME is not set"));
  setenv("LITEFS_TEST_NAME", "n1", 1);
  CHECK(shell.litefs({"mount"}) == 42);
  CHECK(shell.options->hostname == "n1");
  CHECK(shell.litefs({"mount", "-no-expand-env"}) == 42);
  CHECK(shell.options->hostname == "$LITEFS_TEST_NAME");
}

TEST_CASE("why it cannot start is one line") {
  Shell shell;
  CHECK(shell.litefs({"mount", "-config", "none.yml"}) == 1);
  CHECK_MESSAGE(shell.err.rfind("litefs: cannot start: ", 0) == 0, shell.err);
  CHECK(contains(shell.err, "none.yml"));
  shell.write("litefs.yml", kConfig);
  shell.mount_error = Error(ErrorCode::kBusy, "port 20202 is taken");
  CHECK(shell.litefs({"mount"}) == 1);
  CHECK(shell.err == "litefs: cannot start: port 20202 is taken\n");
}

TEST_CASE("a mount point inside the data directory is seen through symbolic links") {
  Shell shell;
  std::filesystem::create_directories(shell.path("data/sub"));
  std::filesystem::create_directory_symlink(shell.path("data/sub"), shell.path("link"));
  shell.write("litefs.yml", "fuse: {dir: link/mnt}\ndata: {dir: data}\n");
  CHECK(shell.litefs({"mount"}) == 1);
  CHECK_MESSAGE(contains(shell.err, "must be directories apart"), shell.err);
}

TEST_CASE("status asks the node for the form that is wanted") {
  Shell shell;
  std::filesystem::create_directory(shell.path("data"));
  shell.write("litefs.yml", "fuse: {dir: mnt}\ndata: {dir: data}\n");
  NodeStatus status;
  status.hostname = "n1";
  int code = 0;
  SUBCASE("that serves") { status.role = NodeRole::kReplica; }
  SUBCASE("that is still starting") { code = 3; }
  auto serve = [&status](int fd) {
    test::UnixServer::write_all(fd, status_reply(status, test::UnixServer::read_request(fd), 0));
  };
  for (std::vector<std::string> words : {std::vector<std::string>{"status"},
                                         {"status", "--json"},
                                         {"status", "-data", "data"},
                                         {"status", "-config", "litefs.yml", "-json"}}) {
    bool json = words.back().find("json") != std::string::npos;
    std::filesystem::remove(shell.path("data/status.sock"));
    test::UnixServer node(shell.path("data"), kStatusSocketName, serve);
    REQUIRE(chdir(shell.path("").c_str()) == 0);
    CHECK(shell.litefs(words) == code);
    CHECK(shell.out == (json ? status_json(status) : status_text(status, 0)));
    CHECK(shell.err.empty());
  }
}

TEST_CASE("status without a node says so and names the data directory") {
  Shell shell;
  CHECK(shell.litefs({"status", "-data", "data/"}) == 1);
  CHECK(shell.err == "litefs: no node runs with the data directory " + shell.path("data") + "\n");
  CHECK(shell.litefs({"status"}) == 1);
  CHECK(contains(shell.err, "litefs: no configuration file"));
}

TEST_CASE("an answer of nothing, and one that is an error, are failures") {
  Shell shell;
  {
    test::UnixServer node(shell.path(""), kStatusSocketName, [](int) {});
    CHECK(shell.litefs({"status", "-data", shell.path("")}) == 1);
    CHECK(contains(shell.err, "is stopping"));
  }
  std::filesystem::remove(shell.path(kStatusSocketName));
  test::UnixServer node(shell.path(""), kStatusSocketName, [](int fd) {
    test::UnixServer::read_request(fd);
    test::UnixServer::write_all(fd, "error: no\n");
  });
  CHECK(shell.litefs({"status", "-data", shell.path("")}) == 1);
  CHECK(shell.err == "litefs: the node answers: no\n");
}

TEST_CASE("import and export find the node as status does, and say what it answers") {
  Shell shell;
  CHECK(shell.litefs({"import", "-data", shell.path("x"), "file", "db"}) == 1);
  CHECK(shell.err == "litefs: no node runs with the data directory " + shell.path("x") + "\n");
  CHECK(shell.litefs({"export", "-data", shell.path("x"), "db", shell.path("file")}) == 1);
  CHECK(shell.err == "litefs: no node runs with the data directory " + shell.path("x") + "\n");
  shell.write("litefs.yml", "fuse: {dir: mnt}\ndata: {dir: data}\n");
  std::filesystem::create_directory(shell.path("data"));
  std::string request;
  auto refuse = [&](int fd) {
    request = test::UnixServer::read_request(fd);
    test::UnixServer::write_all(fd, "error: this node is a replica\n");
  };
  {
    test::UnixServer node(shell.path("data"), kStatusSocketName, refuse);
    REQUIRE(chdir(shell.path("").c_str()) == 0);
    CHECK(shell.litefs({"import", "--", "-file", "my db"}) == 1);
  }
  CHECK(request == "import 1 my db\n");
  CHECK(shell.err == "litefs: this node is a replica\n");
  std::filesystem::remove(shell.path("data/status.sock"));
  {
    test::UnixServer node(shell.path("data"), kStatusSocketName, refuse);
    REQUIRE(chdir(shell.path("").c_str()) == 0);
    CHECK(shell.litefs({"export", "my db", "--force", "copy"}) == 1);
  }
  CHECK(request == "export 1 my db\n");
  CHECK(shell.err == "litefs: this node is a replica\n");
  CHECK_FALSE(std::filesystem::exists(shell.path("copy")));
}

TEST_CASE("a name that would not stay in its line is refused before anything is sent") {
  Shell shell;
  int asked = 0;
  {
    test::UnixServer node(shell.path(""), kStatusSocketName, [&](int) { ++asked; });
    for (std::vector<std::string> words :
         {std::vector<std::string>{"import", "-data", shell.path(""), "x", "two\nlines.db"},
          {"export", "-data", shell.path(""), "two\nlines.db", shell.path("copy")}}) {
      CHECK(shell.litefs(words) == 1);
      CHECK(shell.err ==
            "litefs: 'two?lines.db' cannot be a database's name: it has a control character, as a line end or a tab\n");
    }
    CHECK(asked == 0);
    CHECK(shell.litefs({"import", "-data", shell.path(""), "x", "one.db"}) == 1);
  }
  CHECK(asked == 1);
  CHECK(shell.litefs({"lost", "export", "two\nlines.db", "1", shell.path("copy"), "-data", shell.path("")}) == 1);
  CHECK_FALSE(std::filesystem::exists(shell.path("copy")));
}

TEST_CASE("an export replaces nothing but a regular file, and says what is in the way") {
  Shell shell;
  namespace fs = std::filesystem;
  fs::create_directory(shell.path("directory"));
  REQUIRE(mkfifo(shell.path("fifo").c_str(), 0600) == 0);
  shell.write("file", "mine");
  fs::create_symlink(shell.path("file"), shell.path("link"));
  auto refused = [&](const std::string& file, const std::string& why) {
    for (bool force : {false, true}) {
      std::vector<std::string> words = {"export", "-data", shell.path(""), "db", shell.path(file)};
      if (force) words.push_back("--force");
      CHECK(shell.litefs(words) == 1);
      CHECK_MESSAGE(contains(shell.err, why), shell.err);
      CHECK_FALSE(contains(shell.err, "no node runs"));
    }
  };
  refused("none/copy", "there is no directory " + shell.path("none"));
  refused("file/copy", "there is no directory " + shell.path("file"));
  refused("directory", "is no regular file, and is not replaced; '-' writes to standard output");
  refused("fifo", "is no regular file");
  refused("link", "is a symbolic link");
  CHECK(fs::is_fifo(shell.path("fifo")));
  CHECK(fs::is_symlink(shell.path("link")));
  CHECK(fs::is_directory(shell.path("directory")));
}

TEST_CASE("an export that the node breaks off leaves no file") {
  Shell shell;
  for (const std::string& answer : {std::string("ok\n"), std::string("ok\nX\4\0\0\0gone", 12), std::string("what")}) {
    std::filesystem::remove(shell.path(kStatusSocketName));
    test::UnixServer node(shell.path(""), kStatusSocketName, [&](int fd) {
      test::UnixServer::read_request(fd);
      test::UnixServer::write_all(fd, answer);
    });
    CHECK(shell.litefs({"export", "-data", shell.path(""), "db", shell.path("copy")}) == 1);
    CHECK(shell.out.empty());
    for (const auto& entry : std::filesystem::directory_iterator(shell.path(""))) {
      CHECK(entry.path().filename().string().find("copy") == std::string::npos);
    }
  }
}

class FixedClock final : public Clock {
 public:
  int64_t monotonic_ns() override { return 0; }
  int64_t wall_ms() override { return 1767323045678; }
  int64_t boottime_ms() override { return 0; }
  std::string boot_id() override { return ""; }
};

TEST_CASE("log lines have a time, a level, and nothing that steers a terminal") {
  test::TempDir dir;
  FixedClock clock;
  auto lines = [&](bool timestamps) {
    int fd = open(dir.file("log").c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    {
      Log log(terminal_log_sink(clock, {.fd = fd, .timestamps = timestamps}));
      log.debug("not shown");
      log.info("replica connected").kv("node", "b");
      log.warning("odd").kv("name", "\x1b[2J\n");
      log.error("x");
    }
    close(fd);
    std::ifstream in(dir.file("log"));
    return std::string((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  };
  CHECK(lines(true) ==
        "2026-01-02T03:04:05.678Z INFO replica connected node=b\n"
        "2026-01-02T03:04:05.678Z WARN odd name=\"?[2J \"\n"
        "2026-01-02T03:04:05.678Z ERROR x\n");
  CHECK(lines(false).rfind("INFO replica connected node=b\n", 0) == 0);
}

TEST_CASE("lines of many threads do not mix") {
  test::TempDir dir;
  FixedClock clock;
  int fd = open(dir.file("log").c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  Log log(terminal_log_sink(clock, {.fd = fd, .timestamps = false}));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&log] {
      for (int i = 0; i < 500; ++i) log.info("line").kv("text", std::string(200, 'x'));
    });
  }
  for (std::thread& thread : threads) thread.join();
  close(fd);
  std::ifstream in(dir.file("log"));
  std::string line;
  int count = 0;
  for (; std::getline(in, line); ++count) REQUIRE(line == "INFO line text=" + std::string(200, 'x'));
  CHECK(count == 2000);
}

TEST_CASE("lost lists what a node kept, and exports it") {
  Shell shell;
  const std::string lost = shell.path("data/meta/app.db/lost");
  std::filesystem::create_directories(lost);
  CHECK(shell.litefs({"lost", "-data", "data"}) == 0);
  CHECK(contains(shell.out, "nothing is lost"));
  CHECK(shell.litefs({"lost", "-data", "nowhere"}) == 1);

  Bytes page(512, 0x22);
  Bytes masked = page;
  mask_local_bytes(masked);
  LostState state{.database = "app.db",
                  .database_id = DatabaseId{1},
                  .kept_wall_ms = 1700000000000,
                  .why = "it diverged",
                  .position = {Epoch{2}, TxId{7}, page_hash(1, masked)},
                  .diverged_at = Position{Epoch{1}, TxId{5}, Checksum{9}},
                  .transactions = 2,
                  .page_size = 512,
                  .size_pages = 1};
  Bytes manifest = state.encode();
  shell.write("data/meta/app.db/lost/" + state.id() + ".manifest", std::string(manifest.begin(), manifest.end()));
  shell.write("data/meta/app.db/lost/" + state.id() + ".db", std::string(page.begin(), page.end()));
  CHECK(shell.litefs({"lost", "-data", "data"}) == 0);
  CHECK(contains(shell.out, "app.db  " + state.id() + "\n  kept          2023-11-14T22:13:20Z, because it diverged\n"));
  CHECK(contains(shell.out, "2 transactions"));
  CHECK(shell.litefs({"lost", "-data", "data", "--json"}) == 0);
  CHECK(contains(shell.out, "\"id\": \"" + state.id() + "\""));
  CHECK(contains(shell.out, "\"transactions\": 2"));

  CHECK(shell.litefs({"lost", "export", "app.db", state.id(), "out.db", "-data", "data"}) == 0);
  CHECK(std::filesystem::file_size(shell.path("out.db")) == 512);
  CHECK(shell.litefs({"lost", "export", "app.db", state.id(), "out.db", "-data", "data"}) == 1);
  CHECK(contains(shell.err, "out.db"));
  CHECK(shell.litefs({"lost", "export", "app.db", "1-2", "x.db", "-data", "data"}) == 1);
  CHECK(shell.litefs({"lost", "export", "app.db", "-data", "data"}) == 2);
  CHECK(shell.litefs({"lost", "export", "a", "b", "c", "--json"}) == 2);
  CHECK(shell.litefs({"lost", "other"}) == 2);

  shell.write("data/meta/app.db/lost/bad.manifest", "nonsense");
  CHECK(shell.litefs({"lost", "-data", "data"}) == 1);
  CHECK(contains(shell.out, state.id()));
  CHECK(contains(shell.err, "bad.manifest"));
}

}  // namespace
}  // namespace litefs
