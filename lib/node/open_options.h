// From the C interface's options to the node's: from their own members, or from the configuration file that they name.
// Thread rule: plain values; the log's sink is called from any thread.
#pragma once

#include "base/log.h"
#include "node/options.h"

struct litefs_options;

namespace litefs {

struct OpenOptions {
  Options options;
  Log log;
};

// kInvalid: a member is wrong or missing; kNotFound: there is no such file.
Result<OpenOptions> read_open_options(const litefs_options& given);

}  // namespace litefs
