#include "env/loop_uv.h"

#include <signal.h>
#include <time.h>

#include <array>

namespace litefs {

Error uv_error(int code, const std::string& what) {
  std::string text = what + ": " + uv_strerror(code);
  switch (code) {
    case UV_EADDRINUSE: return Error(ErrorCode::kBusy, text);
    case UV_ETIMEDOUT: return Error(ErrorCode::kTimedOut, text);
    case UV_ECANCELED: return Error(ErrorCode::kCancelled, text);
    case UV_EADDRNOTAVAIL:
    case UV_EINVAL:
    case UV_ENAMETOOLONG: return Error(ErrorCode::kInvalid, text);
    case UV_ENOENT: return Error(ErrorCode::kNotFound, text);
    case UV_ECONNREFUSED:
    case UV_ECONNRESET:
    case UV_ECONNABORTED:
    case UV_EHOSTUNREACH:
    case UV_ENETUNREACH:
    case UV_EPIPE:
    case UV_EAI_AGAIN:
    case UV_EAI_FAIL:
    case UV_EAI_NODATA:
    case UV_EAI_NONAME: return Error(ErrorCode::kUnavailable, text);
    default: return Error(ErrorCode::kIo, text);
  }
}

void close_handle(uv_handle_t* handle, uv_close_cb closed) {
  ForkHold hold;
  uv_os_fd_t fd;
  if (uv_fileno(handle, &fd) == 0) forget_descriptor(fd);
  uv_close(handle, closed);
}

namespace {

constexpr size_t kReadBytes = 256u << 10;

// Blocks SIGPIPE on this thread. One that came meanwhile is taken away before it is unblocked.
class SigpipeBlock {
 public:
  SigpipeBlock() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~SigpipeBlock() {
    if (sigismember(&before_, SIGPIPE)) return;
    struct timespec at_once = {0, 0};
    while (sigtimedwait(&pipe_, nullptr, &at_once) == SIGPIPE) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  SigpipeBlock(const SigpipeBlock&) = delete;
  SigpipeBlock& operator=(const SigpipeBlock&) = delete;

 private:
  sigset_t pipe_;
  sigset_t before_;
};

// What libuv opens for a loop itself: epoll, what wakes it, and the pipe for signals.
std::array<int, 4> descriptors_of(const uv_loop_t& loop) {
  return {uv_backend_fd(&loop), loop.async_io_watcher.fd, loop.signal_pipefd[0], loop.signal_pipefd[1]};
}

struct TimerHandle {
  uv_timer_t uv;
  std::function<void()> fn;
};

class UvTimer final : public Timer {
 public:
  UvTimer(UvLoop& loop, std::function<void()> fn) : loop_(loop), handle_(new TimerHandle) {
    CHECK(loop.in_loop_thread());
    loop_.count_object(1);
    handle_->fn = std::move(fn);
    handle_->uv.data = handle_;
    CHECK_EQ(uv_timer_init(loop.uv(), &handle_->uv), 0);
  }
  ~UvTimer() override {
    CHECK(loop_.in_loop_thread());
    loop_.count_object(-1);
    uv_close(reinterpret_cast<uv_handle_t*>(&handle_->uv),
             [](uv_handle_t* h) { delete static_cast<TimerHandle*>(h->data); });
  }
  void start(int64_t after_ms, int64_t repeat_ms) override {
    CHECK(loop_.in_loop_thread());
    // uv_timer_start counts from the loop's cached time, which is old before the first run().
    uv_update_time(loop_.uv());
    auto fire = [](uv_timer_t* t) { static_cast<TimerHandle*>(t->data)->fn(); };
    CHECK_EQ(uv_timer_start(&handle_->uv, fire, static_cast<uint64_t>(std::max<int64_t>(after_ms, 0)),
                            static_cast<uint64_t>(std::max<int64_t>(repeat_ms, 0))),
             0);
  }
  void stop() override {
    CHECK(loop_.in_loop_thread());
    uv_timer_stop(&handle_->uv);
  }

 private:
  UvLoop& loop_;
  TimerHandle* handle_;
};

}  // namespace

UvLoop::UvLoop(const Log& log) : log_(log) {
  {
    ForkHold hold;
    CHECK_EQ(uv_loop_init(&loop_), 0);
    CHECK_EQ(uv_async_init(&loop_, &wake_, [](uv_async_t* h) { static_cast<UvLoop*>(h->data)->run_posted(); }), 0);
    for (int fd : descriptors_of(loop_)) note_descriptor(fd);
  }
  wake_.data = this;
  uv_prepare_init(&loop_, &before_poll_);
  before_poll_.data = this;
  uv_prepare_start(&before_poll_, [](uv_prepare_t* h) { static_cast<UvLoop*>(h->data)->end_turn(); });
  uv_check_init(&loop_, &after_poll_);
  after_poll_.data = this;
  uv_check_start(&after_poll_, [](uv_check_t* h) { static_cast<UvLoop*>(h->data)->end_turn(); });
}

UvLoop::~UvLoop() {
  CHECK(in_loop_thread());
  resolver_.reset();  // waits: the system's resolver cannot be interrupted
  std::vector<std::function<void()>> dropped;
  {
    MutexLock lock(mutex_);
    dropped.swap(posted_);
  }
  dropped.clear();  // may own streams and timers
  marked_.clear();
  while (!lingering_.empty()) (*lingering_.begin())->close();
  CHECK_EQ(objects_, 0);
  uv_close(reinterpret_cast<uv_handle_t*>(&wake_), nullptr);
  uv_close(reinterpret_cast<uv_handle_t*>(&before_poll_), nullptr);
  uv_close(reinterpret_cast<uv_handle_t*>(&after_poll_), nullptr);
  uv_run(&loop_, UV_RUN_DEFAULT);  // the close callbacks
  ForkHold hold;
  for (int fd : descriptors_of(loop_)) forget_descriptor(fd);
  CHECK_EQ(uv_loop_close(&loop_), 0);
}

void UvLoop::run() {
  CHECK(running_thread_.load() == std::thread::id());
  running_thread_ = std::this_thread::get_id();
  {
    SigpipeBlock block;
    uv_run(&loop_, UV_RUN_DEFAULT);
  }
  running_thread_ = std::thread::id();
}

void UvLoop::stop() {
  post([this] { uv_stop(&loop_); });
}

void UvLoop::post(std::function<void()> fn) {
  bool first;
  {
    MutexLock lock(mutex_);
    first = posted_.empty();
    posted_.push_back(std::move(fn));
  }
  if (first) uv_async_send(&wake_);
}

bool UvLoop::in_loop_thread() const {
  std::thread::id running = running_thread_.load();
  return running == std::thread::id() || running == std::this_thread::get_id();
}

std::unique_ptr<Timer> UvLoop::timer(std::function<void()> fn) {
  return std::make_unique<UvTimer>(*this, std::move(fn));
}

void UvLoop::resolve(std::function<void()> job) {
  CHECK(in_loop_thread());
  if (!resolver_) resolver_ = std::make_unique<WorkerPool>("litefs-names", 1);
  resolver_->post(std::move(job));
}

uv_buf_t UvLoop::read_buffer() {
  read_buffer_.resize(kReadBytes);
  return uv_buf_init(reinterpret_cast<char*>(read_buffer_.data()), kReadBytes);
}

// What these functions post runs in the next turn, so that sockets and timers get theirs.
void UvLoop::run_posted() {
  std::vector<std::function<void()>> functions;
  {
    MutexLock lock(mutex_);
    functions.swap(posted_);
  }
  for (std::function<void()>& fn : functions) {
    fn();
    fn = nullptr;
  }
}

void UvLoop::end_turn() {
  // A callback on the way may mark further sockets.
  for (size_t i = 0; i < marked_.size(); ++i) marked_[i]->turn_end();
  marked_.clear();
}

std::unique_ptr<EventLoop> uv_event_loop(const Log& log) { return std::make_unique<UvLoop>(log); }

}  // namespace litefs
