#include <xxhash.h>

#include <cstring>
#include <fstream>
#include <stdexcept>
#include <vector>

#include "system/cluster.h"

namespace litefs::test {

uint64_t pages_checksum(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  unsigned char head[100];
  if (!in.read(reinterpret_cast<char*>(head), sizeof head)) {
    throw std::runtime_error(path + " is no database");
  }
  // The file format's offset 16; 1 stands for 65536.
  uint32_t page_size = static_cast<uint32_t>(head[16] << 8 | head[17]);
  if (page_size == 1) page_size = 65536;
  if (page_size < 512) throw std::runtime_error(path + " is no database");
  uint64_t lock_page = (1u << 30) / page_size + 1;

  in.seekg(0);
  std::vector<char> page(page_size);
  uint64_t sum = 0;
  for (uint64_t pgno = 1; in.read(page.data(), page_size); pgno++) {
    if (pgno == 1) {
      std::memset(page.data() + 18, 0, 2);
      std::memset(page.data() + 24, 0, 4);
      std::memset(page.data() + 92, 0, 4);
    }
    if (pgno != lock_page) sum ^= XXH3_64bits_withSeed(page.data(), page_size, pgno);
  }
  return sum;
}

}  // namespace litefs::test
