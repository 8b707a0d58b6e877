// Asking the node of this machine, from a command line program (node/local_requests.h).
//
// Errors are sentences for the user: kNotFound when no node runs with this data directory,
// kUnavailable when it is stopping, kInvalid with the node's own words when it refuses. Thread
// rule: one thread.
#pragma once

#include <functional>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace litefs {

class NodeClient {
 public:
  // An absolute path.
  explicit NodeClient(const std::string& data_dir) : data_dir_(data_dir) {}
  const std::string& data_dir() const { return data_dir_; }

  // The answer to one line, as a whole.
  Result<std::string> ask(const std::string& request);
  // What follows "ok", as it comes. An error of `take`, or of `check`, which is asked while nothing comes, ends it.
  Status receive(const std::string& request, const std::function<Status(ByteView)>& take,
                 const std::function<Status()>& check);

 private:
  std::string socket_path() const;
  Error explained(const Error& error) const;
  Error stopping() const;

  std::string data_dir_;
};

}  // namespace litefs
