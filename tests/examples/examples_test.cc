// The examples, each as two nodes in two processes over real sockets. The programs are those that LITEFS_GUESTBOOK and
// LITEFS_KV name, so that the test of the installation runs the ones it has built by itself.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <stdexcept>

#include "system/process.h"
#include "test.h"

namespace litefs::test {
namespace {

constexpr Millis kAnswer{20000};

std::unique_ptr<Process> spawn(std::vector<std::string> argv, const std::string& log) {
  SpawnOptions options;
  options.argv = std::move(argv);
  options.error_path = log;
  return Process::spawn(options);
}

std::string program(const char* variable) {
  const char* path = getenv(variable);
  if (!path) throw std::runtime_error(std::string(variable) + " names no program");
  return path;
}

std::string after(const std::string& text, const std::string& word) {
  const size_t at = text.find(word);
  if (at == std::string::npos) throw std::runtime_error("no '" + word + "' in: " + text);
  return text.substr(at + word.size());
}

// What a node is called that is not told.
std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

class Guestbook {
 public:
  Guestbook(std::vector<std::string> arguments, const std::string& log) {
    arguments.insert(arguments.begin(), program("LITEFS_GUESTBOOK"));
    process_ = spawn(std::move(arguments), log);
  }

  // Reads until a line that begins so; all lines since the last one that was read so.
  std::vector<std::string> until(const std::string& beginning) {
    std::vector<std::string> lines;
    while (std::optional<std::string> line = process_->read_line(kAnswer)) {
      lines.push_back(*line);
      if (line->rfind(beginning, 0) == 0) return lines;
    }
    throw std::runtime_error("the guest book ended before it said: " + beginning);
  }
  std::string line(const std::string& beginning) { return until(beginning).back(); }
  void command(const std::string& text) { process_->write_line(text); }
  void stop() {
    process_->close_input();
    CHECK(process_->join(kAnswer).ok());
  }

 private:
  std::unique_ptr<Process> process_;
};

// What a guest book says on its own comes in between.
std::vector<std::string> entries(const std::vector<std::string>& lines) {
  std::vector<std::string> entries;
  for (const std::string& line : lines) {
    if (line.find(". ") != std::string::npos) entries.push_back(line);
  }
  return entries;
}

void write_config(const std::string& directory, const std::string& name, const std::string& listen,
                  const std::string& primary) {
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/litefs.yml")
      << "data:\n  dir: \"" << directory << "/data\"\nhttp:\n  addr: \"" << listen << "\"\n"
      << "lease:\n  type: \"static\"\n  hostname: \"" << name << "\"\n"
      << "  advertise-url: \"http://" << primary << "\"\n"
      << "  candidate: " << (name == "primary" ? "true" : "false") << "\n";
}

TEST_CASE("the guest book that is signed on the primary is read on the replica, which refuses to be signed") {
  TempDir dir;
  Guestbook primary({dir.file("primary"), "127.0.0.1:0"}, dir.file("primary.log"));
  const std::string address = after(primary.line("open at "), "open at ");
  CHECK(primary.line("role: ") == "role: primary");
  write_config(dir.file("replica"), "replica", "127.0.0.1:0", address);
  Guestbook replica({dir.file("replica/litefs.yml")}, dir.file("replica.log"));
  replica.line("role: replica of ");

  replica.command("read");
  CHECK(replica.line("cannot ") == "cannot read: unable to open database file");
  primary.command("sign Ada was here");
  CHECK(entries(primary.until("signed at ")).empty());
  primary.command("sign Charles, too");
  const std::string position = after(primary.line("signed at "), "signed at ");
  replica.command("read " + position);
  CHECK(entries(replica.until("that is the book")) == std::vector<std::string>{"1. Ada was here", "2. Charles, too"});
  replica.command("sign me");
  CHECK(replica.line("cannot sign") == "cannot sign: this node is a replica of " + host_name());
  replica.command("read 1/2");
  CHECK(replica.line("'1/2'") == "'1/2' is no position, which is EPOCH/TXID/CHECKSUM");

  primary.command("sign and again");
  CHECK(replica.line("book.db is at transaction 5").size() > 0);
  replica.command("read");
  CHECK(entries(replica.until("that is the book")).size() == 3);
  // The primary's end is a change for the replica's lag, not for its role.
  primary.stop();
  replica.command("read");
  CHECK(entries(replica.until("that is the book")).size() == 3);
  replica.stop();
}

class KeyValueNode {
 public:
  explicit KeyValueNode(const std::string& directory)
      : process_(spawn({program("LITEFS_KV"), directory + "/litefs.yml", "0"}, directory + "/log")) {
    const std::optional<std::string> line = process_->read_line(kAnswer);
    if (!line) throw std::runtime_error("kv does not come up: " + read_text_file(directory + "/log"));
    port_ = static_cast<uint16_t>(std::stoi(after(*line, "127.0.0.1:")));
    address_ = after(*line, "node at ");
  }

  uint16_t port() const { return port_; }
  const std::string& address() const { return address_; }
  void stop() {
    process_->signal(SIGTERM);
    CHECK(process_->join(kAnswer).ok());
  }
  void kill() {
    process_->signal(SIGKILL);
    process_->join(kAnswer);
  }

 private:
  std::unique_ptr<Process> process_;
  uint16_t port_ = 0;
  std::string address_;
};

class Client {
 public:
  explicit Client(const KeyValueNode& node) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval timeout{20, 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(node.port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      ::close(socket_);
      throw std::runtime_error("cannot connect to kv");
    }
  }
  ~Client() { ::close(socket_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  std::string ask(const std::string& line) {
    send_text(line + "\n");
    return answer();
  }
  void send_text(const std::string& text) {
    if (::send(socket_, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) {
      throw std::runtime_error("cannot send to kv");
    }
  }
  std::string answer() {
    std::string line;
    for (char c;;) {
      if (recv(socket_, &c, 1, 0) != 1) throw std::runtime_error("kv does not answer; so far: " + line);
      if (c == '\n') return line;
      line += c;
    }
  }

 private:
  int socket_;
};

TEST_CASE("what is set on one node of the key-value service is got on the other, by the position of the set") {
  TempDir dir;
  write_config(dir.file("primary"), "primary", "127.0.0.1:0", "127.0.0.1:1");
  KeyValueNode primary(dir.file("primary"));
  write_config(dir.file("replica"), "replica", "127.0.0.1:0", primary.address());
  auto replica = std::make_unique<KeyValueNode>(dir.file("replica"));
  {
    Client writer(primary), other_writer(primary), reader(*replica);
    CHECK(reader.ask("INFO").rfind("ERROR ", 0) == 0);
    std::string position = after(writer.ask("SET colour dark blue"), "OK ");
    CHECK(reader.ask("GET colour " + position) == "VALUE dark blue");
    CHECK(reader.ask("SET colour red") == "MOVED primary");
    CHECK(reader.ask("GET colour") == "VALUE dark blue");
    position = after(other_writer.ask("SET colour red"), "OK ");
    CHECK(reader.ask("GET colour " + position) == "VALUE red");
    for (int i = 0; i < 50; ++i) {
      position = after((i % 2 ? writer : other_writer).ask("SET key" + std::to_string(i) + " v"), "OK ");
      REQUIRE(reader.ask("GET key" + std::to_string(i) + " " + position) == "VALUE v");
    }
    position = after(writer.ask("DEL colour"), "OK ");
    CHECK(reader.ask("GET colour " + position) == "NONE");
    CHECK(reader.ask("DEL key1") == "MOVED primary");
    const std::string info = reader.ask("INFO");
    CHECK(info.rfind("role=replica primary=primary position=" + position + " lag_ms=", 0) == 0);
    CHECK(after(info, " keys=") == "50");
    CHECK(writer.ask("INFO") == "role=primary primary=- position=" + position + " lag_ms=0 keys=50");

    for (const std::string wrong : {"", "GET", "SET", "DEL a b", "INFO x", "get key1", "GET key1 1/2/x"}) {
      CAPTURE(wrong);
      CHECK(reader.ask(wrong).rfind("ERROR ", 0) == 0);
    }
  }
  // A replica that is killed catches up.
  replica->kill();
  std::string position;
  {
    Client writer(primary);
    for (int i = 0; i < 50; ++i) position = after(writer.ask("SET key" + std::to_string(i) + " later"), "OK ");
  }
  replica = std::make_unique<KeyValueNode>(dir.file("replica"));
  {
    Client reader(*replica);
    CHECK(reader.ask("GET key49 " + position) == "VALUE later");
    // Many lines at once, and one in two parts.
    reader.send_text("GET key1\r\nGET key2\nGET k");
    CHECK(reader.answer() == "VALUE later");
    CHECK(reader.answer() == "VALUE later");
    CHECK(reader.ask("ey3") == "VALUE later");
    // It ends in order with a client still there.
    replica->stop();
  }
  primary.stop();
}

TEST_CASE("examples say what is wrong with their command line or configuration") {
  TempDir dir;
  const std::string data = dir.file("data");
  struct Wrong {
    const char* variable;
    std::vector<std::string> arguments;
    int code;
    std::string says;
  };
  for (const Wrong& wrong : std::vector<Wrong>{
           {"LITEFS_GUESTBOOK", {}, 2, "usage: "},
           {"LITEFS_GUESTBOOK", {dir.file("none.yml")}, 1, "none.yml"},
           {"LITEFS_GUESTBOOK", {data, "127.0.0.1:x"}, 1, "listen"},
           {"LITEFS_GUESTBOOK", {data, "127.0.0.1:0", "host"}, 1, "primary_url"},
           {"LITEFS_KV", {dir.file("none.yml")}, 2, "usage: "},
           {"LITEFS_KV", {dir.file("none.yml"), "70000"}, 2, "usage: "},
           {"LITEFS_KV", {dir.file("none.yml"), "0"}, 1, "none.yml"},
       }) {
    CAPTURE(wrong.says);
    std::vector<std::string> argv = wrong.arguments;
    argv.insert(argv.begin(), program(wrong.variable));
    const std::string log = dir.file("log");
    std::filesystem::remove(log);
    CHECK(spawn(argv, log)->join(kAnswer).code == wrong.code);
    const std::string said = read_text_file(log);
    CAPTURE(said);
    CHECK(said.find(wrong.says) != std::string::npos);
  }
}

}  // namespace
}  // namespace litefs::test
