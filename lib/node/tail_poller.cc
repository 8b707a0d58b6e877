#include "node/tail_poller.h"

#include <algorithm>

#include "env/worker_pool.h"

namespace litefs {
namespace {

constexpr int64_t kPollUs = 60;
constexpr int64_t kPollMaxUs = 500;
constexpr int64_t kIdleAfterNs = 50'000'000;
constexpr int64_t kAfterFailureNs = 1'000'000'000;
// An idle node looks at its files this often even if no watch fired, in case a file system raises no events.
constexpr int kWatchMaxMs = 1000;

// Where nothing has come for a while. (At each poll the second question would cost a database in WAL some percent.)
Result<bool> poll_at_rest(Database& database) {
  if (TRY(database.poll())) return true;
  Result<bool> unjournaled = database.capture_unjournaled();
  // A writer is at work: it will be looked at again.
  if (!unjournaled.ok() && unjournaled.error().code() == ErrorCode::kBusy) return false;
  return unjournaled;
}

}  // namespace

struct TailPoller::Followed {
  std::shared_ptr<Database> database;
  bool active = true;
  int64_t last_new_ns = 0;
  int64_t not_before_ns = 0;  // after a failure
  bool failing = false;
  int watch = -1;
  int watched_fd = -1;
};

TailPoller::TailPoller(Clock& clock, const Log& log, std::unique_ptr<WriteWatch> watch)
    : clock_(clock), log_(log), watch_(std::move(watch)) {}

Result<std::unique_ptr<TailPoller>> TailPoller::start(Clock& clock, const Log& log) {
  std::unique_ptr<WriteWatch> watch = TRY(WriteWatch::create());
  auto poller = std::unique_ptr<TailPoller>(new TailPoller(clock, log, std::move(watch)));
  poller->thread_ = std::thread([p = poller.get()] { p->run(); });
  return poller;
}

TailPoller::~TailPoller() { stop(); }

void TailPoller::touch(std::shared_ptr<Database> database) {
  {
    MutexLock lock(mutex_);
    touched_.insert(std::move(database));
  }
  watch_->wake();
}

void TailPoller::stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  watch_->wake();
  if (thread_.joinable()) thread_.join();
}

void TailPoller::take_touched() {
  std::set<std::shared_ptr<Database>> touched;
  {
    MutexLock lock(mutex_);
    touched.swap(touched_);
  }
  for (const std::shared_ptr<Database>& database : touched) {
    auto it = std::find_if(followed_.begin(), followed_.end(),
                           [&](const auto& followed) { return followed->database == database; });
    if (it == followed_.end()) {
      followed_.push_back(std::make_unique<Followed>());
      it = followed_.end() - 1;
      (*it)->database = database;
    }
    disarm(**it);
    (*it)->active = true;
    (*it)->last_new_ns = clock_.monotonic_ns();
  }
}

void TailPoller::arm(Followed& followed) {
  int fd = followed.database->watched_descriptor();
  if (fd < 0) return;
  Result<int> watch = watch_->add(fd);
  if (watch.ok()) {
    followed.watch = watch.value();
  } else {
    log_.warning("cannot watch a file; looking at it each second")
        .kv("database", followed.database->name())
        .error(watch.error());
  }
}

void TailPoller::disarm(Followed& followed) {
  if (followed.watch >= 0) watch_->remove(followed.watch);
  followed.watch = -1;
}

// Answers whether any active database had something new.
bool TailPoller::poll_active() {
  bool any = false;
  int64_t now_ns = clock_.monotonic_ns();
  for (const auto& followed : followed_) {
    if (!followed->active || now_ns < followed->not_before_ns) continue;
    Result<bool> polled = followed->database->poll();
    if (polled.ok()) {
      if (followed->failing) log_.info("capture works again").kv("database", followed->database->name());
      followed->failing = false;
      if (polled.value()) {
        followed->last_new_ns = now_ns;
        any = true;
      }
      continue;
    }
    followed->not_before_ns = now_ns + kAfterFailureNs;
    if (!followed->failing) {
      log_.error("capture failed").kv("database", followed->database->name()).error(polled.error());
    }
    followed->failing = true;
  }
  return any;
}

void TailPoller::run() {
  name_thread("tail");
  precise_sleeps();
  int64_t pause_us = kPollUs;
  for (;;) {
    take_touched();
    {
      MutexLock lock(mutex_);
      if (stopping_) break;
    }
    bool any = poll_active();
    int64_t now_ns = clock_.monotonic_ns();
    bool active = false;
    for (const auto& followed : followed_) {
      if (!followed->active) continue;
      if (now_ns - followed->last_new_ns <= kIdleAfterNs) {
        active = true;
        continue;
      }
      // Arm first, then look once more: what came in between raises no event.
      arm(*followed);
      Result<bool> polled = poll_at_rest(*followed->database);
      if (polled.ok() && polled.value()) {
        disarm(*followed);
        followed->last_new_ns = now_ns;
        active = true;
      } else {
        followed->active = false;
      }
    }
    if (active) {
      pause_us = any ? kPollUs : std::min(pause_us * 2, kPollMaxUs);
      sleep_us(pause_us);
      continue;
    }
    pause_us = kPollUs;
    std::vector<int> written = watch_->wait(followed_.empty() ? -1 : kWatchMaxMs);
    now_ns = clock_.monotonic_ns();
    for (const auto& followed : followed_) {
      bool fired = std::find(written.begin(), written.end(), followed->watch) != written.end();
      if (!fired && !written.empty()) continue;
      // The event comes before the transaction is published, so it is followed by polls for a while.
      disarm(*followed);
      followed->active = true;
      followed->last_new_ns = fired ? now_ns : now_ns - kIdleAfterNs - 1;
    }
  }
  for (const auto& followed : followed_) disarm(*followed);
}

}  // namespace litefs
