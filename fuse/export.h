// `litefs export`: a copy of a database of the running node, primary or replica, in the state of
// one position.
//
// The node sends pages and records (node/export_stream.h) while its applications go on; the copy's
// checksum over all pages must be its position's. It is written beside FILE under a name of its
// own, synced, and renamed; a plain SQLite file in rollback-journal mode. Thread rule: the main
// thread.
#pragma once

#include <string>

#include "env/file.h"
#include "fuse/command.h"

namespace litefs {

struct ExportRequest {
  std::string name;
  std::string file;    // "-": standard output
  bool force = false;  // replaces FILE
};

// The line that says what has been done.
Result<std::string> export_database(FileSystem& files, const ExportRequest& request, CommandContext& context);

}  // namespace litefs
