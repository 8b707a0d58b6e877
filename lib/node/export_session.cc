#include "node/export_session.h"

#include "node/local_requests.h"

namespace litefs {

struct ExportSession::Work {
  std::shared_ptr<Database> database;
  uint64_t hold = 0;
  std::unique_ptr<ExportSource> source;

  Result<Bytes> next() {
    if (!source) source = TRY(ExportSource::open(database, hold));
    return source->next();
  }
};

ExportSession::ExportSession(const FeedThreads& threads, std::unique_ptr<Stream> stream)
    : threads_(threads), stream_(std::move(stream)) {}

std::shared_ptr<ExportSession> ExportSession::start(const FeedThreads& threads, std::unique_ptr<Stream> stream,
                                                    std::shared_ptr<Database> database, uint64_t hold) {
  std::shared_ptr<ExportSession> session(new ExportSession(threads, std::move(stream)));
  session->work_ = std::make_shared<Work>();
  session->work_->database = std::move(database);
  session->work_->hold = hold;
  std::weak_ptr<ExportSession> weak = session;
  auto go_on = [weak] {
    if (std::shared_ptr<ExportSession> self = weak.lock()) self->pump();
  };
  session->retry_ = threads.loop.timer(go_on);
  StreamEvents events;
  events.on_data = [](ByteView) {};
  events.on_peer_end = [] {};  // it has asked, and now reads
  events.on_drained = go_on;
  session->stream_->set_low_water(0);
  events.on_closed = [weak](const Status&) {
    if (std::shared_ptr<ExportSession> self = weak.lock()) self->work_.reset();
  };
  session->stream_->start(std::move(events));
  session->pump();
  return session;
}

void ExportSession::pump() {
  if (!work_ && stream_->queued_bytes() == 0) stream_->finish();
  if (working_ || !work_ || !stream_->is_open() || stream_->queued_bytes() > kQueueBytesMax) return;
  working_ = true;
  std::weak_ptr<ExportSession> weak = weak_from_this();
  threads_.workers.post([weak, work = work_, &loop = threads_.loop]() mutable {
    auto frames = std::make_shared<Result<Bytes>>(work->next());
    work.reset();  // before who waits for it goes on
    loop.post([weak, frames] {
      if (std::shared_ptr<ExportSession> self = weak.lock()) self->take(std::move(*frames));
    });
  });
}

void ExportSession::take(Result<Bytes> frames) {
  working_ = false;
  if (!work_ || !stream_->is_open()) return;
  const bool busy = !frames.ok() && frames.error().code() == ErrorCode::kBusy;
  if (busy) {
    const int64_t now_ms = threads_.loop.now_ms();
    if (busy_since_ms_ == 0) busy_since_ms_ = now_ms;
    if (now_ms - busy_since_ms_ < kRetryMaxMs) return retry_->start(kRetryMs);
  }
  busy_since_ms_ = 0;
  const bool failed = !frames.ok();
  if (!greeted_) {
    stream_->write(failed ? as_bytes(local_error(frames.error())) : as_bytes(kLocalOk));
    greeted_ = true;
  } else if (failed) {
    stream_->write(ExportSource::failure(frames.error()));
  }
  const bool last = failed || frames.value().empty();
  if (!last) stream_->write(std::move(frames).value());
  // finish() would not wait long for a program that is slow to read: first all must have left.
  if (last) work_.reset();
  pump();
}

}  // namespace litefs
