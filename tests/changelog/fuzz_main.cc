// Runs a fuzz target on mutations of its seeds: fuzz_X [COUNT]. The random numbers come from
// LITEFS_TEST_SEED, or are always the same.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <random>

#include "changelog/fuzz.h"

using namespace litefs;

namespace {

constexpr uint64_t kSeed = 20240229;
constexpr size_t kInputBytesMax = 1u << 16;

class Mutator {
 public:
  Mutator(std::vector<Bytes> seeds, uint64_t seed) : seeds_(std::move(seeds)), random_(seed) {}

  Bytes next() {
    Bytes input = seeds_[below(seeds_.size())];
    for (size_t changes = 1 + below(4); changes > 0; --changes) change(input);
    return input;
  }

 private:
  size_t below(size_t bound) { return static_cast<size_t>(random_() % bound); }

  void change(Bytes& input) {
    if (input.empty()) return input.push_back(static_cast<uint8_t>(random_()));
    size_t at = below(input.size());
    auto here = input.begin() + static_cast<std::ptrdiff_t>(at);
    size_t length = 1 + below(std::min<size_t>(input.size() - at, 32));
    auto there = here + static_cast<std::ptrdiff_t>(length);
    switch (below(7)) {
      case 0: *here = static_cast<uint8_t>(*here ^ 1 << below(8)); break;
      case 1: *here = static_cast<uint8_t>(random_()); break;
      case 2: std::fill(here, there, static_cast<uint8_t>(below(2) ? 0xff : 0)); break;
      case 3: input.resize(at); break;
      case 4: input.erase(here, there); break;
      case 5: {
        Bytes piece(here, there);
        input.insert(input.begin() + static_cast<std::ptrdiff_t>(below(input.size())), piece.begin(), piece.end());
        break;
      }
      default: {
        const Bytes& other = seeds_[below(seeds_.size())];
        size_t from = below(other.size() + 1);
        input.resize(at);
        input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
      }
    }
    if (input.size() > kInputBytesMax) input.resize(kInputBytesMax);
  }

  const std::vector<Bytes> seeds_;
  std::mt19937_64 random_;
};

}  // namespace

int main(int argc, char** argv) {
  const char* given = std::getenv("LITEFS_TEST_SEED");
  uint64_t seed = given ? std::strtoull(given, nullptr, 0) : kSeed;
  size_t count = argc > 1 ? std::strtoull(argv[1], nullptr, 0) : 10000;
  std::cout << "LITEFS_TEST_SEED=" << seed << " count=" << count << std::endl;
  std::vector<Bytes> seeds = test::fuzz_seeds();
  for (const Bytes& input : seeds) LLVMFuzzerTestOneInput(input.data(), input.size());
  Mutator mutator(std::move(seeds), seed);
  for (size_t i = 0; i < count; ++i) {
    Bytes input = mutator.next();
    // An exact copy, so that a sanitizer sees a read beyond it.
    input.shrink_to_fit();
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  return 0;
}
