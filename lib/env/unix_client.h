// Asks a local stream socket one question and reads the answer to its end.
//
// Blocking, with a deadline over the whole exchange: for command line programs, never for a node's threads.
// Thread rule: any thread.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace litefs {

struct UnixExchange {
  std::string path;          // of any length, although a socket address holds only 107 bytes
  std::string_view request;  // sent whole, then our direction is closed
  size_t reply_bytes_max = 0;
  int timeout_ms = 0;
  // Asked now and then while nothing comes; an error ends the exchange. Empty: nothing does.
  std::function<Status()> check{};
};

// What the other side sends until it closes; empty when it closes without a word. kNotFound: no such socket, or nobody
// listens on it (a socket file outlives a killed process); kTimedOut; kNoSpace: the reply is longer than allowed;
// kReadOnly: no permission.
Result<std::string> unix_exchange(const UnixExchange& exchange);

// The same for an answer of any length, handed over as it comes; an error of `take` ends it. timeout_ms bounds each
// silence of the other side instead of the whole; reply_bytes_max has no meaning.
Status unix_receive(const UnixExchange& exchange, const std::function<Status(ByteView)>& take);

}  // namespace litefs
