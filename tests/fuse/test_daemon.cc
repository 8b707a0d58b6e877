#include "test_daemon.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "base/mutex.h"

namespace litefs::test {

namespace {

// A held hook goes on by itself when its test has failed.
constexpr std::chrono::seconds kHoldMax{30};

class StderrSink final : public LogSink {
 public:
  void write(LogLevel level, std::string_view line) override {
    if (level < LogLevel::kWarning) return;
    std::fprintf(stderr, "  daemon: %s %.*s\n", log_level_name(level), static_cast<int>(line.size()), line.data());
  }
};

ErrorCode parse_code(const std::string& name) {
  for (int code = 0; code <= static_cast<int>(ErrorCode::kCancelled); ++code) {
    if (name == error_code_name(static_cast<ErrorCode>(code))) return static_cast<ErrorCode>(code);
  }
  return ErrorCode::kInvalid;
}

std::string text_of(const Status& status) {
  if (status) return "ok";
  return std::string(error_code_name(status.error().code())) + ": " + status.error().message();
}

// By which a test names a file: super-journals have random names, so they go by "NAME-mj".
std::string key_name(const FileName& file) {
  return file.kind == FileKind::kSuperJournal ? file.database + "-mj" : file.text();
}

class TestHooks final : public MountHooks {
 public:
  using Key = std::pair<std::string, std::string>;  // hook, name

  void before_open(const Opening& opening, std::function<void(Status)> done) override {
    Key key("open", key_name(opening.file));
    Status refused;
    {
      MutexLock lock(mutex_);
      ++counts_[key];
      if (holds_.contains(key)) {
        undecided_.push_back(std::move(done));
        changed_.notify_all();
        return;
      }
      refused = refusal(key);
    }
    done(refused);
  }
  void opened(const FileName& file, const HowOpened&) override { (void)enter("opened", file); }
  void closed(const FileName& file) override { (void)enter("closed", file); }
  Status before_write(const FileName& file, uint64_t, ByteView) override { return enter("write", file); }
  Status before_resize(const FileName& file, uint64_t) override { return enter("resize", file); }
  Status before_sync(const FileName& file) override { return enter("sync", file); }
  void after_sync(const FileName& file, const Status&) override { (void)enter("synced", file); }
  Status before_unlink(const FileName& file) override { return enter("unlink", file); }
  void after_unlink(const FileName& file) override { (void)enter("unlinked", file); }
  Status may_rename(const Renaming& renaming) override {
    if (renaming.exists) return Error(ErrorCode::kExists, renaming.to.text() + " exists");
    return {};
  }
  Status before_rename(const Renaming& renaming) override { return enter("rename", renaming.from); }
  void after_rename(const Renaming& renaming) override { (void)enter("renamed", renaming.to); }
  Status before_mkdir(const std::string& name) override { return enter("mkdir", {name}); }
  Status before_rmdir(const std::string& name) override { return enter("rmdir", {name}); }
  bool is_virtual_name(const std::string& name) override { return name == ".primary" || name.ends_with("-pos"); }
  Result<std::optional<std::string>> virtual_file(const std::string& name) override {
    MutexLock lock(mutex_);
    auto it = virtual_.find(name);
    if (it == virtual_.end()) return std::optional<std::string>();
    return std::optional<std::string>(it->second);
  }
  std::vector<std::string> virtual_names() override {
    MutexLock lock(mutex_);
    std::vector<std::string> names;
    for (const auto& [name, text] : virtual_) {
      if (name.find('/') == std::string::npos) names.push_back(name);
    }
    return names;
  }
  bool is_visible(const FileName& file) override {
    MutexLock lock(mutex_);
    return !hidden_.contains(file.database);
  }

  bool is_settled(const FileName&) override { return true; }
  bool may_pass_through(const FileName&) override { return false; }

  int count(const Key& key) {
    MutexLock lock(mutex_);
    return counts_[key];
  }
  void refuse(const Key& key, ErrorCode code) {
    MutexLock lock(mutex_);
    refusals_[key] = code;
  }
  void allow() {
    MutexLock lock(mutex_);
    refusals_.clear();
  }
  void hold(const Key& key) {
    MutexLock lock(mutex_);
    holds_.insert(key);
  }
  bool await_held(size_t wanted) {
    Deadline deadline = deadline_in(std::chrono::seconds(5));
    MutexLock lock(mutex_);
    while (held_ + undecided_.size() < wanted) {
      if (!changed_.wait_until(mutex_, deadline)) return held_ + undecided_.size() >= wanted;
    }
    return true;
  }
  void let() {
    std::vector<std::function<void(Status)>> undecided;
    {
      MutexLock lock(mutex_);
      holds_.clear();
      undecided.swap(undecided_);
      changed_.notify_all();
    }
    for (auto& done : undecided) done(Status());
  }
  void set_hidden(const std::string& database, bool hidden) {
    MutexLock lock(mutex_);
    if (hidden) {
      hidden_.insert(database);
    } else {
      hidden_.erase(database);
    }
  }
  void set_virtual(const std::string& name, const std::string& text) {
    MutexLock lock(mutex_);
    if (text.empty()) {
      virtual_.erase(name);
    } else {
      virtual_[name] = text;
    }
  }

 private:
  Status refusal(const Key& key) REQUIRES(mutex_) {
    auto it = refusals_.find(key);
    if (it == refusals_.end()) return {};
    return Error(it->second, "refused by the test");
  }
  Status enter(const char* hook, const FileName& file) {
    Key key(hook, key_name(file));
    Deadline deadline = deadline_in(kHoldMax);
    MutexLock lock(mutex_);
    ++counts_[key];
    if (holds_.contains(key)) {
      ++held_;
      changed_.notify_all();
      while (holds_.contains(key) && changed_.wait_until(mutex_, deadline)) {
      }
      --held_;
    }
    return refusal(key);
  }

  Mutex mutex_;
  CondVar changed_;
  std::map<Key, int> counts_ GUARDED_BY(mutex_);
  std::map<Key, ErrorCode> refusals_ GUARDED_BY(mutex_);
  std::set<Key> holds_ GUARDED_BY(mutex_);
  size_t held_ GUARDED_BY(mutex_) = 0;
  std::vector<std::function<void(Status)>> undecided_ GUARDED_BY(mutex_);
  std::set<std::string> hidden_ GUARDED_BY(mutex_);
  std::map<std::string, std::string> virtual_ GUARDED_BY(mutex_);
};

class TestDaemon {
 public:
  TestDaemon(Mount& mount, TestHooks& hooks) : mount_(mount), hooks_(hooks) {}

  std::string obey(const std::string& line) {
    std::istringstream words(line);
    std::string verb, a, b, c;
    words >> verb >> a >> b >> c;
    if (verb == "count") return std::to_string(hooks_.count({a, b}));
    if (verb == "refuse") {
      std::string rest;
      std::getline(words, rest);
      hooks_.refuse({a, b}, parse_code(c + rest));
    } else if (verb == "allow") {
      hooks_.allow();
    } else if (verb == "hold") {
      hooks_.hold({a, b});
    } else if (verb == "held") {
      return hooks_.await_held(std::stoul(a)) ? "ok" : "not held";
    } else if (verb == "let") {
      hooks_.let();
    } else if (verb == "hide" || verb == "show") {
      hooks_.set_hidden(a, verb == "hide");
    } else if (verb == "virtual") {
      hooks_.set_virtual(a, b);
    } else {
      return ask_mount(verb, a, b, c, words);
    }
    return "ok";
  }

 private:
  std::string ask_mount(const std::string& verb, const std::string& a, const std::string& b, const std::string& c,
                        std::istringstream& words) {
    if (verb == "notify") {
      Notifier::Change change = a == "entry"        ? Notifier::Change::kEntry
                                : a == "attributes" ? Notifier::Change::kAttributes
                                                    : Notifier::Change::kData;
      return text_of(mount_.notifier().invalidate(change, b, deadline_in(std::chrono::milliseconds(std::stol(c)))));
    }
    if (verb == "door") {
      Result<std::unique_ptr<LockDoor>> door = mount_.client().lock_door(a);
      if (!door) return text_of(door.error());
      door_ = std::move(door).value();
      return "ok";
    }
    if (verb == "opening") {
      std::thread([this, a] { (void)mount_.client().lock_door(a); }).detach();
      return "ok";
    }
    if (verb == "close") {
      door_.reset();
      return "ok";
    }
    if (verb == "lock") {
      std::string kind;
      words >> kind;
      return text_of(door_->try_lock(a == "shm" ? LockFile::kShm : LockFile::kDatabase, std::stoull(b), std::stoull(c),
                                     kind == "shared"      ? LockKind::kShared
                                     : kind == "exclusive" ? LockKind::kExclusive
                                                           : LockKind::kNone));
    }
    if (verb == "threads") return std::to_string(mount_.serving_threads());
    if (verb == "nodes") return std::to_string(mount_.known_nodes());
    if (verb == "fds") {
      auto all = std::filesystem::directory_iterator("/proc/self/fd");
      return std::to_string(std::distance(begin(all), end(all)));
    }
    if (verb == "stop") return text_of(mount_.stop());
    return "what?";
  }

  Mount& mount_;
  TestHooks& hooks_;
  std::unique_ptr<LockDoor> door_;
};

}  // namespace

void run_test_daemon(int socket, const MountOptions& options) {
  auto hooks = std::make_shared<TestHooks>();
  Result<std::unique_ptr<Mount>> mount = Mount::start(options, hooks, Log(std::make_shared<StderrSink>()));
  std::string hello = mount ? "ready" : text_of(mount.error());
  (void)send(socket, hello.data(), hello.size(), MSG_NOSIGNAL);
  if (!mount) _exit(1);
  TestDaemon daemon(*mount.value(), *hooks);
  char line[4096];
  for (;;) {
    ssize_t n = recv(socket, line, sizeof line, 0);
    if (n <= 0) break;
    std::string answer = daemon.obey(std::string(line, static_cast<size_t>(n)));
    if (send(socket, answer.data(), answer.size(), MSG_NOSIGNAL) < 0) break;
  }
  _exit(0);
}

}  // namespace litefs::test
