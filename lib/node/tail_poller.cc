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
// How long the next commit that is told of need not wake the thread.
constexpr int64_t kAwakeNs = 400'000;

// Where nothing has come for a while. (At each poll the second question would cost a database in WAL some percent.)
Result<bool> poll_at_rest(Database& database) {
  if (TRY(database.poll())) return true;
  Result<bool> unjournaled = database.capture_unjournaled();
  // A writer is at work: it will be looked at again.
  if (!unjournaled.ok() && unjournaled.error().code() == ErrorCode::kBusy) return false;
  return unjournaled;
}

}  // namespace

void CommitSignal::committed() {
  pending_ = true;
  if (sleep_->asleep) sleep_->watch->wake();
}

struct TailPoller::Followed {
  std::shared_ptr<Database> database;
  std::shared_ptr<CommitSignal> signal;  // null: nobody tells of its commits
  bool by_others = false;                // some come from who does not tell
  bool active = false;
  int64_t last_new_ns = 0;
  int64_t not_before_ns = 0;  // after a failure
  bool failing = false;
  int watch = -1;

  bool all_told() const { return signal && !by_others; }
};

TailPoller::TailPoller(Clock& clock, const Log& log, std::unique_ptr<WriteWatch> watch)
    : clock_(clock), log_(log), sleep_(std::make_shared<CommitSignal::Sleep>()) {
  sleep_->watch = std::move(watch);
}

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
  sleep_->watch->wake();
}

std::shared_ptr<CommitSignal> TailPoller::signal(std::shared_ptr<Database> database) {
  auto signal = std::shared_ptr<CommitSignal>(new CommitSignal(sleep_));
  {
    MutexLock lock(mutex_);
    signals_.emplace_back(std::move(database), signal);
  }
  sleep_->watch->wake();
  return signal;
}

void TailPoller::watch(std::shared_ptr<Database> database) {
  {
    MutexLock lock(mutex_);
    watched_.insert(std::move(database));
  }
  sleep_->watch->wake();
}

void TailPoller::stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  sleep_->watch->wake();
  if (thread_.joinable()) thread_.join();
}

TailPoller::Followed& TailPoller::followed(const std::shared_ptr<Database>& database) {
  auto it = std::find_if(followed_.begin(), followed_.end(),
                         [&](const auto& followed) { return followed->database == database; });
  if (it != followed_.end()) return **it;
  followed_.push_back(std::make_unique<Followed>());
  followed_.back()->database = database;
  return *followed_.back();
}

void TailPoller::take_touched() {
  std::set<std::shared_ptr<Database>> touched, watched;
  decltype(signals_) signals;
  {
    MutexLock lock(mutex_);
    touched.swap(touched_);
    watched.swap(watched_);
    signals.swap(signals_);
  }
  for (auto& [database, signal] : signals) {
    Followed& told = followed(database);
    disarm(told);
    if (told.signal && told.signal->pending_) signal->pending_ = true;
    told.signal = std::move(signal);
  }
  for (const std::shared_ptr<Database>& database : watched) {
    followed(database).by_others = true;
    touched.insert(database);
  }
  for (const std::shared_ptr<Database>& database : touched) {
    Followed& active = followed(database);
    disarm(active);
    active.active = true;
    active.last_new_ns = clock_.monotonic_ns();
  }
}

void TailPoller::arm(Followed& followed) {
  int fd = followed.database->watched_descriptor();
  if (fd < 0) return;
  Result<int> watch = sleep_->watch->add(fd);
  if (watch.ok()) {
    followed.watch = watch.value();
  } else {
    log_.warning("cannot watch a file; looking at it each second")
        .kv("database", followed.database->name())
        .error(watch.error());
  }
}

void TailPoller::disarm(Followed& followed) {
  if (followed.watch >= 0) sleep_->watch->remove(followed.watch);
  followed.watch = -1;
}

// Answers whether there was something new.
bool TailPoller::poll(Followed& followed) {
  Result<bool> polled = followed.database->poll();
  if (polled.ok()) {
    if (followed.failing) log_.info("capture works again").kv("database", followed.database->name());
    followed.failing = false;
    return polled.value();
  }
  followed.not_before_ns = clock_.monotonic_ns() + kAfterFailureNs;
  if (!followed.failing) {
    log_.error("capture failed").kv("database", followed.database->name()).error(polled.error());
  }
  followed.failing = true;
  return false;
}

// Answers whether any active database had something new.
bool TailPoller::poll_active() {
  bool any = false;
  int64_t now_ns = clock_.monotonic_ns();
  for (const auto& followed : followed_) {
    if (!followed->active || now_ns < followed->not_before_ns || !poll(*followed)) continue;
    followed->last_new_ns = now_ns;
    any = true;
  }
  return any;
}

// Answers whether anybody has told of a commit.
bool TailPoller::poll_told() {
  bool any = false;
  for (const auto& followed : followed_) {
    if (!followed->signal || !followed->signal->pending_) continue;
    if (clock_.monotonic_ns() < followed->not_before_ns) continue;
    followed->signal->pending_ = false;
    any = true;
    poll(*followed);
    if (followed->failing) followed->signal->pending_ = true;
  }
  return any;
}

// Whether an active database goes on being polled: it stops when nothing has come for a while.
bool TailPoller::still_active(Followed& followed) {
  const int64_t now_ns = clock_.monotonic_ns();
  if (now_ns - followed.last_new_ns <= kIdleAfterNs) return true;
  if (followed.all_told()) {
    followed.active = false;
    return false;
  }
  // Arm first, then look once more: what came in between raises no event.
  arm(followed);
  Result<bool> polled = poll_at_rest(*followed.database);
  followed.active = polled.ok() && polled.value();
  if (!followed.active) return false;
  disarm(followed);
  followed.last_new_ns = now_ns;
  return true;
}

// Until a watched file is written, a commit is told of, or somebody wants something.
void TailPoller::sleep() {
  sleep_->asleep = true;
  bool watching = false, failing = false, told = false;
  for (const auto& followed : followed_) {
    if (!followed->all_told()) watching = true;
    if (followed->failing) failing = true;
    // Whoever tells after this finds us asleep.
    if (followed->signal && !followed->failing && followed->signal->pending_) told = true;
  }
  std::vector<int> written;
  if (!told) written = sleep_->watch->wait(watching || failing ? kWatchMaxMs : -1);
  sleep_->asleep = false;
  const int64_t now_ns = clock_.monotonic_ns();
  for (const auto& followed : followed_) {
    if (followed->all_told() || told) continue;
    bool fired = std::find(written.begin(), written.end(), followed->watch) != written.end();
    if (!fired && !written.empty()) continue;
    // The event comes before the transaction is published, so it is followed by polls for a while.
    disarm(*followed);
    followed->active = true;
    followed->last_new_ns = fired ? now_ns : now_ns - kIdleAfterNs - 1;
  }
}

void TailPoller::run() {
  name_thread("tail");
  precise_sleeps();
  int64_t pause_us = kPollUs;
  int64_t told_ns = 0;
  for (;;) {
    take_touched();
    {
      MutexLock lock(mutex_);
      if (stopping_) break;
    }
    bool any = poll_active();
    if (poll_told()) {
      told_ns = clock_.monotonic_ns();
      any = true;
    }
    bool active = told_ns != 0 && clock_.monotonic_ns() - told_ns < kAwakeNs;
    for (const auto& followed : followed_) {
      if (followed->active && still_active(*followed)) active = true;
    }
    if (active) {
      pause_us = any ? kPollUs : std::min(pause_us * 2, kPollMaxUs);
      sleep_us(pause_us);
      continue;
    }
    pause_us = kPollUs;
    sleep();
  }
  for (const auto& followed : followed_) disarm(*followed);
}

}  // namespace litefs
