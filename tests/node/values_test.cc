#include "node/values.h"

#include <map>

#include "test.h"

namespace litefs {
namespace {

VariableLookup variables(std::map<std::string, std::string> values) {
  return [values](const std::string& name) -> std::optional<std::string> {
    auto found = values.find(name);
    if (found == values.end()) return std::nullopt;
    return found->second;
  };
}

std::string expand(const std::string& text) {
  Result<std::string> result = expand_variables(text, variables({{"APP", "shop"},
                                                                 {"REGION", "ord"},
                                                                 {"HOME_REGION", "ord"},
                                                                 {"EMPTY", ""},
                                                                 {"A1_b", "x"},
                                                                 {"TRICKY", "$APP: [}"}}));
  return result.ok() ? result.value() : "error: " + result.error().message();
}

using Words = std::vector<std::string>;

TEST_CASE("durations are read as Go writes them") {
  CHECK(parse_duration_ms("10m").value() == 600'000);
  CHECK(parse_duration_ms("24h").value() == 86'400'000);
  CHECK(parse_duration_ms("1h30m").value() == 5'400'000);
  CHECK(parse_duration_ms("1.5h").value() == 5'400'000);
  CHECK(parse_duration_ms("300ms").value() == 300);
  CHECK(parse_duration_ms("2s500us").value() == 2'000);
  CHECK(parse_duration_ms("1500\u00b5s").value() == 1);
  CHECK(parse_duration_ms("0").value() == 0);
  for (const char* bad :
       {"", "10", "m", "10 m", "-1m", "10x", "1..5h", "ten", "1h30", "1e3s", "inf", "nanh", "10000000000000h"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_duration_ms(bad).ok());
  }
}

TEST_CASE("sizes are read with and without a unit") {
  CHECK(parse_size_bytes("0").value() == 0);
  CHECK(parse_size_bytes("1048576").value() == 1048576);
  CHECK(parse_size_bytes("512MB").value() == 512u << 20);
  CHECK(parse_size_bytes("512 mib").value() == 512u << 20);
  CHECK(parse_size_bytes("1.5GB").value() == 1536u << 20);
  CHECK(parse_size_bytes("64k").value() == 64u << 10);
  CHECK(parse_size_bytes("2TB").value() == uint64_t{2} << 40);
  for (const char* bad : {"", "MB", "-1", "1XB", "1 0", "1MBs", "1.2.3MB", "99999999TB"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_size_bytes(bad).ok());
  }
}

TEST_CASE("addresses to listen on are read, with every kind of host") {
  CHECK(parse_listen_address(":20202").value() == HostPort{"", 20202});
  CHECK(parse_listen_address("127.0.0.1:0").value() == HostPort{"127.0.0.1", 0});
  CHECK(parse_listen_address("[::1]:80").value() == HostPort{"::1", 80});
  CHECK(parse_listen_address("db-1.internal:65535").value() == HostPort{"db-1.internal", 65535});
  CHECK(HostPort{"::1", 80}.text() == "[::1]:80");
  for (const char* bad : {"", "20202", "localhost", ":", ":65536", ":x", "::1:80", "[::1]", "a b:1", "a/b:1"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_listen_address(bad).ok());
  }
}

TEST_CASE("the primary's URL is http with host and port and nothing else") {
  CHECK(parse_http_url("http://db-1:20202").value() == HostPort{"db-1", 20202});
  CHECK(parse_http_url("http://[fd00::1]:20202/").value() == HostPort{"fd00::1", 20202});
  for (const char* bad :
       {"", "db-1:20202", "http://db-1", "http://:20202", "http://db-1:0", "http://db-1:1/x", "ftp://db-1:1"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_http_url(bad).ok());
  }
  CHECK(parse_http_url("https://db-1:1").error().message().find("TLS") != std::string::npos);
}

TEST_CASE("variables are replaced in every form") {
  CHECK(expand("plain text, 5 % of $ 3 and $1") == "plain text, 5 % of $ 3 and $1");
  CHECK(expand("/data/${APP}/$APP-x") == "/data/shop/shop-x");
  CHECK(expand("$A1_b.$EMPTY") == "x.");
  CHECK(expand("${ APP }") == "shop");
  CHECK(expand("$$APP costs 3$") == "$APP costs 3$");
  CHECK(expand("${REGION == HOME_REGION}") == "true");
  CHECK(expand("${REGION==APP}") == "false");
  CHECK(expand("${REGION != 'ord'}") == "false");
  CHECK(expand("${REGION == \"ord\"}") == "true");
  CHECK(expand("${NOT_SET == ''}") == "true");
  CHECK(expand("${NOT_SET:-/var/lib}") == "/var/lib");
  CHECK(expand("${EMPTY:-x}${APP:-y}${NOT_SET:-}") == "xshop");
  CHECK(expand("${TRICKY}") == "$APP: [}");
}

TEST_CASE("a variable that is not set, or a form that is not known, is an error that says so") {
  CHECK(expand("/data/$NOT_SET").find("environment variable NOT_SET is not set") != std::string::npos);
  CHECK(expand("${NOT_SET}").find("environment variable NOT_SET is not set") != std::string::npos);
  for (const char* bad : {"${", "${}", "${APP", "${1X}", "${APP =}", "${APP == }", "${APP < APP}", "${APP-x}",
                          "${APP == 'x}", "${APP == a b}"}) {
    CAPTURE(bad);
    CHECK(expand(bad).rfind("error: ", 0) == 0);
  }
}

TEST_CASE("commands are split as a shell splits them") {
  CHECK(split_words("").value() == Words{});
  CHECK(split_words("  \t\n ").value() == Words{});
  CHECK(split_words("myapp -addr :8080").value() == Words{"myapp", "-addr", ":8080"});
  CHECK(split_words("sh -c 'a; b | c > \"d\"'").value() == Words{"sh", "-c", "a; b | c > \"d\""});
  CHECK(split_words(R"(a "b \"c\" \\ \n" d\ e '' "")").value() == Words{"a", R"(b "c" \ \n)", "d e", "", ""});
  CHECK(split_words("x'y z'\"w\" # no comment").value() == Words{"xy zw", "#", "no", "comment"});
  for (const char* bad : {"a 'b", "a \"b", "a \\", "a; b", "a && b", "a | b", "a > b", "a < b"}) {
    CAPTURE(bad);
    CHECK_FALSE(split_words(bad).ok());
  }
  CHECK(split_words("a | b").error().message().find("sh -c") != std::string::npos);
}

}  // namespace
}  // namespace litefs
