#include "node/options.h"

#include <cstdio>
#include <map>
#include <random>

#include "node/yaml_tree.h"
#include "test.h"

namespace litefs {
namespace {

OptionsContext context() {
  OptionsContext context;
  context.hostname = "machine";
  context.working_directory = "/work";
  context.variable = [](const std::string& name) -> std::optional<std::string> {
    static const std::map<std::string, std::string> kValues = {
        {"APP", "shop"}, {"FLY_REGION", "ord"}, {"PRIMARY_REGION", "ord"}, {"EVIL", "x\nproxy: 1"}};
    auto found = kValues.find(name);
    if (found == kValues.end()) return std::nullopt;
    return found->second;
  };
  return context;
}

Result<Options> read(const std::string& text) { return parse_options(text, "litefs.yml", context()); }

std::string error_of(const std::string& text) {
  Result<Options> options = read(text);
  return options.ok() ? "no error" : options.error().message();
}

// The two keys that every file needs, then `more`, whose first line is line 3.
std::string with(const std::string& more) { return "fuse: {dir: /litefs}\ndata: {dir: /var/lib/litefs}\n" + more; }

TEST_CASE("the smallest file gets every default") {
  Options options = read(with("")).value();
  CHECK(options.fuse_dir == "/litefs");
  CHECK(options.data_dir == "/var/lib/litefs");
  CHECK_FALSE(options.fuse_allow_other);
  CHECK(options.fuse_replica_open == ReplicaOpen::kAuto);
  CHECK(options.retention_ms == 24LL * 3600 * 1000);
  CHECK(options.retention_bytes == uint64_t{1} << 30);
  CHECK(options.retention_monitor_interval_ms == 60'000);
  CHECK(options.listen == HostPort{"", 20202});
  CHECK(options.candidate);
  CHECK(options.hostname == "machine");
  CHECK(options.primary == HostPort{"machine", 20202});
  CHECK(options.log_level == LogLevel::kInfo);
  CHECK(options.log_timestamps);
  CHECK(options.exec.empty());
}

TEST_CASE("every key is read") {
  Options options = read(R"(
fuse:
  dir: "/mnt//litefs/"
  allow-other: true
  replica-open: writable
  debug: false
data:
  dir: state/${APP}/../app
  compress: true
  retention: "1h30m"
  retention-size: 512MB
  retention-monitor-interval: 5s
exec: "myapp -addr ':80 80'"
exit-on-error: true
skip-sync: false
http:
  addr: "127.0.0.1:20203"
lease:
  type: "static"
  hostname: replica-${HOSTNAME}
  advertise-url: "http://primary:20202"
  candidate: no
  consul:
log:
  level: warn
  format: text
  timestamp: false
proxy:
)")
                        .value();
  CHECK(options.fuse_dir == "/mnt/litefs");
  CHECK(options.fuse_allow_other);
  CHECK(options.fuse_replica_open == ReplicaOpen::kWritable);
  CHECK(options.data_dir == "/work/state/app");
  CHECK(options.retention_ms == 5'400'000);
  CHECK(options.retention_bytes == 512u << 20);
  CHECK(options.retention_monitor_interval_ms == 5000);
  CHECK(options.listen == HostPort{"127.0.0.1", 20203});
  CHECK_FALSE(options.candidate);
  CHECK(options.hostname == "replica-machine");
  CHECK(options.primary == HostPort{"primary", 20202});
  CHECK(options.log_level == LogLevel::kWarning);
  CHECK_FALSE(options.log_timestamps);
  REQUIRE(options.exec.size() == 1);
  CHECK(options.exec[0].argv == std::vector<std::string>{"myapp", "-addr", ":80 80"});
}

TEST_CASE("LiteFS's documented static example works as it is") {
  Options options = read(R"(# A file from LiteFS's manual: comments may hold $ANYTHING, ${even this}.
fuse:
  dir: "/litefs"
data:
  dir: "/var/lib/litefs"
exec:
  - cmd: "rails db:migrate"
    if-candidate: true
  - cmd: "rails server"
lease:
  type: "static"
  hostname: "${HOSTNAME}"
  advertise-url: "http://primary:20202"
  candidate: ${FLY_REGION == PRIMARY_REGION}
)")
                        .value();
  CHECK(options.candidate);
  REQUIRE(options.exec.size() == 2);
  CHECK(options.exec[0].if_candidate);
  CHECK(options.exec[0].argv == std::vector<std::string>{"rails", "db:migrate"});
  CHECK_FALSE(options.exec[1].if_candidate);
}

TEST_CASE("a variable's value is a value, whatever it holds, and -no-expand-env leaves it alone") {
  CHECK(read(with("exec: echo '$EVIL'")).value().exec[0].argv[1] == "x\nproxy: 1");
  OptionsContext plain = context();
  plain.variable = nullptr;
  Options options = parse_options(with("exec: echo '$EVIL'"), "litefs.yml", plain).value();
  CHECK(options.exec[0].argv[1] == "$EVIL");
}

TEST_CASE("errors name file, line and key, and what is allowed") {
  struct Case {
    const char* text;
    const char* message;
  };
  const Case cases[] = {
      {"dta:\n  dir: /x", "litefs.yml:3: dta: no such key; at the top level there are exec, fuse, data, http"},
      {"http:\n  adr: x", "litefs.yml:4: http.adr: no such key; below http there are addr"},
      {"fuse: {dir: /x}", "litefs.yml:3: fuse: given twice, first on line 1"},
      {"lease:\n  candidate: true\n  candidate: true", "litefs.yml:5: lease.candidate: given twice, first on line 4"},
      {"http: 20202", "litefs.yml:3: http: must hold keys of its own"},
      {"http: {addr: [a]}", "litefs.yml:3: http.addr: must be one value"},
      {"http: {addr: 20202}", "litefs.yml:3: http.addr: '20202' has no port"},
      {"lease: {candidate: maybe}", "litefs.yml:3: lease.candidate: 'maybe' is neither true nor false"},
      {"lease: {type: consul}", "litefs.yml:3: lease.type: liblitefs does not have the consul lease yet"},
      {"lease: {type: raft}", "litefs.yml:3: lease.type: 'raft' is not static"},
      {"lease: {candidate: false}", "litefs.yml:3: lease.advertise-url: is missing"},
      {"lease: {hostname: a b}", "litefs.yml:3: lease.hostname: has a space"},
      {"lease: {hostname: $NOPE}", "litefs.yml:3: lease.hostname: the environment variable NOPE is not set"},
      {"lease: {advertise-url: 'primary:1'}", "litefs.yml:3: lease.advertise-url: 'primary:1' is not a URL"},
      {"lease:\n  consul:\n    url: x", "litefs.yml:4: 'lease.consul' configures the consul lease"},
      {"proxy:\n  addr: x", "litefs.yml:3: 'proxy' is LiteFS's HTTP proxy, which liblitefs does not have yet"},
      {"backup: {type: x}", "litefs.yml:3: 'backup' is LiteFS's backup client"},
      {"tracing: {path: x}", "litefs.yml:3: 'tracing' is LiteFS's trace log"},
      {"exit-on-error: false", "litefs.yml:3: exit-on-error: false is not supported: litefs always ends"},
      {"skip-sync: true", "litefs.yml:3: skip-sync: true is not supported"},
      {"log: {level: loud}", "litefs.yml:3: log.level: 'loud' is not debug, info, warn or error"},
      {"log: {format: json}", "litefs.yml:3: log.format: 'json' is not text"},
      {"log: {level: warn, debug: true}", "litefs.yml:3: log.debug: contradicts log.level"},
      {"exec: 'a | b'", "litefs.yml:3: exec: '|' is a shell's"},
      {"exec:\n  - a b", "litefs.yml:4: exec: an item of the list is written '- cmd: …'"},
      {"exec:\n  - if-candidate: true", "litefs.yml:4: exec: an item has no cmd"},
      {"exec:\n  - cmd: ''", "litefs.yml:4: exec.cmd: is empty"},
      {"exec:\n  - cmd: a\n    foo: b", "litefs.yml:5: exec.foo: no such key; an item has cmd and if-candidate"},
      {"exec:\n  - cmd: a\n    cmd: b", "litefs.yml:5: exec.cmd: given twice in one item"},
      {"http:\n\taddr: x", "litefs.yml:4: not YAML: "},
      {"http: {addr: &a ':1'}\nlease: *a", "litefs.yml:4: aliases (*name) are not supported"},
      {"---\nhttp: {addr: ':1'}", "litefs.yml:3: a second document begins"},
      {"? [a]\n: b", "litefs.yml:3: a key must be a word"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.text);
    std::string message = error_of(with(c.text));
    CHECK_MESSAGE(message.rfind(c.message, 0) == 0, message);
  }
}

TEST_CASE("values that only look wrong together are refused") {
  CHECK(error_of("") == "litefs.yml: fuse.dir: is missing; it names the directory to mount on");
  CHECK(error_of("fuse: {dir: /a}") == "litefs.yml: data.dir: is missing; it names the directory that keeps the data");
  CHECK(error_of("fuse:\n  dir: ''").rfind("litefs.yml:2: fuse.dir: is empty", 0) == 0);
  CHECK(error_of("fuse: {dir: /}").find("is the root directory") != std::string::npos);
  CHECK(error_of("fuse: {dir: /a}\ndata: {dir: /a}").rfind("litefs.yml:2: data.dir: /a lies in fuse.dir", 0) == 0);
  CHECK(error_of("fuse: {dir: /a}\ndata: {dir: /x/../a/b}").rfind("litefs.yml:2: data.dir: /a/b lies in", 0) == 0);
  CHECK(error_of("fuse: {dir: /a/b}\ndata: {dir: /a/}").rfind("litefs.yml:1: fuse.dir: /a/b lies in data.dir", 0) == 0);
  CHECK(read("fuse: {dir: /ab}\ndata: {dir: /a}").ok());
  CHECK(error_of("just text").rfind("litefs.yml:1: the file must hold keys", 0) == 0);
}

TEST_CASE("an empty command means none, a debug switch means the level debug") {
  CHECK(read(with("exec: ${CMD:-}")).value().exec.empty());
  CHECK(read(with("exec:")).value().exec.empty());
  CHECK(read(with("log: {debug: true}")).value().log_level == LogLevel::kDebug);
}

TEST_CASE("bytes that are no YAML are an error with a line, never a crash") {
  CHECK(error_of(std::string("fuse: \xff\xfe")).rfind("litefs.yml:", 0) == 0);
  CHECK(error_of(std::string("a\0b: c", 6)).rfind("litefs.yml:", 0) == 0);
  std::string deep(100, '[');
  CHECK(error_of("a: " + deep).rfind("litefs.yml:1: nested too deeply", 0) == 0);
  CHECK(error_of(std::string(kYamlBytesMax + 1, ' ')).find("longer than") != std::string::npos);

  const std::string good = with("exec:\n  - cmd: 'a \"b\" ${APP}'\nlease: {hostname: x, candidate: true}\n");
  const char* given = std::getenv("LITEFS_TEST_SEED");
  const uint64_t seed = given ? std::strtoull(given, nullptr, 0) : std::random_device()();
  std::printf("LITEFS_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  for (size_t cut = 0; cut < good.size(); ++cut) static_cast<void>(read(good.substr(0, cut)).ok());
  for (int round = 0; round < 20'000; ++round) {
    std::string bad = good;
    for (uint64_t n = random() % 4 + 1; n > 0; --n) {
      bad[random() % bad.size()] = static_cast<char>(random());
    }
    Result<Options> options = read(bad);
    if (!options.ok()) REQUIRE(options.error().message().rfind("litefs.yml", 0) == 0);
  }
}

}  // namespace
}  // namespace litefs
