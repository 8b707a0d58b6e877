// `litefs import`: a SQLite file becomes the content of a database of the running primary, as one
// transaction.
//
// The file is checked first (import_source.h). Then this program writes its pages into NAME through
// the mount, as an ordinary SQLite application does, by SQLite's backup interface: so locks,
// atomicity, disk-full and crashes of this program or the node are SQLite's own, and the node
// captures the commit like any other. What that means for others:
//
//   NAME in WAL, same page size   readers keep their snapshot and then see the new content; a
//   writer is waited for NAME in a rollback mode       readers and writers are waited for (SQLite's
//   EXCLUSIVE lock); connections stay NAME in WAL, other page size  only while nobody else has NAME
//   open no NAME                       it is made, in the file's journal mode
//
// Who is in the way longer than `wait` is named in the error. The schema's version is raised, so
// that connections forget the schema they know. On every error NAME is as it was; one that did not
// exist may be left as an empty file, which SQLite takes for an empty database and no replica sees;
// one that had to leave WAL for another page size is in DELETE mode where this program was killed.
// Thread rule: the main thread.
#pragma once

#include <chrono>
#include <string>

#include "env/file.h"
#include "fuse/command.h"

namespace litefs {

struct ImportRequest {
  std::string file;  // "-": standard input
  std::string name;
  std::chrono::milliseconds wait{30'000};
};

// The line that says what has been done.
Result<std::string> import_database(FileSystem& files, const ImportRequest& request, CommandContext& context);

}  // namespace litefs
