// A real file system with faults put into it: the Nth operation fails, or the process "dies" there.
//
// Operations are counted from 1: those of the kinds in `FaultPlan::kinds`, by default all that
// change something on the disk. A death throws Killed through the code under test; afterwards
// nothing reaches the disk any more (operations answer kCancelled, so that destructors may run),
// and the test opens the files anew with another FileSystem, as a new process would. What was
// written stays, as after SIGKILL: no power cut is simulated. So syncs are counted and may fail,
// but are not passed on: they would only cost time. Stores through a mapping are not operations: a
// dead process must not make any.
//
// To kill at every point of a story, run it once to count, then once for each number:
//
//   for (uint64_t n = 1; n <= operations_of_the_story; ++n) {
//     FaultyFileSystem files(*real);
//     files.plan({.at = n, .action = FaultAction::kKillBefore});
//     CHECK_THROWS_AS(story(files), Killed);
//     … recover with *real and check …
//   }
//
// Thread rule: any thread; plan() before the threads that use it. Mappings, locks and
// check_no_writers() pass through uncounted, but for Mapping::sync.
#pragma once

#include <atomic>
#include <stdexcept>
#include <string>

#include "base/mutex.h"
#include "env/file.h"

namespace litefs::test {

class Killed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum FaultKind : unsigned {
  kFaultOpen = 1,  // with a mode that may create
  kFaultRead = 2,
  kFaultWrite = 4,
  kFaultTruncate = 8,
  kFaultSync = 16,  // of a file, a directory, a mapping
  kFaultRemove = 32,
  kFaultRename = 64,
  kFaultDirectory = 128,  // make_directories
  kFaultChanges =
      kFaultOpen | kFaultWrite | kFaultTruncate | kFaultSync | kFaultRemove | kFaultRename | kFaultDirectory,
};

enum class FaultAction {
  kFail,        // an error, nothing done
  kFailHalf,    // an error; of a write the first half was done
  kKillBefore,  // death, nothing done
  kKillHalf,    // death; of a write the first half was done
  kKillAfter,   // death, all done
};

struct FaultPlan {
  uint64_t at = 0;  // 0: never
  FaultAction action = FaultAction::kFail;
  ErrorCode error = ErrorCode::kNoSpace;
  unsigned kinds = kFaultChanges;
  bool stays = false;  // failing: later operations fail too
};

class FaultyFileSystem final : public FileSystem {
 public:
  explicit FaultyFileSystem(FileSystem& real) : real_(real) {}

  // Counts from 1 again.
  void plan(const FaultPlan& plan) {
    plan_ = plan;
    count_ = 0;
  }
  // Operations of the planned kinds since plan().
  uint64_t operations() const { return count_; }
  bool dead() const { return dead_; }
  // A new process takes over what the dead one left; without faults until plan().
  void revive() {
    plan({});
    dead_ = false;
  }

  Result<std::unique_ptr<litefs::File>> open(const std::string& path, OpenMode mode) override {
    bool may_create = mode == OpenMode::kCreate || mode == OpenMode::kCreateNew;
    std::unique_ptr<litefs::File> file = TRY(run(
        may_create ? kFaultOpen : 0u, "open " + path, [&] { return real_.open(path, mode); }, [] {}));
    return std::unique_ptr<litefs::File>(new FaultyFile(*this, std::move(file)));
  }
  Result<FileInfo> info(const std::string& path) override { return real_.info(path); }
  Status remove(const std::string& path) override {
    return run(
        kFaultRemove, "remove " + path, [&] { return real_.remove(path); }, [] {});
  }
  Status rename(const std::string& from, const std::string& to) override {
    return run(
        kFaultRename, "rename " + from, [&] { return real_.rename(from, to); }, [] {});
  }
  Status set_owner(const std::string& path, uint32_t uid, uint32_t gid, uint32_t mode) override {
    return real_.set_owner(path, uid, gid, mode);
  }
  Status make_directories(const std::string& path) override {
    return run(
        kFaultDirectory, "create " + path, [&] { return real_.make_directories(path); }, [] {});
  }
  Result<std::vector<std::string>> list(const std::string& path) override { return real_.list(path); }
  Status sync_directory(const std::string& path) override {
    return run(
        kFaultSync, "sync " + path, [] { return Status(); }, [] {});
  }

 private:
  class FaultyMapping final : public Mapping {
   public:
    FaultyMapping(FaultyFileSystem& files, std::unique_ptr<Mapping> real) : files_(files), real_(std::move(real)) {}
    uint8_t* data() override { return real_->data(); }
    size_t size() const override { return real_->size(); }
    Status sync() override {
      return files_.run(
          kFaultSync, "sync a mapping", [] { return Status(); }, [] {});
    }

   private:
    FaultyFileSystem& files_;
    std::unique_ptr<Mapping> real_;
  };

  class FaultyFile final : public litefs::File {
   public:
    FaultyFile(FaultyFileSystem& files, std::unique_ptr<litefs::File> real) : files_(files), real_(std::move(real)) {}
    Result<size_t> read_at(uint64_t offset_bytes, MutableByteView out) override {
      return files_.run(
          kFaultRead, "read " + path(), [&] { return real_->read_at(offset_bytes, out); }, [] {});
    }
    Status write_at(uint64_t offset_bytes, ByteView data) override {
      return files_.run(
          kFaultWrite, "write " + path(), [&] { return real_->write_at(offset_bytes, data); },
          [&] { (void)real_->write_at(offset_bytes, data.first(data.size() / 2)).ok(); });
    }
    Status truncate(uint64_t size_bytes) override {
      return files_.run(
          kFaultTruncate, "truncate " + path(), [&] { return real_->truncate(size_bytes); }, [] {});
    }
    Status allocate(uint64_t offset_bytes, uint64_t size_bytes) override {
      return files_.run(
          kFaultWrite, "allocate " + path(), [&] { return real_->allocate(offset_bytes, size_bytes); }, [] {});
    }
    Status clone_from(litefs::File& source) override {
      return files_.run(
          kFaultWrite, "clone " + path(), [&] { return real_->clone_from(source); }, [] {});
    }
    Status sync() override {
      return files_.run(
          kFaultSync, "sync " + path(), [] { return Status(); }, [] {});
    }
    Result<FileInfo> info() override { return real_->info(); }
    Result<std::unique_ptr<Mapping>> map(uint64_t offset_bytes, size_t size, bool writable) override {
      std::unique_ptr<Mapping> mapping = TRY(real_->map(offset_bytes, size, writable));
      return std::unique_ptr<Mapping>(new FaultyMapping(files_, std::move(mapping)));
    }
    Status try_lock(uint64_t start, uint64_t length, LockKind kind) override {
      return real_->try_lock(start, length, kind);
    }
    Status check_no_writers() override { return real_->check_no_writers(); }
    int fd() const override { return real_->fd(); }
    const std::string& path() const override { return real_->path(); }

   private:
    FaultyFileSystem& files_;
    std::unique_ptr<litefs::File> real_;
  };

  // Does `whole`, or what the plan says; `half` is what a fault leaves of it.
  template <class Whole, class Half>
  auto run(unsigned kind, const std::string& what, Whole whole, Half half) -> decltype(whole()) {
    if (dead_ && (kind & kFaultChanges)) return Error(ErrorCode::kCancelled, what + ": this process is dead");
    if (!(kind & plan_.kinds)) return whole();
    uint64_t number = ++count_;
    bool hit = plan_.at != 0 && (number == plan_.at || (plan_.stays && number > plan_.at));
    if (!hit) return whole();
    const std::string where = "operation " + std::to_string(number) + ", " + what;
    switch (plan_.action) {
      case FaultAction::kFailHalf: half(); [[fallthrough]];
      case FaultAction::kFail: return Error(plan_.error, "injected fault: " + where);
      case FaultAction::kKillHalf: half(); break;
      case FaultAction::kKillAfter: (void)whole().ok(); break;
      case FaultAction::kKillBefore: break;
    }
    dead_ = true;
    throw Killed("killed at " + where);
  }

  FileSystem& real_;
  FaultPlan plan_;
  std::atomic<uint64_t> count_{0};
  std::atomic<bool> dead_{false};
};

}  // namespace litefs::test
