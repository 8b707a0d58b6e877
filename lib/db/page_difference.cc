#include "db/page_difference.h"

#include <algorithm>

namespace litefs {

Result<PageDifference::Step> PageDifference::step(size_t pages_max) {
  if (asked_) TRY(compare());
  while (next_page_ < pages_.size()) {
    Step step;
    step.pages = TRY(copier_.read_of(pages_, &next_page_, pages_max));
    if (!step.pages.empty()) return step;
  }
  SumsQuestion question;
  if (next_differing_ < ranges_.size()) {
    question.of_pages = true;
    const size_t n = std::min(ranges_.size() - next_differing_, kPageSumRangesMax);
    auto first = ranges_.begin() + static_cast<ptrdiff_t>(next_differing_);
    question.ranges.assign(first, first + static_cast<ptrdiff_t>(n));
    next_differing_ += n;
    return ask(std::move(question));
  }
  while (next_range_ < ranges_of(size_pages_) && question.ranges.size() < kRangeSumsMax) {
    question.ranges.push_back(next_range_++);
  }
  if (!question.ranges.empty()) return ask(std::move(question));
  Step end;
  end.last = true;
  return end;
}

PageDifference::Step PageDifference::ask(SumsQuestion question) {
  asked_ = std::move(question);
  theirs_.clear();
  Step step;
  step.question = asked_;
  return step;
}

void PageDifference::answer(std::vector<Checksum> sums) {
  CHECK(asked_.has_value());
  CHECK_EQ(sums.size(), asked_->answer_sums());
  theirs_ = std::move(sums);
}

Status PageDifference::compare() {
  CHECK_EQ(theirs_.size(), asked_->answer_sums());
  const std::vector<Checksum> ours = TRY(database_->sums(*asked_));
  if (asked_->of_pages) {
    pages_.clear();
    next_page_ = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      const Pgno pgno = first_page_of(asked_->ranges[i / kRangePages]) + static_cast<Pgno>(i % kRangePages);
      // None of ours: the database shrank, or it is the lock page.
      if (pgno <= size_pages_ && ours[i] != Checksum{} && ours[i] != theirs_[i]) pages_.push_back(pgno);
    }
  } else {
    ranges_.clear();
    next_differing_ = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      if (ours[i] != theirs_[i]) ranges_.push_back(asked_->ranges[i]);
    }
  }
  asked_.reset();
  return {};
}

}  // namespace litefs
