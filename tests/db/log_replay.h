// What a database's change log says its pages are, record by record, and whether the file agrees.
#pragma once

#include <string>
#include <vector>

#include "changelog/page_codec.h"
#include "db/database.h"

namespace litefs::test {

class LogReplay {
 public:
  // Takes the records since the last call. Answers what is wrong with them; empty: nothing.
  std::string follow(Database& database);
  // Where the file at `path`, which is at rest in a rollback mode, differs from the log; empty: nowhere.
  std::string difference(const std::string& path) const;
  const Position& position() const { return position_; }
  uint64_t records() const { return records_; }

 private:
  std::string take(RecordSource& source);

  PageCodec codec_;
  Position position_;
  uint32_t page_size_ = 0;
  std::vector<Bytes> pages_;  // masked
  uint64_t records_ = 0;
};

}  // namespace litefs::test
