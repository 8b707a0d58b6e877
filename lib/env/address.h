// Network addresses as users write them. Thread rule: free functions.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace litefs {

struct HostPort {
  std::string host;  // a name or a number; empty in ":port"
  uint16_t port = 0;

  bool operator==(const HostPort&) const = default;
  // "host:port", with brackets around an IPv6 number.
  std::string text() const;
};

// "host:port", ":port", "[IPv6]:port". kInvalid says what is wrong with it.
Result<HostPort> parse_address(const std::string& text);

}  // namespace litefs
