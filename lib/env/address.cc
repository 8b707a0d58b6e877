#include "env/address.h"

namespace litefs {

std::string HostPort::text() const {
  bool brackets = host.find(':') != std::string::npos;
  return (brackets ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<HostPort> parse_address(const std::string& text) {
  auto invalid = [&text](const char* why) { return Error(ErrorCode::kInvalid, "address '" + text + "': " + why); };
  size_t colon = text.rfind(':');
  if (colon == std::string::npos) return invalid("the port is missing (write host:port or :port)");
  HostPort out;
  out.host = text.substr(0, colon);
  if (!out.host.empty() && out.host.front() == '[') {
    if (out.host.back() != ']' || out.host.size() < 3) return invalid("the brackets do not match");
    out.host = out.host.substr(1, out.host.size() - 2);
  } else if (out.host.find(':') != std::string::npos) {
    return invalid("write an IPv6 address in brackets, [address]:port");
  }
  std::string digits = text.substr(colon + 1);
  if (digits.empty() || digits.size() > 5) return invalid("the port is not a number up to 65535");
  uint32_t port = 0;
  for (char c : digits) {
    if (c < '0' || c > '9') return invalid("the port is not a number up to 65535");
    port = port * 10 + static_cast<uint32_t>(c - '0');
  }
  if (port > 65535) return invalid("the port is not a number up to 65535");
  out.port = static_cast<uint16_t>(port);
  return out;
}

}  // namespace litefs
