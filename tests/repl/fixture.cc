#include "repl/fixture.h"

#include <cstdio>
#include <cstdlib>

namespace litefs::test {

namespace {
constexpr auto kLineMax = std::chrono::seconds(10);
}

uint64_t test_seed() {
  static const uint64_t seed = [] {
    const char* given = std::getenv("LITEFS_TEST_SEED");
    uint64_t s = given ? std::strtoull(given, nullptr, 0) : std::random_device{}();
    std::printf("LITEFS_TEST_SEED=%llu\n", static_cast<unsigned long long>(s));
    return s;
  }();
  return seed;
}

void LineSink::write(LogLevel, std::string_view line) {
  MutexLock lock(mutex_);
  lines_.emplace_back(line);
  changed_.notify_all();
}

bool LineSink::has(const std::string& part) {
  MutexLock lock(mutex_);
  return has_locked(part);
}

bool LineSink::comes(const std::string& part) {
  auto deadline = std::chrono::steady_clock::now() + kLineMax;
  MutexLock lock(mutex_);
  while (!has_locked(part)) {
    if (!changed_.wait_until(mutex_, deadline)) return has_locked(part);
  }
  return true;
}

bool LineSink::has_locked(const std::string& part) {
  for (const std::string& line : lines_) {
    if (line.find(part) != std::string::npos) return true;
  }
  return false;
}

bool Signal::wait(const std::function<bool()>& condition) {
  auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kTestWaitMs);
  MutexLock lock(mutex_);
  while (!condition()) {
    if (!changed_.wait_until(mutex_, deadline)) return condition();
  }
  return true;
}

void Signal::change(const std::function<void()>& fn) {
  {
    MutexLock lock(mutex_);
    fn();
  }
  changed_.notify_all();
}

// ---- primary
// ----------------------------------------------------------------------------------------

namespace {

class TestHold final : public LogHold {
 public:
  explicit TestHold(std::atomic<uint64_t>& through) : through_(through) {}
  void advance(TxId durable) override { through_ = durable.value; }

 private:
  std::atomic<uint64_t>& through_;
};

RecordPlace place_of(const LogEntryInfo& info) {
  return {.txid_first = info.txid_first,
          .before = info.before,
          .after = info.position,
          .record_bytes = info.record_bytes,
          .drops = info.position.checksum.value == 0};
}

}  // namespace

// Reads on the primary's workers.
class TestFeed final : public LogFeed {
 public:
  struct State {
    std::unique_ptr<LogCursor> cursor;
    uint64_t record_done = 0;  // bytes of the current record already handed out
    bool in_record = false;
  };
  TestFeed(TestPrimary& primary, std::unique_ptr<LogCursor> cursor)
      : primary_(primary), state_(std::make_shared<State>()) {
    state_->cursor = std::move(cursor);
  }
  void read(size_t bytes_max, ReadDone done) override {
    primary_.workers_.post([&primary = primary_, state = state_, bytes_max, done] {
      auto answer = std::make_shared<Result<FeedChunk>>(read_some(*state, bytes_max));
      primary.thread_.loop().post([answer, done] { done(std::move(*answer)); });
    });
  }

 private:
  static Result<FeedChunk> read_some(State& s, size_t bytes_max) {
    auto bytes = std::make_shared<Bytes>();
    bytes->reserve(bytes_max);
    FeedChunk chunk;
    while (bytes->size() < bytes_max) {
      if (!s.in_record) {
        if (!TRY(s.cursor->next())) break;
        s.in_record = true;
        s.record_done = 0;
      }
      RecordPlace place = place_of(s.cursor->info());
      size_t n = std::min<size_t>(bytes_max - bytes->size(), static_cast<size_t>(place.record_bytes - s.record_done));
      size_t at = bytes->size();
      bytes->resize(at + n);  // reserved: views stay valid
      TRY(s.cursor->record().read(s.record_done, MutableByteView(*bytes).subspan(at)));
      chunk.pieces.push_back({.place = place, .offset_bytes = s.record_done, .bytes = ByteView(*bytes).subspan(at, n)});
      s.record_done += n;
      if (s.record_done == place.record_bytes) s.in_record = false;
    }
    chunk.owner = bytes;
    return chunk;
  }

  TestPrimary& primary_;
  std::shared_ptr<State> state_;
};

namespace {

// "start position", then filler.
class TestSnapshot final : public SnapshotFeed {
 public:
  TestSnapshot(TestPrimary& primary, const Position& at, size_t bytes, bool compares)
      : primary_(primary), at_(at), left_(bytes), compares_(compares) {}
  void answer(std::vector<Checksum> sums) override { primary_.answers.push_back(std::move(sums)); }
  void read(size_t bytes_max, ReadDone done) override {
    EventLoop& loop = primary_.thread().loop();
    if (compares_ && asked_ < primary_.questions.size()) {
      auto chunk = std::make_shared<SnapshotChunk>();
      chunk->question = primary_.questions[asked_++];
      loop.post([chunk, done] { done(std::move(*chunk)); });
      return;
    }
    if (left_ > 0 && was_read_ && primary_.busy_reads > 0) {
      --primary_.busy_reads;
      loop.post([done] { done(Error(ErrorCode::kBusy, "a transaction in flight has them")); });
      return;
    }
    was_read_ = true;
    size_t n = std::min(left_, bytes_max);
    left_ -= n;
    auto chunk = std::make_shared<SnapshotChunk>();
    chunk->bytes.assign(n, 0x5a);
    chunk->last = left_ == 0;
    chunk->consistent_at = at_;
    loop.post([chunk, done] { done(std::move(*chunk)); });
  }

 private:
  TestPrimary& primary_;
  Position at_;
  size_t left_;
  bool compares_;
  size_t asked_ = 0;
  bool was_read_ = false;
};

}  // namespace

TestPrimary::TestPrimary(const std::string& directory, const TestPrimaryOptions& options, std::shared_ptr<LogSink> sink)
    : options_(options), directory_(directory), log_(std::move(sink)), random_(test_seed()) {
  thread_.call([this] {
    auto server = PeerServer::listen(thread_.loop(), *this, *clock_, log_, options_.session, "127.0.0.1:0");
    server_ = std::move(server).value();
    port_ = server_->port();
    sampler_ = thread_.loop().timer([this] {
      for (const ReplicaStatus& s : server_->status()) {
        if (s.queued_bytes > queue_peak_) queue_peak_ = s.queued_bytes;
      }
    });
    sampler_->start(1, 1);
  });
}

TestPrimary::~TestPrimary() {
  thread_.call([this] {
    sampler_.reset();
    server_.reset();
  });
  workers_.stop();
}

TestPrimary::Db& TestPrimary::db_locked(const std::string& name) {
  auto [found, is_new] = databases_.try_emplace(name);
  Db& db = found->second;
  if (is_new || db.dropped) {
    db = Db{};
    db.id = DatabaseId{random_() | 1};
    auto log = ChangeLog::open(*files_, directory_ + "/" + name + hex16(db.id.value), {}, std::nullopt, log_);
    db.log = std::move(log).value();
  }
  return db;
}

RecordHeader TestPrimary::header_locked(const Db& db, size_t page_size, uint32_t pages) {
  RecordHeader h;
  h.flags = db.position.txid.value == 0 ? RecordHeader::kCreate : 0;
  h.database = db.id;
  h.page_size = static_cast<uint32_t>(page_size);
  h.size_after = pages;
  h.epoch = options_.identity.epoch;
  h.txid_first = h.txid_last = TxId{db.position.txid.value + 1};
  h.wall_ms = clock_->wall_ms();
  h.before = db.position.checksum;
  h.origin = options_.identity.node;
  return h;
}

// Under the mutex, so that batches are posted in the order of the log.
void TestPrimary::tell(const std::string& name, const Db& db, CommitBatch batch) {
  auto shared = std::make_shared<const CommitBatch>(std::move(batch));
  thread_.loop().post([this, name, id = db.id, shared] { server_->committed(name, id, shared); });
}

Position TestPrimary::commit(const std::string& name, size_t bytes) {
  MutexLock lock(mutex_);
  Db& db = db_locked(name);
  size_t page_size = 512;
  while (page_size < bytes && page_size < 65536) page_size *= 2;
  uint32_t pages = static_cast<uint32_t>(std::max<size_t>(bytes / page_size, 1));
  RecordHeader header = header_locked(db, page_size, pages);
  RecordEncoder encoder(codec_, header);
  Bytes page(page_size);
  for (uint32_t p = 1; p <= pages; ++p) {
    for (size_t i = 0; i < page.size(); i += 8) store_le64(page.data() + i, random_());
    encoder.add_page(p, page, page_hash(p, page), {});
  }
  Checksum after{random_() | 1};
  encoder.finish(after);
  CommitBatch::Record record;
  record.bytes = encoder.take();
  LogEntryInfo info{.position = {header.epoch, header.txid_last, after},
                    .before = header.before,
                    .txid_first = header.txid_first,
                    .wall_ms = header.wall_ms,
                    .record_bytes = record.bytes.size()};
  db.log->append({{.info = info, .record = record.bytes}}).value();
  record.place = place_of(info);
  db.position = info.position;
  CommitBatch batch{.after = db.position, .records = {}, .bytes = record.bytes.size()};
  batch.records.push_back(std::move(record));
  tell(name, db, std::move(batch));
  return db.position;
}

Position TestPrimary::commit_large(const std::string& name, size_t pages) {
  MutexLock lock(mutex_);
  Db& db = db_locked(name);
  RecordHeader header = header_locked(db, 65536, static_cast<uint32_t>(pages));
  RecordEncoder encoder(codec_, header);
  Bytes page(65536);
  db.log->begin_large().value();
  for (Pgno p = 1; p <= pages; ++p) {
    for (size_t i = 0; i < page.size(); i += 8) store_le64(page.data() + i, random_());
    encoder.add_page(p, page, page_hash(p, page), {});
    db.log->append_large(encoder.take()).value();
  }
  Checksum after{random_() | 1};
  encoder.finish(after);
  db.log->append_large(encoder.take()).value();
  LogEntryInfo info{.position = {header.epoch, header.txid_last, after},
                    .before = header.before,
                    .txid_first = header.txid_first,
                    .wall_ms = header.wall_ms};
  db.log->commit_large(info).value();
  db.position = info.position;
  tell(name, db, CommitBatch{.after = db.position, .records = {}, .bytes = 0});
  return db.position;
}

void TestPrimary::drop(const std::string& name) {
  MutexLock lock(mutex_);
  Db& db = db_locked(name);
  RecordHeader header = header_locked(db, 0, 0);
  header.flags = RecordHeader::kDrop;
  RecordEncoder encoder(codec_, header);
  encoder.finish(Checksum{0});
  CommitBatch::Record record;
  record.bytes = encoder.take();
  LogEntryInfo info{.position = {header.epoch, header.txid_last, Checksum{0}},
                    .before = header.before,
                    .txid_first = header.txid_first,
                    .wall_ms = header.wall_ms,
                    .record_bytes = record.bytes.size()};
  db.log->append({{.info = info, .record = record.bytes}}).value();
  record.place = place_of(info);
  db.position = info.position;
  db.dropped = true;
  CommitBatch batch{.after = db.position, .records = {}, .bytes = record.bytes.size()};
  batch.records.push_back(std::move(record));
  tell(name, db, std::move(batch));
}

Position TestPrimary::position(const std::string& name) {
  MutexLock lock(mutex_);
  return databases_.at(name).position;
}

void TestPrimary::clear_log(const std::string& name) {
  MutexLock lock(mutex_);
  databases_.at(name).log->clear().value();
}

std::vector<ReplicaStatus> TestPrimary::status() {
  return thread_.call([this] { return server_->status(); });
}

bool TestPrimary::wait_replicas(size_t count) {
  return signal_.wait([&] { return replicas_ == static_cast<int>(count); });
}

NodeIdentity TestPrimary::identity() { return options_.identity; }

bool TestPrimary::is_primary(std::string* primary_url) {
  *primary_url = options_.primary_url;
  return options_.primary;
}

std::vector<PrimaryDatabase> TestPrimary::databases() {
  MutexLock lock(mutex_);
  std::vector<PrimaryDatabase> out;
  for (const auto& [name, db] : databases_) {
    if (db.dropped) continue;
    out.push_back({.name = name, .id = db.id, .position = db.position, .readable = readable});
    if (!readable) out.back().id = DatabaseId{};
  }
  return out;
}

std::optional<PrimaryDatabase> TestPrimary::database(const std::string& name) {
  for (const PrimaryDatabase& database : databases()) {
    if (database.name == name) return database;
  }
  return std::nullopt;
}

std::unique_ptr<LogHold> TestPrimary::hold_log(const std::string&, DatabaseId, TxId) {
  return std::make_unique<TestHold>(held_through);
}

void TestPrimary::open_feed(const std::string& name, DatabaseId id, const Position& position, FeedDone done) {
  ++feeds;
  workers_.post([this, name, id, position, done] {
    auto open = [&]() -> Result<std::unique_ptr<LogFeed>> {
      MutexLock lock(mutex_);
      if (fail_feeds) return Error(ErrorCode::kIo, "the disk of this test is broken");
      auto found = databases_.find(name);
      if (found == databases_.end()) return Error(ErrorCode::kNotFound, "no such database");
      Db& db = found->second;
      if (id != db.id) return Error(ErrorCode::kDiverged, "another database");
      if (!db.log->last() && position != db.position) {
        return Error(ErrorCode::kNotFound, "the log is empty");
      }
      std::unique_ptr<LogCursor> cursor = TRY(db.log->read_after(position));
      return std::unique_ptr<LogFeed>(std::make_unique<TestFeed>(*this, std::move(cursor)));
    };
    auto answer = std::make_shared<Result<std::unique_ptr<LogFeed>>>(open());
    thread_.loop().post([answer, done] { done(std::move(*answer)); });
  });
}

void TestPrimary::start_snapshot(const std::string& name, bool compares, SnapshotDone done) {
  ++snapshots;
  workers_.post([this, name, compares, done] {
    auto answer = std::make_shared<Result<SnapshotStart>>(Error(ErrorCode::kNotFound, "no database"));
    {
      MutexLock lock(mutex_);
      auto found = databases_.find(name);
      if (found != databases_.end() && !found->second.dropped) {
        const Db& db = found->second;
        *answer = SnapshotStart{.id = db.id,
                                .start = db.position,
                                .estimated_bytes = snapshot_bytes,
                                .page_size = 4096,
                                .size_pages = 1000,
                                .feed = std::make_unique<TestSnapshot>(*this, db.position, snapshot_bytes, compares)};
      }
    }
    thread_.loop().post([answer, done] { done(std::move(*answer)); });
  });
}

void TestPrimary::replica_joined(const NodeIdentity&) {
  signal_.change([this] { ++replicas_; });
}

void TestPrimary::replica_left(const NodeIdentity&, const Status&) {
  signal_.change([this] { --replicas_; });
}

void TestPrimary::replica_acked(NodeId, const std::string&, TxId, TxId) {}

void TestPrimary::higher_epoch_seen(Epoch epoch, NodeId) { epoch_seen = epoch.value; }

// ---- replica
// ----------------------------------------------------------------------------------------

namespace {

constexpr size_t kHeadBytes = 1u << 20;  // a record up to this is kept and verified whole
constexpr size_t kTailBytes = RecordTrailer::kBytes;

// A long record's beginning and end; the middle is not asked for.
class EndsSource final : public RecordSource {
 public:
  EndsSource(ByteView head, ByteView tail, uint64_t bytes) : head_(head), tail_(tail), bytes_(bytes) {}
  Status read(uint64_t offset, MutableByteView out) override {
    uint64_t tail_at = bytes_ - tail_.size();
    if (offset + out.size() <= head_.size()) {
      std::copy_n(head_.begin() + static_cast<ptrdiff_t>(offset), out.size(), out.begin());
    } else if (offset >= tail_at) {
      std::copy_n(tail_.begin() + static_cast<ptrdiff_t>(offset - tail_at), out.size(), out.begin());
    } else {
      return Error(ErrorCode::kCorrupt, "not kept");
    }
    return {};
  }
  uint64_t size_bytes() const override { return bytes_; }

 private:
  ByteView head_;
  ByteView tail_;
  uint64_t bytes_;
};

}  // namespace

TestReplica::TestReplica(const TestReplicaOptions& options, std::shared_ptr<LogSink> sink)
    : options_(options), log_(std::move(sink)) {
  thread_.call([this] {
    connector_ = std::make_unique<ReplicaConnector>(thread_.loop(), *this, *clock_, *random_, log_, options_.connector);
  });
}

TestReplica::~TestReplica() {
  thread_.call([this] { connector_.reset(); });
}

void TestReplica::follow(const std::string& address) {
  thread_.call([&] { connector_->follow(address); });
}

void TestReplica::disconnect() {
  thread_.call([this] {
    if (connector_->session()) connector_->session()->failed(Error(ErrorCode::kIo, "pulled the plug"));
  });
}

bool TestReplica::wait_position(const std::string& name, const Position& position) {
  return signal_.wait([&] { return dbs[name].position == position; });
}

TestReplica::Db TestReplica::db(const std::string& name) {
  Db out;
  signal_.change([&] { out = dbs[name]; });
  return out;
}

void TestReplica::set_db(const std::string& name, const Db& db) {
  signal_.change([&] { dbs[name] = db; });
}

NodeIdentity TestReplica::identity() { return options_.identity; }

std::vector<wire::DatabaseHeld> TestReplica::databases() {
  std::vector<wire::DatabaseHeld> out;
  signal_.change([&] {
    for (const auto& [name, db] : dbs) {
      if (db.id.value != 0) out.push_back({.name = name, .id = db.id, .position = db.position});
    }
  });
  return out;
}

Status TestReplica::session_welcomed(ReplicaSession& session, const wire::Welcome&) {
  session_ = &session;
  partial_.clear();
  signal_.change([this] { ++sessions; });
  return {};
}

Status TestReplica::database_started(const DatabaseStart& start) {
  Status out;
  indexes_[start.name] = start.index;
  signal_.change([&] {
    if (start.how == wire::DatabaseHow::kUnknown) {
      unknown.insert(start.name);
      dbs.erase(start.name);
      return;
    }
    Db& db = dbs[start.name];
    if (start.how != wire::DatabaseHow::kContinue) {
      ++db.snapshots;
      db.differences += start.how == wire::DatabaseHow::kDifference;
      db.reason = start.reason;
      db.id = start.id;
      return;
    }
    if (db.id != start.id) db = Db{};
    db.id = start.id;
    if (db.position != start.from) out = Error(ErrorCode::kDiverged, start.name + " stands elsewhere");
  });
  return out;
}

Status TestReplica::log_piece(const std::string& name, const IncomingPiece& piece) {
  Partial& p = partial_[name];
  if (piece.begins) p = Partial{};
  p.bytes += piece.bytes.size();
  size_t room = kHeadBytes - std::min(kHeadBytes, p.head.size());
  ByteView kept = piece.bytes.first(std::min(room, piece.bytes.size()));
  p.head.insert(p.head.end(), kept.begin(), kept.end());
  p.tail.insert(p.tail.end(), piece.bytes.begin(), piece.bytes.end());
  if (p.tail.size() > kTailBytes) p.tail.erase(p.tail.begin(), p.tail.end() - kTailBytes);
  if (on_piece) on_piece(*session_);
  return piece.ends ? record_complete(name, p, p.bytes) : Status();
}

Status TestReplica::record_complete(const std::string& name, const Partial& record, uint64_t bytes) {
  EndsSource source(record.head, record.tail, bytes);
  RecordReader reader = TRY(RecordReader::open(source));
  if (bytes <= record.head.size()) TRY(reader.verify());
  const RecordHeader& header = reader.header();
  Status out;
  signal_.change([&] {
    Db& db = dbs[name];
    bool follows = header.before == db.position.checksum && header.txid_first.value == db.position.txid.value + 1 &&
                   header.database == db.id;
    if (!follows) {
      out = Error(ErrorCode::kDiverged, name + ": TXID " + hex16(header.txid_first.value) + " does not follow on " +
                                            position_text(db.position));
      return;
    }
    db.position = {header.epoch, header.txid_last, reader.after()};
    ++db.records;
    applied_[name] = db.position.txid;
    if (header.flags & RecordHeader::kDrop) dbs.erase(name);
  });
  return out;
}

Status TestReplica::snapshot_begin(const std::string& name, const IncomingSnapshot& snapshot) {
  partial_[name] = Partial{};
  partial_[name].snapshot_start = snapshot.start;
  return {};
}

Status TestReplica::sums_wanted(const std::string& name, const SumsQuestion& question) {
  if (on_question) {
    on_question(*session_, indexes_[name], question);
    return {};
  }
  std::vector<Checksum> sums;
  for (size_t i = 0; i < question.answer_sums(); ++i) sums.push_back(Checksum{i + 1});
  session_->answer_sums(indexes_[name], std::move(sums));
  return {};
}

Status TestReplica::snapshot_piece(const std::string& name, ByteView bytes) {
  partial_[name].bytes += bytes.size();
  if (on_piece) on_piece(*session_);
  return {};
}

Status TestReplica::snapshot_end(const std::string& name, const Position& consistent_at) {
  signal_.change([&] {
    Db& db = dbs[name];
    db.position = partial_[name].snapshot_start;
    db.consistent_at = consistent_at;
    applied_[name] = db.position.txid;
  });
  return {};
}

void TestReplica::database_ended(const std::string& name, wire::EndReason, const std::string&) {
  partial_.erase(name);
  applied_.erase(name);
}

void TestReplica::primary_position(const std::string& name, const Position& position, TxId) {
  signal_.change([&] { dbs[name].primary = position; });
}

void TestReplica::turn_ended() {
  if (hold_acks) return;
  for (const auto& [name, txid] : applied_) session_->applied(name, txid, txid);
  applied_.clear();
}

void TestReplica::refused(const wire::Refuse& said) {
  signal_.change([&] { refuse = said; });
}

void TestReplica::goodbye(const wire::Goodbye& said) {
  signal_.change([&] { farewell = said; });
}

void TestReplica::session_ended(const Status& why) {
  session_ = nullptr;
  signal_.change([&] {
    ++ended;
    error = why.ok() ? "" : why.error().message();
  });
}

}  // namespace litefs::test
