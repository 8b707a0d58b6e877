// What programs of this machine ask a running node through its local socket (kStatusSocketName in
// the data directory, for the node's own user alone).
//
// A program sends one line and ends its direction; the node answers and closes:
//
//   text, json       its status, rendered (status.h)
//   import 1 NAME    whether an application here may replace the database NAME now. "ok", a line
//                    end, then the path of NAME on the mount and a line end
//   export 1 NAME    a copy of NAME. "ok", a line end, then export_stream.h's frames
//
// or one line that begins with "error: " and says why not. The number is the version of the request
// and its answer; a node that does not know it says so in such a line. NAME goes on to the line's
// end. Thread rule: plain values.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace litefs {

// A request is one short line; more is not read.
inline constexpr size_t kLocalRequestBytesMax = 1024;
inline constexpr const char* kLocalOk = "ok\n";
inline constexpr const char* kLocalError = "error: ";

struct LocalRequest {
  enum class Kind { kStatus, kImport, kExport };
  Kind kind = Kind::kStatus;
  std::string argument;  // kStatus: the whole line; else the database's name
};

// kUnsupported: another version of a request that is known.
Result<LocalRequest> parse_local_request(std::string_view line);

std::string import_request(const std::string& name);
std::string export_request(const std::string& name);
// One line.
std::string local_error(const Error& error);

}  // namespace litefs
