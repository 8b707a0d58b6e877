// What open() does to a change log's directory: lists it, removes what is not complete, cuts the
// torn tail. Used by the change log alone. Thread rule: one thread.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/log.h"
#include "changelog/log_state.h"

namespace litefs {

// Name of a segment that begins with a large record, while that is being written.
constexpr char kUnfinishedSegment[] = "next.new";

struct RecoveredLog {
  std::vector<Segment> segments;     // oldest first
  std::optional<SegmentEntry> last;  // the newest entry, in the last segment; with segments only
  std::unique_ptr<File> file;        // of the last segment, for reading and writing
};

Result<RecoveredLog> recover_log(FileSystem& files, const std::string& directory,
                                 const std::optional<LogEnd>& known_end, const Log& log);

}  // namespace litefs
