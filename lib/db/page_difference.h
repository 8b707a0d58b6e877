// A primary's side of a resync by difference: asks for the other's sums, compares, reads what differs (DESIGN
// section 7; the frames are in repl/wire.h).
//
//   step() ──► question ──► answer() ──► step() ──► pages … ──► step() ──► last
//
// Range sums of up to kRangeSumsMax ranges are asked for, then the page hashes of those ranges that differ,
// kPageSumRangesMax ranges at a time, then their differing pages are read. So it holds some 150 KB, whatever the
// database's size. Writers go on meanwhile: every comparison and every page is of a captured state between the
// beginning and the end, which is all that a fuzzy copy needs (db/snapshot_load.h).
// Thread rule: one thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "changelog/page_ranges.h"
#include "db/database.h"
#include "db/page_copier.h"

namespace litefs {

class PageDifference {
 public:
  // `size_pages`: of the database when the copy began. Pages beyond it are in the records since.
  PageDifference(std::shared_ptr<Database> database, Pgno size_pages)
      : database_(std::move(database)), copier_(database_), size_pages_(size_pages) {}

  struct Step {
    std::optional<SumsQuestion> question;  // to be answered before the next step; or
    Bytes pages;                           // as db/page_copier.h makes them; or
    bool last = false;                     // neither: the end
  };
  // kBusy: as PageCopier's; the next call goes on.
  Result<Step> step(size_t pages_max);
  // Exactly as many sums as the question asks for.
  void answer(std::vector<Checksum> sums);

 private:
  Status compare();
  Step ask(SumsQuestion question);

  std::shared_ptr<Database> database_;
  PageCopier copier_;
  const Pgno size_pages_;
  uint32_t next_range_ = 0;
  std::optional<SumsQuestion> asked_;
  std::vector<Checksum> theirs_;
  std::vector<uint32_t> ranges_;  // that differ, from next_differing_ on not looked into yet
  size_t next_differing_ = 0;
  std::vector<Pgno> pages_;  // that differ, from next_page_ on not read yet
  size_t next_page_ = 0;
};

}  // namespace litefs
