#include "sqlite/header.h"

#include <cstring>
#include <string>

namespace litefs {
namespace {

constexpr char kMagic[16] = "SQLite format 3";
constexpr uint32_t kUsableSizeMin = 480;

Error no_database(const std::string& why) { return Error(ErrorCode::kInvalid, "not a SQLite database: " + why); }

}  // namespace

bool valid_page_size(uint64_t bytes) { return bytes >= 512 && bytes <= 65536 && (bytes & (bytes - 1)) == 0; }

Result<DatabaseHeader> DatabaseHeader::parse(ByteView first_bytes) {
  if (first_bytes.size() < kDatabaseHeaderBytes) return no_database("it is shorter than its header");
  const uint8_t* p = first_bytes.data();
  if (std::memcmp(p, kMagic, sizeof kMagic) != 0) return no_database("the magic string is missing");

  DatabaseHeader header;
  // 65536 does not fit in 16 bits and is stored as 1, which this reads as SQLite does.
  header.page_size = static_cast<uint32_t>(p[16]) << 8 | static_cast<uint32_t>(p[17]) << 16;
  if (!valid_page_size(header.page_size)) {
    return no_database("page size " + std::to_string(header.page_size));
  }
  header.write_version = p[18];
  header.read_version = p[19];
  if (header.write_version > 2 || header.read_version > 2) {
    return no_database("file format version " + std::to_string(header.write_version) + "/" +
                       std::to_string(header.read_version));
  }
  if (header.page_size - p[20] < kUsableSizeMin) {
    return no_database(std::to_string(p[20]) + " reserved bytes a page");
  }
  if (p[21] != 64 || p[22] != 32 || p[23] != 32) return no_database("the payload fractions are wrong");
  header.change_counter = load_be32(p + 24);
  header.size_pages = load_be32(p + 28);
  header.version_valid_for = load_be32(p + 92);
  return header;
}

Pgno DatabaseHeader::effective_size(uint64_t file_bytes) const {
  if (size_pages != 0 && change_counter == version_valid_for) return size_pages;
  return static_cast<Pgno>((file_bytes + page_size - 1) / page_size);
}

void mask_local_bytes(MutableByteView page1) {
  CHECK_GE(page1.size(), kDatabaseHeaderBytes);
  std::memset(page1.data() + 18, 0, 2);
  std::memset(page1.data() + 24, 0, 4);
  std::memset(page1.data() + 92, 0, 4);
}

void set_local_bytes(MutableByteView page1, bool wal, uint32_t counter, Pgno size_pages) {
  CHECK_GE(page1.size(), kDatabaseHeaderBytes);
  page1[18] = page1[19] = wal ? 2 : 1;
  store_be32(page1.data() + 24, counter);
  bool trusted = load_be32(page1.data() + 28) == size_pages;
  store_be32(page1.data() + 92, trusted ? counter : counter - 1);
}

}  // namespace litefs
