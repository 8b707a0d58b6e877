#include "node/values.h"

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>

namespace litefs {
namespace {

Error invalid(std::string message) { return Error(ErrorCode::kInvalid, std::move(message)); }

std::string quoted(const std::string& text) { return "'" + text + "'"; }

bool is_name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool is_name_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }
bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

std::string trim(const std::string& text) {
  size_t begin = 0, end = text.size();
  while (begin < end && is_space(text[begin])) ++begin;
  while (end > begin && is_space(text[end - 1])) --end;
  return text.substr(begin, end - begin);
}

// Reads digits with at most one point from `*at` on. Nothing when there is no digit.
std::optional<double> take_decimal(const std::string& text, size_t* at) {
  size_t end = *at;
  bool point = false, digit = false;
  while (end < text.size()) {
    char c = text[end];
    if (c == '.' && !point)
      point = true;
    else if (c >= '0' && c <= '9')
      digit = true;
    else
      break;
    ++end;
  }
  double value = 0;
  if (!digit) return std::nullopt;
  auto parsed = std::from_chars(text.data() + *at, text.data() + end, value);
  // ".5" and "5." are what Go takes too; from_chars reads both.
  if (parsed.ec != std::errc()) return std::nullopt;
  *at = end;
  return value;
}

std::optional<double> duration_unit_ms(const std::string& unit) {
  if (unit == "ns") return 1e-6;
  if (unit == "us" || unit == "\u00b5s" || unit == "\u03bcs") return 1e-3;
  if (unit == "ms") return 1;
  if (unit == "s") return 1e3;
  if (unit == "m") return 60e3;
  if (unit == "h") return 3600e3;
  return std::nullopt;
}

Result<uint16_t> parse_port(const std::string& text) {
  unsigned value = 0;
  auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || value > 65535) {
    return invalid(quoted(text) + " is not a port number (0 to 65535)");
  }
  return static_cast<uint16_t>(value);
}

Result<HostPort> parse_host_port(const std::string& text, const std::string& shape) {
  size_t colon = text.rfind(':');
  if (colon == std::string::npos || text.find(']', colon) != std::string::npos) {
    return invalid(quoted(text) + " has no port; it is written " + shape);
  }
  HostPort result;
  result.host = text.substr(0, colon);
  result.port = TRY(parse_port(text.substr(colon + 1)));
  std::string& host = result.host;
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    return invalid(quoted(text) + ": an IPv6 address stands in brackets, as in [::1]:20202");
  }
  for (char c : host) {
    bool plain =
        std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_' || c == ':' || c == '%';
    if (!plain) return invalid(quoted(text) + " is not an address; it is written " + shape);
  }
  return result;
}

// The inside of ${…}.
class Expression {
 public:
  Expression(const std::string& text, const VariableLookup& lookup) : text_(trim(text)), lookup_(lookup) {}

  Result<std::string> evaluate() {
    size_t end = name_end(0);
    if (end == 0) return malformed();
    std::string name = text_.substr(0, end);
    if (end == text_.size()) return required(name);
    if (text_.compare(end, 2, ":-") == 0) {
      std::string value = lookup_(name).value_or("");
      return value.empty() ? text_.substr(end + 2) : value;
    }
    return compare(name, end);
  }

  Result<std::string> required(const std::string& name) {
    if (auto value = lookup_(name)) return *value;
    return invalid("the environment variable " + name + " is not set (${" + name + ":-text} gives a default)");
  }

 private:
  Result<std::string> compare(const std::string& name, size_t at) {
    while (at < text_.size() && is_space(text_[at])) ++at;
    std::string op = text_.substr(at, 2);
    if (op != "==" && op != "!=") return malformed();
    std::string right = trim(text_.substr(at + 2));
    std::string operand;
    bool text_operand = right.size() >= 2 && (right[0] == '"' || right[0] == '\'') && right.back() == right[0];
    if (text_operand) {
      operand = right.substr(1, right.size() - 2);
    } else {
      size_t end = 0;
      while (end < right.size() && is_name_char(right[end])) ++end;
      if (end == 0 || end != right.size()) return malformed();
      operand = lookup_(right).value_or("");
    }
    bool equal = lookup_(name).value_or("") == operand;
    return std::string(equal == (op == "==") ? "true" : "false");
  }

  size_t name_end(size_t at) const {
    if (at >= text_.size() || !is_name_start(text_[at])) return at;
    while (at < text_.size() && is_name_char(text_[at])) ++at;
    return at;
  }

  Error malformed() const {
    return invalid("cannot read ${" + text_ +
                   "}; allowed are ${NAME}, ${NAME:-text}, ${NAME == OTHER}, ${NAME == \"text\"}");
  }

  std::string text_;
  const VariableLookup& lookup_;
};

}  // namespace

Result<int64_t> parse_duration_ms(const std::string& text) {
  const std::string hint = quoted(text) + " is not a duration; one is written 10m, 1h30m or 24h";
  if (text == "0") return int64_t{0};
  if (text.empty()) return invalid(hint);
  double total_ms = 0;
  for (size_t at = 0; at < text.size();) {
    std::optional<double> number = take_decimal(text, &at);
    if (!number) return invalid(hint);
    size_t end = at;
    while (end < text.size() && text[end] != '.' && !(text[end] >= '0' && text[end] <= '9')) ++end;
    std::optional<double> unit_ms = duration_unit_ms(text.substr(at, end - at));
    if (!unit_ms) return invalid(hint);
    total_ms += *number * *unit_ms;
    at = end;
  }
  if (!(total_ms <= static_cast<double>(kDurationMsMax))) {
    return invalid(quoted(text) + " is longer than a hundred years");
  }
  return static_cast<int64_t>(total_ms);
}

Result<uint64_t> parse_size_bytes(const std::string& text) {
  const std::string hint = quoted(text) + " is not a size; one is written 512MB, 1.5GB or 1048576";
  size_t at = 0;
  std::optional<double> number = take_decimal(text, &at);
  if (!number) return invalid(hint);
  std::string unit;
  for (char c : trim(text.substr(at))) {
    unit.push_back(static_cast<char>(std::toupper(static_cast<unsigned char>(c))));
  }
  static const std::array<const char*, 5> kUnits = {"", "K", "M", "G", "T"};
  double factor = 1;
  for (const char* prefix : kUnits) {
    std::string p = prefix;
    if (unit == p || unit == p + "B" || (!p.empty() && unit == p + "IB")) {
      double bytes = *number * factor;
      if (!(bytes <= 9e15)) return invalid(quoted(text) + " is too large");
      return static_cast<uint64_t>(bytes);
    }
    factor *= 1024;
  }
  return invalid(hint);
}

Result<bool> parse_bool(const std::string& text) {
  std::string lower;
  for (char c : text) {
    lower.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
  }
  if (lower == "true" || lower == "yes" || lower == "on") return true;
  if (lower == "false" || lower == "no" || lower == "off") return false;
  return invalid(quoted(text) + " is neither true nor false");
}

Result<HostPort> parse_listen_address(const std::string& text) {
  return parse_host_port(text, ":20202 (all addresses) or 127.0.0.1:20202");
}

Result<HostPort> parse_http_url(const std::string& text) {
  static const std::string kScheme = "http://", kShape = "http://host:20202";
  if (text.rfind("https://", 0) == 0) {
    return invalid(quoted(text) + ": liblitefs does not have TLS yet; use " + kShape);
  }
  if (text.rfind(kScheme, 0) != 0) return invalid(quoted(text) + " is not a URL like " + kShape);
  std::string rest = text.substr(kScheme.size());
  if (!rest.empty() && rest.back() == '/') rest.pop_back();
  if (rest.find('/') != std::string::npos) {
    return invalid(quoted(text) + " has a path; it is written " + kShape);
  }
  HostPort result = TRY(parse_host_port(rest, kShape));
  if (result.host.empty()) return invalid(quoted(text) + " names no host");
  if (result.port == 0) return invalid(quoted(text) + " names port 0");
  return result;
}

Result<std::string> expand_variables(const std::string& text, const VariableLookup& lookup) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    char next = at + 1 < text.size() ? text[at + 1] : '\0';
    if (text[at] != '$' || (next != '$' && next != '{' && !is_name_start(next))) {
      out.push_back(text[at++]);
    } else if (next == '$') {
      out.push_back('$');
      at += 2;
    } else if (next == '{') {
      size_t end = text.find('}', at);
      if (end == std::string::npos) return invalid("'${' without '}' in " + quoted(text));
      out += TRY(Expression(text.substr(at + 2, end - at - 2), lookup).evaluate());
      at = end + 1;
    } else {
      size_t end = at + 1;
      while (end < text.size() && is_name_char(text[end])) ++end;
      out += TRY(Expression("", lookup).required(text.substr(at + 1, end - at - 1)));
      at = end;
    }
  }
  return out;
}

Result<std::vector<std::string>> split_words(const std::string& command) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  char quote = '\0';
  for (size_t at = 0; at < command.size(); ++at) {
    char c = command[at];
    if (quote != '\0') {
      bool escape =
          quote == '"' && c == '\\' && at + 1 < command.size() && (command[at + 1] == '"' || command[at + 1] == '\\');
      if (escape)
        word.push_back(command[++at]);
      else if (c == quote)
        quote = '\0';
      else
        word.push_back(c);
    } else if (is_space(c)) {
      if (in_word) words.push_back(std::move(word));
      word.clear();
      in_word = false;
    } else if (std::string(";&|<>").find(c) != std::string::npos) {
      return invalid(std::string("'") + c +
                     "' is a shell's; no shell runs this command: quote it, or write "
                     "sh -c \"…\"");
    } else {
      in_word = true;
      if (c == '\'' || c == '"') {
        quote = c;
      } else if (c == '\\') {
        if (at + 1 == command.size()) return invalid("the command ends with a backslash");
        word.push_back(command[++at]);
      } else {
        word.push_back(c);
      }
    }
  }
  if (quote != '\0') return invalid(std::string("a ") + quote + " is not closed in the command");
  if (in_word) words.push_back(std::move(word));
  return words;
}

}  // namespace litefs
