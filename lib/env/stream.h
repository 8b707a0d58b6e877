// One connection's bytes: a TCP or unix-domain socket (later TLS) with a bounded way to write.
//
// What is written in one turn of the loop leaves together at its end (much of it sooner), in one
// system call where the socket takes it, so a writer need not collect small frames itself. A stream
// never refuses a write: its user looks at queued_bytes() before writing more than a little, and
// goes on when on_drained tells it to. Thread rule: the loop's thread only. A stream may be
// destroyed at any time, also inside its own callbacks; nothing is called after that. Every stream
// is destroyed before its loop.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace litefs {

struct StreamEvents {
  // Bytes in order of arrival; the view is valid during the call only.
  std::function<void(ByteView)> on_data = nullptr;
  // The connection is over: success when the peer ended it in order, else why. What was queued is
  // dropped. Not called after close() or finish().
  std::function<void(const Status&)> on_closed = nullptr;
  // The peer sends nothing more, but may still read. Where this is not set, that ends the
  // connection.
  std::function<void()> on_peer_end = nullptr;
  // queued_bytes() has fallen to the low-water mark after it had been above it.
  std::function<void()> on_drained = nullptr;
  // The end of a turn in which at_turn_end() was called, before the queued bytes leave. It may
  // write; it must not call at_turn_end().
  std::function<void()> on_turn_end = nullptr;
};

class Stream {
 public:
  static constexpr size_t kLowWaterBytes = 1u << 20;
  // A referenced part of at most this many bytes is copied: cheaper than a system call's vector
  // entry.
  static constexpr size_t kCopyBytesMax = 4096;
  static constexpr int64_t kLingerMs = 2000;

  // Like close(), unless finish() was called: then the rest goes on without its owner.
  virtual ~Stream() = default;

  // Sets the callbacks and begins to read. A second call hands the stream to somebody else.
  virtual void start(StreamEvents events) = 0;

  // Queues a copy.
  virtual void write(ByteView data) = 0;
  // Queues `part` of something that `owner` keeps alive; not copied unless it is small.
  virtual void write(std::shared_ptr<const void> owner, ByteView part) = 0;
  // Queues bytes that the stream takes over.
  void write(Bytes&& data) {
    auto owner = std::make_shared<const Bytes>(std::move(data));
    write(owner, ByteView(*owner));
  }

  // Bytes written but not yet taken by the operating system.
  virtual size_t queued_bytes() const = 0;
  virtual void set_low_water(size_t bytes) = 0;

  // Leaves what arrives in the operating system's buffers, so that the peer has to wait.
  virtual void pause_reading() = 0;
  virtual void resume_reading() = 0;

  // Asks for on_turn_end once, at the end of this turn: a place to write what a turn has added up.
  virtual void at_turn_end() = 0;

  // Ends the connection at once; drops what is queued. No callback follows.
  virtual void close() = 0;
  // Sends what is queued, then ends the connection in order. What arrives meanwhile is dropped, as
  // a socket closed with unread bytes would reset the connection and could take our last words with
  // it. Gives up after kLingerMs. No callback follows.
  virtual void finish() = 0;

  virtual bool is_open() const = 0;
  // "address:port" of the other end, or the path of a unix-domain socket.
  virtual const std::string& peer() const = 0;
  virtual uint64_t bytes_read() const = 0;
  // Taken by the operating system.
  virtual uint64_t bytes_written() const = 0;
};

}  // namespace litefs
