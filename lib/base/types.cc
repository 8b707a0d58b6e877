#include "base/types.h"

#include <cstdio>

namespace litefs {

std::string hex16(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

Result<uint64_t> parse_hex16(const std::string& text) {
  uint64_t v = 0;
  for (char c : text) {
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return Error(ErrorCode::kInvalid, "'" + text + "' is not 16 lower-case hex digits");
    v = v << 4 | static_cast<uint64_t>(digit);
  }
  if (text.size() != 16) {
    return Error(ErrorCode::kInvalid, "'" + text + "' is not 16 lower-case hex digits");
  }
  return v;
}

std::string position_text(const Position& position) {
  return hex16(position.txid.value) + "/" + hex16(position.checksum.value);
}

std::ostream& operator<<(std::ostream& out, TxId v) { return out << hex16(v.value); }
std::ostream& operator<<(std::ostream& out, Epoch v) { return out << v.value; }
std::ostream& operator<<(std::ostream& out, Checksum v) { return out << hex16(v.value); }
std::ostream& operator<<(std::ostream& out, DatabaseId v) { return out << hex16(v.value); }
std::ostream& operator<<(std::ostream& out, NodeId v) { return out << hex16(v.value); }
std::ostream& operator<<(std::ostream& out, const Position& v) {
  return out << "epoch " << v.epoch << " position " << position_text(v);
}

}  // namespace litefs
