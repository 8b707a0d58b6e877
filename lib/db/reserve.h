// A little room on the data directory's disk that is given up where it is full, for what must be written even then: to
// start, and to delete a database, which makes room. Format: DATA/reserve, whose content means nothing. Thread rule:
// any thread; two at once may find no room where one would.
#pragma once

#include <functional>
#include <string>

#include "env/file.h"

namespace litefs {

class Reserve {
 public:
  Reserve(FileSystem& files, const std::string& data_dir) : files_(files), path_(data_dir + "/reserve") {}

  // Takes the room, where there is some and it is not taken yet.
  void fill();
  // Does something, and where there is no room for it, again with the reserve's.
  Status lend(const std::function<Status()>& write);

 private:
  FileSystem& files_;
  const std::string path_;
};

}  // namespace litefs
