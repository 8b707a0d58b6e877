// A fuzz target is one file that defines these two. Linked with fuzz_main.cc it is a test: a
// bounded number of mutations of its seeds, the same at every run; built by clang with
// -fsanitize=fuzzer, and without fuzz_main.cc, it is a libFuzzer target.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace litefs::test {

// Good inputs to begin with.
std::vector<Bytes> fuzz_seeds();

}  // namespace litefs::test
