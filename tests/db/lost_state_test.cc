#include "db/lost_state.h"

#include "node_fixture.h"

using namespace litefs;
using namespace litefs::test;

namespace {

LostState sample() {
  return {.database = "dir/app.db",
          .database_id = DatabaseId{0xabcdef},
          .kept_wall_ms = 1700000000123,
          .why = "the primary does not know its position",
          .position = {Epoch{3}, TxId{0x2a}, Checksum{0x1122334455667788}},
          .diverged_at = Position{Epoch{2}, TxId{0x28}, Checksum{7}},
          .transactions = 2,
          .page_size = 65536,
          .size_pages = 99};
}

bool same(const LostState& a, const LostState& b) { return a.encode() == b.encode(); }

}  // namespace

TEST_CASE("a lost state's manifest reads back as it was written") {
  LostState state = sample();
  CHECK(same(LostState::parse(state.encode()).value(), state));
  CHECK(state.id() == "000000000000002a-1122334455667788");
  state.diverged_at.reset();
  state.transactions.reset();
  state.why = "two\nlines";
  LostState again = LostState::parse(state.encode()).value();
  CHECK_FALSE(again.diverged_at.has_value());
  CHECK_FALSE(again.transactions.has_value());
  CHECK(again.why == "two lines");
}

TEST_CASE("a manifest cut anywhere, or with a bit that has turned, is refused") {
  const Bytes good = sample().encode();
  for (size_t n = 0; n < good.size(); ++n) CHECK_FALSE(LostState::parse(ByteView(good).first(n)).ok());
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] = static_cast<uint8_t>(bad[bit / 8] ^ (1u << bit % 8));
    CHECK_FALSE(LostState::parse(bad).ok());
  }
  Bytes longer = good;
  longer.push_back('\n');
  CHECK_FALSE(LostState::parse(longer).ok());
}

TEST_CASE("an unreadable manifest is named and hides no other; an image that changed is not exported") {
  TempDir dir;
  auto files = posix_file_system();
  const std::string lost = dir.file("meta/app.db/lost");
  REQUIRE(files->make_directories(lost).ok());
  REQUIRE(files->make_directories(dir.file("meta/other.db/log")).ok());
  LostState state = sample();
  state.database = "app.db";
  state.page_size = 512;
  state.size_pages = 2;
  Bytes image(1024, 0x11);
  Bytes first(image.begin(), image.begin() + 512);
  mask_local_bytes(first);
  state.position.checksum = page_hash(1, first);
  state.position.checksum ^= page_hash(2, ByteView(image).subspan(512));
  REQUIRE(files->write_atomically(lost_image_path(lost, state.id()), image).ok());
  REQUIRE(files->write_atomically(lost_manifest_path(lost, state.id()), state.encode()).ok());
  REQUIRE(files->write_atomically(lost + "/broken.manifest", as_bytes("litefs-lost 1\n")).ok());
  REQUIRE(files->write_atomically(lost + "/unfinished.db", image).ok());

  LostStates all = list_lost_states(*files, dir.path()).value();
  REQUIRE(all.entries.size() == 1);
  CHECK(same(all.entries[0].state, state));
  REQUIRE(all.unreadable.size() == 1);
  CHECK(all.unreadable[0].message().find("broken.manifest") != std::string::npos);

  const std::string to = dir.file("out.db");
  REQUIRE(export_lost_state(*files, dir.path(), "app.db", state.id(), to).ok());
  CHECK(files->read_all(to, 4096).value() == image);
  CHECK(export_lost_state(*files, dir.path(), "app.db", state.id(), to).error().code() == ErrorCode::kExists);
  CHECK(export_lost_state(*files, dir.path(), "other.db", state.id(), dir.file("x")).error().code() ==
        ErrorCode::kNotFound);
  image[700] ^= 1;
  REQUIRE(files->write_atomically(lost_image_path(lost, state.id()), image).ok());
  CHECK(export_lost_state(*files, dir.path(), "app.db", state.id(), dir.file("x")).error().code() ==
        ErrorCode::kCorrupt);
  CHECK_FALSE(files->exists(dir.file("x")).value());
}
