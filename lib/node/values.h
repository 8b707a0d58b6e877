// What the text of one configuration value means: durations, sizes, addresses, variables, commands.
//
// Errors are kInvalid and say what is wrong and what is allowed; the caller puts file, line and key before
// them. Thread rule: pure functions, any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "env/address.h"

namespace litefs {

// A duration as Go writes it, which is what LiteFS's files hold: one or more decimal numbers, each with a
// unit (ns, us, µs, ms, s, m, h), for instance "10m", "1h30m", "1.5h"; or "0". Rounded down to whole
// milliseconds; at most kDurationMsMax.
inline constexpr int64_t kDurationMsMax = 1000LL * 3600 * 24 * 366 * 100;
Result<int64_t> parse_duration_ms(const std::string& text);

// A number of bytes, or a decimal number with B, KB, MB, GB or TB (also spelled KiB, K and so on; case does not
// matter). A KB is 1024 bytes, as everywhere in this project.
Result<uint64_t> parse_size_bytes(const std::string& text);

// "true", "false" and the other spellings that YAML knows (yes, no, on, off).
Result<bool> parse_bool(const std::string& text);

// "host:port", ":port" or "[ipv6]:port".
Result<HostPort> parse_listen_address(const std::string& text);
// "http://host:port", with nothing but a slash after it.
Result<HostPort> parse_http_url(const std::string& text);

// The value of an environment variable; nothing when it is not set.
using VariableLookup = std::function<std::optional<std::string>(const std::string& name)>;

// Replaces variables. What LiteFS knows:
//   $NAME  ${NAME}                              the variable's value
//   ${NAME == OTHER}  ${NAME == "text"}  ${NAME == 'text'}  (and !=)
//                                               "true" or "false"; a variable that is not set is empty here
// What it does not know:
//   ${NAME:-text}                               the value, or this text when it is not set or empty
//   $$                                          one dollar sign
// A variable that is not set is an error outside of a comparison (LiteFS takes it as empty: a data directory
// of "/data/$APP" then becomes another application's). A dollar sign before anything else stays as it is.
Result<std::string> expand_variables(const std::string& text, const VariableLookup& lookup);

// Splits a command into words as a shell does: spaces divide, '…' and "…" hold together, a backslash takes the
// next character as it is (within "…" only before " and \). Nothing else is special, as no shell runs; an unquoted
// ; & | < > is an error that says so, since it would reach the program as a word.
Result<std::vector<std::string>> split_words(const std::string& command);

}  // namespace litefs
