// decide_tail() against a model of a WAL and its index: random histories of commits, killed writers, restarts that
// were published and lost, recoveries and torn headers. A reader that follows the decisions must deliver every
// published transaction once and in order, and none that was never published. Then the same for a WAL whose one user
// has its wal-index in its own memory (locking_mode=EXCLUSIVE), and whose syncs may fail.
#include "sqlite/tail.h"

#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include "test.h"

using namespace litefs;

namespace {

struct Frame {
  uint64_t transaction = 0;  // 0: not a commit frame
  WalChecksum checksum;      // running, after it
};

uint32_t test_seed() {
  uint32_t seed = std::random_device()();
  if (const char* given = std::getenv("LITEFS_TEST_SEED")) seed = static_cast<uint32_t>(std::stoul(given));
  std::printf("LITEFS_TEST_SEED=%u\n", seed);
  return seed;
}

class Model {
 public:
  explicit Model(uint32_t seed) : random_(seed) {
    begin_generation();
    publish();
  }

  // ---- what SQLite does ----
  void commit() {
    drop_unpublished();
    write_transaction();
    publish();
  }
  // Its commit frame reaches the file, the index does not.
  void commit_and_die() {
    drop_unpublished();
    write_transaction();
  }
  // Frames without a commit frame, which the next writer overwrites.
  void spill() {
    drop_unpublished();
    append(0);
  }
  // A complete checkpoint and a writer that begins the WAL anew; the drain before it is the caller's duty.
  void restart_and_commit() {
    drop_unpublished();
    begin_generation();
    write_transaction();
    publish();
  }
  // The same, killed after the index said so and before the WAL's header was written.
  void restart_and_die() {
    index_.salts = next_salts();
    index_.max_frame = 0;
  }
  // All users are gone; the next one recovers by the chain.
  void everybody_dies() { in_use_ = false; }
  void recover() {
    in_use_ = true;
    publish();
  }
  void tear_header() { torn_ = true; }
  void finish_header() { torn_ = false; }
  bool in_use() const { return in_use_; }

  // ---- what a reader sees ----
  TailInput look(const WalAnchor& anchor) const {
    TailInput input;
    input.index_in_use = in_use_;
    if (!torn_) input.index = index_;
    input.wal = wal_;
    input.anchor = anchor;
    if (anchor.frame > 0 && anchor.frame <= frames_.size()) input.at_anchor = frames_[anchor.frame - 1].checksum;
    return input;
  }
  const std::vector<Frame>& frames() const { return frames_; }
  const WalHeader& wal() const { return wal_; }
  uint64_t published() const { return published_; }
  // Transactions whose commit frame is in the file, published or not.
  uint64_t written() const { return next_transaction_ - 1; }

 private:
  WalSalts next_salts() { return WalSalts{static_cast<uint32_t>(random_()), static_cast<uint32_t>(random_())}; }
  WalChecksum next_checksum() {
    return WalChecksum{static_cast<uint32_t>(random_()), static_cast<uint32_t>(random_())};
  }
  void begin_generation() {
    wal_.page_size = 4096;
    wal_.salts = next_salts();
    wal_.checksum = next_checksum();
    frames_.clear();
  }
  void append(uint64_t transaction) { frames_.push_back({transaction, next_checksum()}); }
  void write_transaction() {
    for (uint32_t n = random_() % 4; n > 0; --n) append(0);
    append(next_transaction_++);
  }
  // What was never published is overwritten by the next writer, and its number with it.
  void drop_unpublished() {
    if (!(index_.salts == wal_.salts)) return;
    while (frames_.size() > index_.max_frame) {
      if (frames_.back().transaction) next_transaction_ = frames_.back().transaction;
      frames_.pop_back();
    }
  }
  void publish() {
    index_.page_size = wal_.page_size;
    index_.salts = wal_.salts;
    index_.max_frame = 0;
    index_.frame_checksum = wal_.checksum;
    for (uint32_t i = 0; i < frames_.size(); ++i) {
      if (!frames_[i].transaction) continue;
      index_.max_frame = i + 1;
      index_.frame_checksum = frames_[i].checksum;
      published_ = frames_[i].transaction;
    }
  }

  std::mt19937 random_;
  WalHeader wal_;
  std::vector<Frame> frames_;
  WalIndexHeader index_;
  bool in_use_ = true;
  bool torn_ = false;
  uint64_t next_transaction_ = 1;
  uint64_t published_ = 0;
};

// Follows the decisions as wal_tail.cc does. Answers false where the files are between two states.
bool drain(const Model& model, WalAnchor& anchor, uint64_t& delivered) {
  TailDecision decision = decide_tail(model.look(anchor));
  switch (decision.action) {
    case TailAction::kNothing: return true;
    case TailAction::kWait: return false;
    case TailAction::kMismatch: FAIL("mismatch: " << decision.why); return false;
    case TailAction::kDeliver:
    case TailAction::kFollowChain: break;
  }
  const bool chain = decision.action == TailAction::kFollowChain;
  REQUIRE(decision.from.salts == model.wal().salts);
  uint32_t to = chain ? static_cast<uint32_t>(model.frames().size()) : decision.to_frame;
  REQUIRE(to <= model.frames().size());
  for (uint32_t frame = decision.from.frame + 1; frame <= to; ++frame) {
    const Frame& f = model.frames()[frame - 1];
    if (!f.transaction) continue;
    REQUIRE(f.transaction == delivered + 1);
    delivered = f.transaction;
    anchor = WalAnchor{model.wal().salts, frame, f.checksum};
  }
  if (!chain) CHECK(model.frames()[to - 1].checksum == decision.expected);
  return true;
}

}  // namespace

TEST_CASE("the tail's decisions deliver every published transaction once, in random histories") {
  const uint32_t seed = test_seed();
  for (uint32_t round = 0; round < 2000; ++round) {
    CAPTURE(seed);
    CAPTURE(round);
    Model model(seed + round);
    std::mt19937 random(seed ^ (round * 7919));
    WalAnchor anchor;
    uint64_t delivered = 0;
    for (int step = 0; step < 60; ++step) {
      switch (model.in_use() ? random() % 10 : 10) {
        case 0:
        case 1:
        case 2:
        case 3: model.commit(); break;
        case 4: model.commit_and_die(); break;
        case 5: model.spill(); break;
        case 6:
          // The drain that the front ends owe before a complete checkpoint takes effect.
          REQUIRE(drain(model, anchor, delivered));
          REQUIRE(delivered == model.published());
          model.restart_and_commit();
          break;
        case 7:
          REQUIRE(drain(model, anchor, delivered));
          model.restart_and_die();
          REQUIRE(drain(model, anchor, delivered));
          model.everybody_dies();
          break;
        case 8: model.everybody_dies(); break;
        case 9: {
          model.tear_header();
          uint64_t before = delivered;
          CHECK_FALSE(drain(model, anchor, delivered));
          CHECK(delivered == before);
          model.finish_header();
          break;
        }
        default:
          if (random() % 2) REQUIRE(drain(model, anchor, delivered));
          model.recover();
          break;
      }
      if (random() % 2) {
        REQUIRE(drain(model, anchor, delivered));
        if (model.in_use()) CHECK(delivered == model.published());
      }
      CHECK(delivered <= model.written());
    }
  }
}

TEST_CASE("without the drain before a restart the same history loses transactions") {
  Model model(1);
  WalAnchor anchor;
  uint64_t delivered = 0;
  model.commit();
  REQUIRE(drain(model, anchor, delivered));
  model.commit();
  model.restart_and_commit();
  TailDecision decision = decide_tail(model.look(anchor));
  CHECK(decision.action == TailAction::kDeliver);
  CHECK(model.frames().back().transaction == 3);
  CHECK(delivered == 1);
}

TEST_CASE("an index that does not continue the anchor is a mismatch") {
  Model model(2);
  WalAnchor anchor;
  uint64_t delivered = 0;
  model.commit();
  model.commit();
  REQUIRE(drain(model, anchor, delivered));
  WalAnchor wrong = anchor;
  wrong.checksum.a ^= 1;
  CHECK(decide_tail(model.look(wrong)).action == TailAction::kMismatch);
  wrong = anchor;
  wrong.frame += 5;
  CHECK(decide_tail(model.look(wrong)).action == TailAction::kMismatch);
}

namespace {

constexpr int64_t kMs = 1'000'000;

// One user at a time, without a wal-index; and the reader that follows the chain as wal_tail_chain.cc does.
class ExclusiveModel {
 public:
  explicit ExclusiveModel(uint32_t seed) : random_(seed) { begin_generation(); }

  // ---- what SQLite does ----
  void write_commit() {
    drop_uncommitted();
    for (uint32_t n = random_() % 4; n > 0; --n) append(0);
    append(next_transaction_++);
  }
  void commit() {
    write_commit();
    accept();
  }
  // The commit frame is written and synced; in between the follower polls.
  void commit_with_sync(bool succeeds) {
    write_commit();
    if (random_() % 2) poll(random_() % 2 * 15 * kMs);
    syncing_ = true;
    for (uint32_t n = random_() % 3; n > 0; --n) poll(random_() % 2 * 30 * kMs);
    syncing_ = false;
    if (succeeds) accept();
    drain(succeeds ? ChainEnd::kSettled : ChainEnd::kRefused);
  }
  void spill() {
    drop_uncommitted();
    for (uint32_t n = 1 + random_() % 4; n > 0; --n) append(0);
  }
  // A complete checkpoint, and the next writer begins the WAL anew.
  void checkpoint() {
    drain(ChainEnd::kSettled);
    CHECK(delivered == committed);
    begin_generation();
    commit();
  }
  // SIGKILL, and the next user recovers by the chain: a commit whose sync failed is one now.
  void next_user() {
    trust_.new_user();
    while (!frames_.empty() && !frames_.back().transaction) frames_.pop_back();
    if (frames_.size() > committed_frames_) accept();
  }

  // ---- what the follower does ----
  void poll(int64_t pause_ns) {
    now_ns_ += pause_ns;
    drain(ChainEnd::kUnknown);
  }
  TailDecision decide() const {
    TailInput input;
    input.wal = wal_;
    input.anchor = anchor_;
    if (anchor_.frame > 0 && anchor_.frame <= frames_.size()) input.at_anchor = frames_[anchor_.frame - 1].checksum;
    return decide_tail(input);
  }
  void drain(ChainEnd what) {
    TailDecision decision = decide();
    REQUIRE(decision.action == TailAction::kFollowChain);
    WalAnchor end;
    uint64_t transaction = 0;
    auto deliver = [&] {
      delivered.push_back(transaction);
      anchor_ = end;
      end = WalAnchor();
    };
    for (uint32_t frame = decision.from.frame + 1; frame <= frames_.size(); ++frame) {
      const Frame& f = frames_[frame - 1];
      if (end.frame != 0) deliver();
      if (!f.transaction) continue;
      end = WalAnchor{wal_.salts, frame, f.checksum};
      transaction = f.transaction;
    }
    if (end.frame != 0 && trust_.accepts(end, what, syncing_, now_ns_)) deliver();
  }

  std::vector<uint64_t> committed;  // by their writers
  std::vector<uint64_t> delivered;

 private:
  void begin_generation() {
    wal_.page_size = 4096;
    wal_.salts = WalSalts{static_cast<uint32_t>(random_()), static_cast<uint32_t>(random_())};
    wal_.checksum = WalChecksum{static_cast<uint32_t>(random_()), static_cast<uint32_t>(random_())};
    frames_.clear();
    committed_frames_ = 0;
  }
  void append(uint64_t transaction) {
    frames_.push_back({transaction, {static_cast<uint32_t>(random_()), static_cast<uint32_t>(random_())}});
  }
  void drop_uncommitted() { frames_.resize(committed_frames_); }
  void accept() {
    committed.push_back(frames_.back().transaction);
    committed_frames_ = frames_.size();
  }

  std::mt19937 random_;
  WalHeader wal_;
  std::vector<Frame> frames_;
  size_t committed_frames_ = 0;
  uint64_t next_transaction_ = 1;
  bool syncing_ = false;
  int64_t now_ns_ = 1000 * kMs;
  WalAnchor anchor_;
  ChainTrust trust_;
};

}  // namespace

TEST_CASE("without an index each commit is delivered once, and none that its writer takes back, in random histories") {
  const uint32_t seed = test_seed();
  for (uint32_t round = 0; round < 2000; ++round) {
    CAPTURE(seed);
    CAPTURE(round);
    ExclusiveModel model(seed + round);
    std::mt19937 random(seed ^ (round * 7919));
    for (int step = 0; step < 60; ++step) {
      switch (random() % 10) {
        case 0:
        case 1:
        case 2: model.commit(); break;
        case 3:
        case 4: model.commit_with_sync(true); break;
        case 5: model.commit_with_sync(false); break;
        case 6: model.spill(); break;
        case 7: model.checkpoint(); break;
        case 8: model.next_user(); break;
        default: model.poll(random() % 25 * kMs); break;
      }
      REQUIRE(model.delivered.size() <= model.committed.size());
      REQUIRE(std::equal(model.delivered.begin(), model.delivered.end(), model.committed.begin()));
    }
    model.poll(0);
    model.poll(ChainTrust::kAcceptedAfterNs);
    model.next_user();
    model.poll(0);
    model.poll(ChainTrust::kAcceptedAfterNs);
    CHECK(model.delivered == model.committed);
  }
}

TEST_CASE("a commit that counted and was taken back all the same shows as a mismatch") {
  ExclusiveModel model(3);
  model.commit();
  model.write_commit();
  model.poll(0);
  CHECK(model.delivered == std::vector<uint64_t>{1});
  model.poll(ChainTrust::kAcceptedAfterNs);
  CHECK(model.delivered == std::vector<uint64_t>{1, 2});
  CHECK(model.decide().action == TailAction::kFollowChain);
  model.write_commit();
  CHECK(model.decide().action == TailAction::kMismatch);
}
