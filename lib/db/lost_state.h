// What a node keeps of a database before a resync, or a removal, overwrites what only it may have (DESIGN section 7).
//
// DATA/meta/NAME/lost/ has two files for each lost state; ID is its position, TXID-CHECKSUM, 16 hex digits each:
//
//   ID.db        the whole database as it was, as a SQLite database in rollback format
//   ID.manifest  says what it is; written last, so a state without one is an unfinished copy
//
// The image is whole, because later transactions change pages in which the two histories agreed, and a state put
// together from the differing pages and those would be one that never was. Where the file system can share blocks
// (FICLONE: btrfs, XFS) it is a clone, and takes only the room of what the database changes afterwards. Nothing removes
// a lost state but people.
//
// MANIFEST: text, a line each, "KEY VALUE\n", in this order:
//
//   litefs-lost 1
//   database NAME
//   database-id HEX16
//   kept-at MS               wall clock, milliseconds since 1970
//   why TEXT                 control characters replaced by spaces
//   position EPOCH TXID CHECKSUM      HEX16 each: the state that the image holds
//   diverged-at EPOCH TXID CHECKSUM   where this node began to be alone, as far as its log tells; or: diverged-at
//   unknown transactions N           from there to the position; or: transactions unknown page-size BYTES pages N
//   checksum HEX16           XXH3-64 of the lines before
//
// Thread rule: plain values and pure functions; they read files of a running node as well, which only adds states.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/types.h"
#include "env/file.h"

namespace litefs {

struct LostState {
  std::string database;
  DatabaseId database_id;
  int64_t kept_wall_ms = 0;
  std::string why;
  Position position;
  std::optional<Position> diverged_at;
  std::optional<uint64_t> transactions;
  uint32_t page_size = 0;
  Pgno size_pages = 0;

  std::string id() const;
  uint64_t size_bytes() const { return static_cast<uint64_t>(size_pages) * page_size; }

  Bytes encode() const;
  // kCorrupt for anything that encode() does not make.
  static Result<LostState> parse(ByteView manifest);
};

// Files of a lost state in its directory.
std::string lost_image_path(const std::string& lost_dir, const std::string& id);
std::string lost_manifest_path(const std::string& lost_dir, const std::string& id);

// All lost states of a data directory, by database, then time. A manifest that cannot be read is in `unreadable`, with
// the reason, and keeps no other from being listed.
struct LostStates {
  struct Entry {
    LostState state;
    std::string image_path;
  };
  std::vector<Entry> entries;
  std::vector<Error> unreadable;
};
Result<LostStates> list_lost_states(FileSystem& files, const std::string& data_dir);

// Writes the state `id` of a database to a new file, a SQLite database in rollback format, after checking that it has
// exactly the pages of its position. kNotFound: there is no such state; kExists: the file exists; kCorrupt: the image
// is not that state any more. After an error there is no new file.
Status export_lost_state(FileSystem& files, const std::string& data_dir, const std::string& database,
                         const std::string& id, const std::string& to);

}  // namespace litefs
