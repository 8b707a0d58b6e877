// Writes JSON text, two spaces a level, keys in the order they are given. Output only.
//
//   JsonWriter json;
//   json.begin_object().key("role").value("primary").key("lag_ms").value(3).end_object();
//   json.take();
//
// Commas, newlines and escapes are its business; that begins and ends match is the caller's (CHECKed in take()).
// Bytes that are not UTF-8 are replaced, so that the result always is JSON. Thread rule: one thread.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"

namespace litefs {

class JsonWriter {
 public:
  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }

  JsonWriter& key(std::string_view name) {
    separate();
    quote(name);
    out_ += ": ";
    after_key_ = true;
    return *this;
  }

  JsonWriter& value(std::string_view text) {
    separate();
    quote(text);
    return *this;
  }
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(std::integral auto number) {
    separate();
    if constexpr (std::same_as<decltype(number), bool>)
      out_ += number ? "true" : "false";
    else
      out_ += std::to_string(number);
    return *this;
  }
  JsonWriter& null() {
    separate();
    out_ += "null";
    return *this;
  }

  // The finished document and a newline.
  std::string take() {
    CHECK_EQ(depth_, 0);
    out_ += '\n';
    return std::move(out_);
  }

 private:
  JsonWriter& open(char bracket) {
    separate();
    out_ += bracket;
    ++depth_;
    empty_ = true;
    return *this;
  }

  JsonWriter& close(char bracket) {
    CHECK_GT(depth_, 0);
    --depth_;
    if (!empty_) new_line();
    out_ += bracket;
    empty_ = false;
    return *this;
  }

  // What stands between the previous token and a new one.
  void separate() {
    if (after_key_) {
      after_key_ = false;
      return;
    }
    if (depth_ == 0) return;
    if (!empty_) out_ += ',';
    empty_ = false;
    new_line();
  }

  void new_line() {
    out_ += '\n';
    out_.append(static_cast<size_t>(depth_) * 2, ' ');
  }

  void quote(std::string_view text) {
    static constexpr char kHex[] = "0123456789abcdef";
    out_ += '"';
    for (size_t at = 0; at < text.size();) {
      unsigned char c = static_cast<unsigned char>(text[at]);
      if (size_t n = utf8_length(text.substr(at)); n == 0) {
        out_ += "\\ufffd";
        ++at;
      } else if (n > 1 || (c >= 0x20 && c != '"' && c != '\\')) {
        out_ += text.substr(at, n);
        at += n;
      } else {
        if (c == '"' || c == '\\')
          (out_ += '\\') += static_cast<char>(c);
        else if (c == '\n')
          out_ += "\\n";
        else
          ((out_ += "\\u00") += kHex[c >> 4]) += kHex[c & 15];
        ++at;
      }
    }
    out_ += '"';
  }

  // The bytes of the character that `text` begins with; 0 when it is none (RFC 3629).
  static size_t utf8_length(std::string_view text) {
    auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    unsigned char c = byte(0);
    if (c < 0x80) return 1;
    size_t n = c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (n == 0 || text.size() < n) return 0;
    for (size_t i = 1; i < n; ++i) {
      if ((byte(i) & 0xc0) != 0x80) return 0;
    }
    // Overlong forms, surrogates, beyond U+10FFFF.
    bool bad = (c == 0xe0 && byte(1) < 0xa0) || (c == 0xed && byte(1) > 0x9f) || (c == 0xf0 && byte(1) < 0x90) ||
               (c == 0xf4 && byte(1) > 0x8f);
    return bad ? 0 : n;
  }

  std::string out_;
  int depth_ = 0;
  bool empty_ = true;  // the innermost object or array has no member yet
  bool after_key_ = false;
};

}  // namespace litefs
