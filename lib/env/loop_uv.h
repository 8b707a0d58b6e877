// Inside of the libuv event loop, shared by its .cc files; everybody else includes env/loop.h.
//
// A libuv handle lives in an object of its own (TimerHandle, UvSocket, …) that frees itself in the
// close callback and nowhere else. What users own is a thin object that points to it and clears
// that pointer first.
#pragma once

#include <uv.h>

#include <atomic>
#include <deque>
#include <set>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "env/loop.h"
#include "env/owned_descriptor.h"
#include "env/worker_pool.h"

namespace litefs {

// Translates libuv's error codes; `what` says what was attempted on what.
Error uv_error(int code, const std::string& what);

// "address:port" of an IPv4 or IPv6 address.
std::string socket_address_text(const struct sockaddr* address);

// A handle's descriptor is noted (owned_descriptor.h) while it has one. Runs what may give it one.
template <class Open>
int open_handle(uv_handle_t* handle, Open open) {
  ForkHold hold;
  const int code = open();
  uv_os_fd_t fd;
  if (uv_fileno(handle, &fd) == 0) note_descriptor(fd);
  return code;
}
void close_handle(uv_handle_t* handle, uv_close_cb closed);

class UvSocket;

class UvLoop final : public EventLoop {
 public:
  explicit UvLoop(const Log& log);
  ~UvLoop() override;

  void run() override;
  void stop() override;
  void post(std::function<void()> fn) override;
  bool in_loop_thread() const override;
  int64_t now_ms() const override { return static_cast<int64_t>(uv_now(&loop_)); }
  std::unique_ptr<Timer> timer(std::function<void()> fn) override;
  Result<std::unique_ptr<Listener>> listen(const std::string& address, OnAccept on_accept) override;
  std::unique_ptr<Dial> connect(const std::string& address, int64_t deadline_ms, OnConnected done) override;
  Result<std::unique_ptr<Listener>> listen_unix(const std::string& path, OnAccept on_accept) override;
  std::unique_ptr<Dial> connect_unix(const std::string& path, int64_t deadline_ms, OnConnected done) override;

  uv_loop_t* uv() { return &loop_; }
  const Log& log() const { return log_; }
  // Runs a job that looks a name up, on a thread of its own. Not on libuv's: in a forked process exit() would wait for
  // its threads, which are not there, and crash.
  void resolve(std::function<void()> job);
  // For one read at a time: data is handed on before the next read.
  uv_buf_t read_buffer();
  // Calls the socket's turn_end() before this turn of the loop ends.
  void mark(UvSocket* socket) { marked_.push_back(socket); }
  // Sockets that go on without an owner until they are closed.
  void keep_lingering(UvSocket* socket) { lingering_.insert(socket); }
  void forget_lingering(UvSocket* socket) { lingering_.erase(socket); }

  // What users own; none may outlive the loop.
  void count_object(int difference) { objects_ += difference; }

 private:
  void run_posted();
  void end_turn();

  Log log_;
  uv_loop_t loop_;
  uv_async_t wake_;
  uv_prepare_t before_poll_;  // after timers, before the loop sleeps
  uv_check_t after_poll_;
  std::vector<UvSocket*> marked_;
  std::set<UvSocket*> lingering_;
  Bytes read_buffer_;
  std::unique_ptr<WorkerPool> resolver_;  // from the first name on
  int objects_ = 0;
  std::atomic<std::thread::id> running_thread_{};

  Mutex mutex_;
  std::vector<std::function<void()>> posted_ GUARDED_BY(mutex_);
};

// A socket's handle, queue and callbacks. Freed in its close callback.
class UvSocket {
 public:
  enum class Kind { kTcp, kPipe };

  UvSocket(UvLoop& loop, Kind kind);
  UvSocket(const UvSocket&) = delete;
  UvSocket& operator=(const UvSocket&) = delete;

  UvLoop& loop() { return loop_; }
  uv_handle_t* handle() { return &handle_.any; }
  uv_stream_t* stream() { return &handle_.stream; }
  uv_tcp_t* tcp() { return &handle_.tcp; }
  uv_pipe_t* pipe() { return &handle_.pipe; }

  // Once connected: sets the socket's options and makes the object that its user owns.
  std::unique_ptr<Stream> hand_out(const std::string& path);
  void close();
  void turn_end();

 private:
  friend class UvStream;

  struct Chunk {
    std::shared_ptr<const void> owner;  // null: the bytes are in `copied`
    ByteView part;
    Bytes copied;
    size_t done = 0;  // bytes taken by the operating system

    ByteView rest() const { return (owner ? part : ByteView(copied)).subspan(done); }
  };

  ~UvSocket() = default;
  void start(StreamEvents events);
  void write(ByteView data);
  void write(std::shared_ptr<const void> owner, ByteView part);
  void set_reading(bool wanted);
  void finish();
  void mark();
  Status flush();
  Status submit(const uv_buf_t* bufs, unsigned count, size_t bytes);
  void written(int status);
  void consume(size_t bytes);
  void note_queue();
  void go_on_finishing();
  void read_ended(int code);
  void end(const Status& why);

  UvLoop& loop_;
  Kind kind_;
  union {
    uv_handle_t any;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
  } handle_;
  class UvStream* owner_ = nullptr;
  std::shared_ptr<StreamEvents> events_;  // shared: a callback may replace or destroy them
  std::deque<Chunk> queue_;
  Bytes spare_;  // a copied chunk's memory, for the next one
  size_t queued_bytes_ = 0;
  size_t low_water_ = Stream::kLowWaterBytes;
  bool above_low_water_ = false;
  uv_write_t write_request_;
  size_t in_flight_bytes_ = 0;  // of write_request_; 0: none
  uv_shutdown_t shutdown_request_;
  std::unique_ptr<Timer> linger_;
  std::optional<Status> end_at_turn_end_;
  bool reading_ = false;
  bool paused_ = false;
  bool marked_ = false;
  bool turn_end_asked_ = false;
  bool closing_ = false;
  bool finishing_ = false;
  bool shut_down_ = false;  // uv_shutdown was called
  bool peer_ended_ = false;
  uint64_t bytes_read_ = 0;
  uint64_t bytes_written_ = 0;
};

}  // namespace litefs
