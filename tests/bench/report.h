// What was measured, as JSON lines on stdout and as a table on stderr. Thread rule: one thread.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace litefs::bench {

double median(std::vector<double> values);
// 0 ≤ fraction ≤ 1; 0.99 for the 99th percentile.
double percentile(std::vector<double> values, double fraction);

// One JSON object a line: {"bench": …, then the fields in the order they were added}.
class Record {
 public:
  explicit Record(const std::string& bench);
  Record& text(const std::string& key, const std::string& value);
  Record& number(const std::string& key, double value);
  Record& numbers(const std::string& key, const std::vector<double>& values);
  // Prints the JSON line, and `summary` for people.
  void print(const std::string& summary) const;

 private:
  std::string json_;
};

// Three significant digits: 1234567 → "1230000", 0.012345 → "0.0123".
std::string short_number(double value);

// CLOCK_MONOTONIC, the same in every process of the machine.
int64_t now_ns();

}  // namespace litefs::bench
