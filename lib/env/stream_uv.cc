#include "env/loop_uv.h"

namespace litefs {
namespace {

constexpr size_t kCopiedChunkBytes = 64u << 10;
// Of one system call. A write that the socket does not take at once is at most this long, so that
// queued_bytes() tells the truth about a slow peer.
constexpr unsigned kWriteVectorMax = 128;
constexpr size_t kWriteBytesMax = 1u << 20;
// So much is not kept back until the end of the turn.
constexpr size_t kFlushBytes = 256u << 10;
constexpr unsigned kKeepaliveSeconds = 30;

std::string peer_text(const uv_tcp_t* tcp) {
  struct sockaddr_storage address;
  int length = sizeof address;
  if (uv_tcp_getpeername(tcp, reinterpret_cast<sockaddr*>(&address), &length) != 0) return "?";
  return socket_address_text(reinterpret_cast<const sockaddr*>(&address));
}

}  // namespace

// What the user owns. Once the socket is closing, socket_ is null and the object only remembers.
class UvStream final : public Stream {
 public:
  UvStream(UvSocket* socket, std::string peer) : loop_(socket->loop()), socket_(socket), peer_(std::move(peer)) {
    loop_.count_object(1);
  }
  ~UvStream() override {
    CHECK(loop_.in_loop_thread());
    loop_.count_object(-1);
    if (!socket_) return;
    socket_->owner_ = nullptr;
    if (!socket_->finishing_) socket_->close();
  }

  void start(StreamEvents events) override {
    if (UvSocket* s = live()) s->start(std::move(events));
  }
  void write(ByteView data) override {
    if (UvSocket* s = live()) s->write(data);
  }
  void write(std::shared_ptr<const void> owner, ByteView part) override {
    if (UvSocket* s = live()) s->write(std::move(owner), part);
  }
  size_t queued_bytes() const override { return socket_ ? socket_->queued_bytes_ : 0; }
  void set_low_water(size_t bytes) override {
    if (UvSocket* s = live()) s->low_water_ = bytes;
  }
  void pause_reading() override {
    if (UvSocket* s = live()) s->set_reading(false);
  }
  void resume_reading() override {
    if (UvSocket* s = live()) s->set_reading(true);
  }
  void at_turn_end() override {
    if (UvSocket* s = live()) {
      s->turn_end_asked_ = true;
      s->mark();
    }
  }
  void close() override {
    CHECK(loop_.in_loop_thread());
    if (socket_) socket_->close();
  }
  void finish() override {
    if (UvSocket* s = live()) s->finish();
  }
  bool is_open() const override { return socket_ && !socket_->finishing_; }
  const std::string& peer() const override { return peer_; }
  uint64_t bytes_read() const override { return socket_ ? socket_->bytes_read_ : bytes_read_; }
  uint64_t bytes_written() const override { return socket_ ? socket_->bytes_written_ : bytes_written_; }

  void let_go() {
    bytes_read_ = socket_->bytes_read_;
    bytes_written_ = socket_->bytes_written_;
    socket_ = nullptr;
  }

 private:
  // Null once the stream is closed or finishing: then nothing may be asked of it any more.
  UvSocket* live() {
    CHECK(loop_.in_loop_thread());
    return socket_ && !socket_->finishing_ ? socket_ : nullptr;
  }

  UvLoop& loop_;
  UvSocket* socket_;
  std::string peer_;
  uint64_t bytes_read_ = 0;
  uint64_t bytes_written_ = 0;
};

UvSocket::UvSocket(UvLoop& loop, Kind kind) : loop_(loop), kind_(kind) {
  CHECK(loop.in_loop_thread());
  if (kind == Kind::kTcp) {
    CHECK_EQ(uv_tcp_init(loop.uv(), &handle_.tcp), 0);
  } else {
    CHECK_EQ(uv_pipe_init(loop.uv(), &handle_.pipe, 0), 0);
  }
  handle_.any.data = this;
  write_request_.data = this;
  shutdown_request_.data = this;
}

std::unique_ptr<Stream> UvSocket::hand_out(const std::string& path) {
  std::string peer = path;
  if (kind_ == Kind::kTcp) {
    uv_tcp_nodelay(&handle_.tcp, 1);
    uv_tcp_keepalive(&handle_.tcp, 1, kKeepaliveSeconds);
    peer = peer_text(&handle_.tcp);
  }
  auto stream = std::make_unique<UvStream>(this, std::move(peer));
  owner_ = stream.get();
  return stream;
}

void UvSocket::close() {
  if (closing_) return;
  closing_ = true;
  linger_.reset();
  if (owner_) owner_->let_go();
  owner_ = nullptr;
  loop_.forget_lingering(this);
  close_handle(&handle_.any, [](uv_handle_t* h) { delete static_cast<UvSocket*>(h->data); });
}

void UvSocket::mark() {
  if (marked_) return;
  marked_ = true;
  loop_.mark(this);
}

void UvSocket::start(StreamEvents events) {
  events_ = std::make_shared<StreamEvents>(std::move(events));
  set_reading(!paused_);
}

void UvSocket::set_reading(bool wanted) {
  paused_ = !wanted;
  if (!wanted || (!events_ && !finishing_) || peer_ended_) {
    uv_read_stop(stream());
    reading_ = false;
    return;
  }
  if (reading_) return;
  auto alloc = [](uv_handle_t* h, size_t, uv_buf_t* buf) {
    *buf = static_cast<UvSocket*>(h->data)->loop_.read_buffer();
  };
  auto read = [](uv_stream_t* h, ssize_t n, const uv_buf_t* buf) {
    UvSocket* s = static_cast<UvSocket*>(h->data);
    if (n < 0) s->read_ended(static_cast<int>(n));
    if (n <= 0) return;
    s->bytes_read_ += static_cast<uint64_t>(n);
    std::shared_ptr<StreamEvents> events = s->events_;
    if (!events || !events->on_data) return;
    events->on_data(ByteView(reinterpret_cast<const uint8_t*>(buf->base), static_cast<size_t>(n)));
  };
  int code = uv_read_start(stream(), alloc, read);
  if (code == 0) {
    reading_ = true;
  } else {
    end_at_turn_end_ = Status(uv_error(code, "reading from the peer"));
    mark();
  }
}

void UvSocket::read_ended(int code) {
  reading_ = false;
  peer_ended_ = true;
  if (finishing_) return code == UV_EOF ? go_on_finishing() : close();
  uv_read_stop(stream());
  std::shared_ptr<StreamEvents> events = events_;
  if (code == UV_EOF && events && events->on_peer_end) return events->on_peer_end();
  end(code == UV_EOF ? Status() : Status(uv_error(code, "reading from the peer")));
}

void UvSocket::end(const Status& why) {
  if (closing_) return;
  std::shared_ptr<StreamEvents> events = std::move(events_);
  close();
  if (events && events->on_closed) events->on_closed(why);
}

void UvSocket::write(ByteView data) {
  if (data.empty()) return;
  // The last chunk is appended to only within its capacity: a write under way may point into it.
  bool fits = !queue_.empty() && !queue_.back().owner &&
              queue_.back().copied.capacity() - queue_.back().copied.size() >= data.size();
  if (!fits) {
    Chunk& chunk = queue_.emplace_back();
    chunk.copied = std::move(spare_);
    chunk.copied.clear();
    chunk.copied.reserve(std::max(kCopiedChunkBytes, data.size()));
  }
  Bytes& tail = queue_.back().copied;
  tail.insert(tail.end(), data.begin(), data.end());
  queued_bytes_ += data.size();
  note_queue();
}

void UvSocket::write(std::shared_ptr<const void> owner, ByteView part) {
  if (part.size() <= Stream::kCopyBytesMax) return write(part);
  CHECK(owner != nullptr);
  Chunk& chunk = queue_.emplace_back();
  chunk.owner = std::move(owner);
  chunk.part = part;
  queued_bytes_ += part.size();
  note_queue();
}

void UvSocket::note_queue() {
  if (queued_bytes_ > low_water_) above_low_water_ = true;
  mark();
  // A busy turn need not pile up what the socket would take now. An error waits for the end of the
  // turn, as nothing may be called back from within write().
  if (queued_bytes_ < kFlushBytes || in_flight_bytes_ > 0 || end_at_turn_end_) return;
  Status flushed = flush();
  if (!flushed.ok()) end_at_turn_end_ = flushed;
}

void UvSocket::turn_end() {
  if (closing_) return;
  if (end_at_turn_end_) {
    Status why = *end_at_turn_end_;
    return finishing_ ? close() : end(why);
  }
  std::shared_ptr<StreamEvents> events = events_;
  if (turn_end_asked_) {
    turn_end_asked_ = false;
    if (events && events->on_turn_end) events->on_turn_end();
    if (closing_) return;
  }
  marked_ = false;
  Status flushed = flush();
  if (!flushed.ok()) return finishing_ ? close() : end(flushed);
  if (finishing_) return go_on_finishing();
  if (above_low_water_ && queued_bytes_ <= low_water_) {
    above_low_water_ = false;
    if (events && events->on_drained) events->on_drained();
  }
}

// Tries at once; only what the socket does not take becomes a request that waits for it.
Status UvSocket::flush() {
  while (!queue_.empty() && in_flight_bytes_ == 0) {
    uv_buf_t bufs[kWriteVectorMax];
    unsigned count = 0;
    size_t bytes = 0;
    for (const Chunk& chunk : queue_) {
      if (count == kWriteVectorMax || bytes >= kWriteBytesMax) break;
      ByteView rest = chunk.rest();
      rest = rest.first(std::min(rest.size(), kWriteBytesMax - bytes));
      bufs[count++] =
          uv_buf_init(reinterpret_cast<char*>(const_cast<uint8_t*>(rest.data())), static_cast<unsigned>(rest.size()));
      bytes += rest.size();
    }
    int taken = uv_try_write(stream(), bufs, count);
    if (taken > 0) {
      consume(static_cast<size_t>(taken));
      bytes_written_ += static_cast<uint64_t>(taken);
      continue;
    }
    if (taken == UV_EAGAIN) return submit(bufs, count, bytes);
    return uv_error(taken, "writing to the peer");
  }
  return {};
}

Status UvSocket::submit(const uv_buf_t* bufs, unsigned count, size_t bytes) {
  in_flight_bytes_ = bytes;
  int code = uv_write(&write_request_, stream(), bufs, count,
                      [](uv_write_t* r, int status) { static_cast<UvSocket*>(r->data)->written(status); });
  if (code != 0) return uv_error(code, "writing to the peer");
  return {};
}

void UvSocket::written(int status) {
  size_t bytes = std::exchange(in_flight_bytes_, 0);
  if (closing_) return;
  if (status != 0) {
    Status why = uv_error(status, "writing to the peer");
    return finishing_ ? close() : end(why);
  }
  bytes_written_ += bytes;
  consume(bytes);
  mark();  // goes on at the end of this turn
}

void UvSocket::consume(size_t bytes) {
  queued_bytes_ -= bytes;
  while (bytes > 0) {
    Chunk& front = queue_.front();
    size_t n = std::min(bytes, front.rest().size());
    front.done += n;
    bytes -= n;
    if (!front.rest().empty()) continue;
    if (!front.owner && front.copied.capacity() == kCopiedChunkBytes) spare_ = std::move(front.copied);
    queue_.pop_front();
  }
}

void UvSocket::finish() {
  finishing_ = true;
  events_.reset();
  loop_.keep_lingering(this);
  linger_ = loop_.timer([this] { close(); });
  linger_->start(Stream::kLingerMs);
  set_reading(true);
  mark();
}

// Everything sent, then the end of our side told, then the peer's end seen: only then close.
void UvSocket::go_on_finishing() {
  if (closing_ || !queue_.empty() || in_flight_bytes_ > 0) return;
  if (shut_down_) {
    if (peer_ended_) close();
    return;
  }
  shut_down_ = true;
  int code = uv_shutdown(&shutdown_request_, stream(), [](uv_shutdown_t* r, int status) {
    UvSocket* s = static_cast<UvSocket*>(r->data);
    if (status != 0 && !s->closing_) s->close();
  });
  if (code != 0 || peer_ended_) close();
}

}  // namespace litefs
