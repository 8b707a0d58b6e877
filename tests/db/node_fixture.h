// One node's store on plain files, without a mount or a network: a test calls what the front ends would call.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "db/control.h"
#include "db/store.h"
#include "shell.h"
#include "sqlite/header.h"

namespace litefs::test {

class StderrSink final : public LogSink {
 public:
  void write(LogLevel level, std::string_view line) override {
    if (std::getenv("LITEFS_TEST_LOG"))
      std::fprintf(stderr, "%s %.*s\n", log_level_name(level), static_cast<int>(line.size()), line.data());
  }
};

class TestNode : private DatabaseObserver, private LockDoors {
 public:
  // `files`: in place of the operating system's, for faults.
  explicit TestNode(const std::string& directory, FileSystem* files = nullptr, NodeId node = NodeId{7})
      : directory_(directory), faults_(files), node_(node) {
    open();
  }

  // As a fresh start of the process: everything in memory is forgotten.
  void restart() {
    store_.reset();
    batches_.clear();
    open();
  }
  std::shared_ptr<Database> database(const std::string& name) { return store_->find_or_create(name).value(); }
  std::shared_ptr<Database> start_primary(const std::string& name, uint64_t epoch) {
    auto db = database(name);
    REQUIRE(db->fence().ok());
    Status started = db->start_primary(Epoch{epoch});
    INFO((started.ok() ? "" : started.error().message()));
    REQUIRE(started.ok());
    return db;
  }
  // While others go on using the files.
  std::shared_ptr<Database> take_over(const std::string& name, uint64_t epoch) {
    auto db = database(name);
    Status started = db->start_live_primary(Epoch{epoch});
    INFO((started.ok() ? "" : started.error().message()));
    REQUIRE(started.ok());
    return db;
  }
  std::shared_ptr<Database> take_over_replica(const std::string& name) {
    auto db = database(name);
    Status started = db->start_live_replica();
    INFO((started.ok() ? "" : started.error().message()));
    REQUIRE(started.ok());
    return db;
  }
  std::shared_ptr<Database> start_replica(const std::string& name) {
    auto db = database(name);
    REQUIRE(db->fence().ok());
    Status started = db->start_replica();
    INFO((started.ok() ? "" : started.error().message()));
    REQUIRE(started.ok());
    Status attached = db->attach();
    INFO((attached.ok() ? "" : attached.error().message()));
    REQUIRE(attached.ok());
    return db;
  }
  std::vector<std::string> names() {
    std::vector<std::string> names;
    for (const std::shared_ptr<Database>& database : store_->all()) names.push_back(database->name());
    return names;
  }
  Store& store() { return *store_; }
  std::string file(const std::string& name) const { return directory_ + "/db/" + name; }
  std::deque<CapturedBatch>& batches() { return batches_; }
  const std::string& directory() const { return directory_; }
  std::function<void(std::function<void()>)> run_later{};  // from the next restart() on

  // The checksum of a database's pages, computed apart from everything else, from a copy by SQLite's backup API. That
  // sets the copy's schema version, which is put back first.
  static Checksum content_checksum(const std::string& copy, uint32_t schema_version) {
    auto files = posix_file_system();
    Bytes all = files->read_all(copy, 1u << 30).value();
    DatabaseHeader header = DatabaseHeader::parse(all).value();
    store_be32(all.data() + 40, schema_version);
    Checksum sum;
    for (Pgno p = 1; p <= all.size() / header.page_size; ++p) {
      if (p == lock_page(header.page_size)) continue;
      MutableByteView page(all.data() + static_cast<size_t>(p - 1) * header.page_size, header.page_size);
      if (p == 1) mask_local_bytes(page);
      sum ^= page_hash(p, page);
    }
    return sum;
  }

 private:
  void open() {
    DatabaseEnvironment environment{
        faults_ ? *faults_ : *files_, *clock_, *random_, Log(sink_, LogLevel::kDebug), directory_, node_, *this, *this};
    environment.run_later = run_later;
    store_ = std::make_unique<Store>(environment);
    Status opened = store_->open();
    REQUIRE(opened.ok());
  }
  void committed(const std::string&, CapturedBatch batch) override { batches_.push_back(std::move(batch)); }
  void changed(const std::string&) override {}
  Status file_resized(const std::string&) override { return {}; }
  void file_created(const std::string&) override {}
  void file_removed(const std::string&) override {}
  Result<std::unique_ptr<LockDoor>> open(const std::string& name) override {
    return direct_lock_door(*files_, file(name));
  }

  std::string directory_;
  FileSystem* faults_;
  NodeId node_;
  std::unique_ptr<FileSystem> files_ = posix_file_system();
  std::unique_ptr<Clock> clock_ = system_clock();
  std::unique_ptr<Random> random_ = system_random();
  std::shared_ptr<LogSink> sink_ = std::make_shared<StderrSink>();
  std::unique_ptr<Store> store_;
  std::deque<CapturedBatch> batches_;
};

// As if the machine had been started again since.
inline void put_on_another_boot(const std::string& control_path) {
  auto files = posix_file_system();
  std::unique_ptr<Control> control = std::move(Control::open(*files, control_path)).value();
  ControlState state = control->state();
  state.boot = state.boot ^ 1;
  control->store(state);
}

}  // namespace litefs::test
