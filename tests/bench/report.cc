#include "bench/report.h"

#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

namespace litefs::bench {

namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + "\"";
}

std::string json_number(double value) {
  char out[32];
  snprintf(out, sizeof out, "%.6g", value);
  return std::isfinite(value) ? out : "null";
}

}  // namespace

double percentile(std::vector<double> values, double fraction) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(fraction * static_cast<double>(values.size() - 1) + 0.5)];
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

Record::Record(const std::string& bench) : json_("{\"bench\": " + quoted(bench)) {}

Record& Record::text(const std::string& key, const std::string& value) {
  json_ += ", " + quoted(key) + ": " + quoted(value);
  return *this;
}

Record& Record::number(const std::string& key, double value) {
  json_ += ", " + quoted(key) + ": " + json_number(value);
  return *this;
}

Record& Record::numbers(const std::string& key, const std::vector<double>& values) {
  json_ += ", " + quoted(key) + ": [";
  for (size_t i = 0; i < values.size(); i++) json_ += (i ? ", " : "") + json_number(values[i]);
  json_ += "]";
  return *this;
}

void Record::print(const std::string& summary) const {
  std::cout << json_ << "}" << std::endl;
  std::cerr << summary << std::endl;
}

std::string short_number(double value) {
  char out[64];
  if (value >= 1000) {
    double scale = std::pow(10, std::floor(std::log10(value)) - 2);
    snprintf(out, sizeof out, "%.0f", std::round(value / scale) * scale);
  } else {
    snprintf(out, sizeof out, "%.3g", value);
  }
  return out;
}

int64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ll + t.tv_nsec;
}

}  // namespace litefs::bench
