// The event loop: timers, sockets and work handed over from other threads, all on one thread.
//
// The thread that calls run() is the loop's thread; while run() is not under way, the thread that
// holds the loop counts as it. Callbacks run on the loop's thread and never block. Nothing calls
// back from within the call that asked for it: connect() answers in a later turn, write() leaves at
// the end of the turn.
//
// Everything that a loop makes (timers, listeners, dials, streams) belongs to whoever asked for it,
// may be destroyed at any time, also inside its own callback, and must be destroyed before the
// loop. SIGPIPE is blocked on the loop's thread while run() is under way: libuv writes to sockets
// with plain write(), and a library must not change how the whole process treats a signal. Thread
// rule: post(), stop() and in_loop_thread() from any thread, everything else on the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/log.h"
#include "base/result.h"
#include "env/stream.h"

namespace litefs {

class Timer {
 public:
  virtual ~Timer() = default;
  // (Re)starts it: the callback comes after `after_ms`, then each `repeat_ms` unless that is 0.
  virtual void start(int64_t after_ms, int64_t repeat_ms = 0) = 0;
  virtual void stop() = 0;
};

// Accepts connections until it is destroyed.
class Listener {
 public:
  virtual ~Listener() = default;
  // The port that was bound, also where 0 was asked for; 0 for a unix-domain socket.
  virtual uint16_t port() const = 0;
  // "address:port" as bound, or the path.
  virtual const std::string& address() const = 0;
};

// An attempt to connect; destroying it gives up, and the answer never comes.
class Dial {
 public:
  virtual ~Dial() = default;
};

class EventLoop {
 public:
  using OnAccept = std::function<void(std::unique_ptr<Stream>)>;
  using OnConnected = std::function<void(Result<std::unique_ptr<Stream>>)>;

  // Closes what it still holds itself. Functions posted and never run are destroyed. Waits for a
  // name resolution that is under way, as the resolver cannot be interrupted.
  virtual ~EventLoop() = default;

  // Runs until stop(). May be called again afterwards.
  virtual void run() = 0;
  // Makes run() return, after what had been posted before.
  virtual void stop() = 0;
  // Runs `fn` on the loop's thread, in the order of posting, never inside this call.
  virtual void post(std::function<void()> fn) = 0;
  virtual bool in_loop_thread() const = 0;
  // Monotonic, as of the beginning of this turn.
  virtual int64_t now_ms() const = 0;

  virtual std::unique_ptr<Timer> timer(std::function<void()> fn) = 0;

  // Listens on "host:port" or ":port" (all addresses, IPv6 and IPv4); port 0 takes any free one. A
  // name is resolved at once, waiting for the resolver. kBusy: the port is taken; kInvalid: the
  // address is malformed or not this machine's.
  virtual Result<std::unique_ptr<Listener>> listen(const std::string& address, OnAccept on_accept) = 0;
  // Tries every address of the host in turn until `deadline_ms` from now have passed.
  virtual std::unique_ptr<Dial> connect(const std::string& address, int64_t deadline_ms, OnConnected done) = 0;

  // A unix-domain socket that only this user may use (mode 0600). A dead process's leftover is
  // replaced; kBusy: somebody listens there. The path is removed with the listener.
  virtual Result<std::unique_ptr<Listener>> listen_unix(const std::string& path, OnAccept on_accept) = 0;
  virtual std::unique_ptr<Dial> connect_unix(const std::string& path, int64_t deadline_ms, OnConnected done) = 0;
};

// The real one, over libuv.
std::unique_ptr<EventLoop> uv_event_loop(const Log& log);

}  // namespace litefs
