// One copy on its way to a program of this machine: workers read it, the loop sends it
// (export_stream.h).
//
// At most one job of it runs at a time, and none while kQueueBytesMax wait for the program, so a
// slow one costs bounded memory. It holds the log's records it needs until it ends; the node's
// retention has a bound for that. Thread rule: the loop's thread.
#pragma once

#include <memory>

#include "node/export_stream.h"
#include "node/log_feed.h"

namespace litefs {

class ExportSession : public std::enable_shared_from_this<ExportSession> {
 public:
  static constexpr size_t kQueueBytesMax = 2u << 20;
  // A database whose pages do not settle (a rollback-mode transaction is in them) is tried again.
  static constexpr int64_t kRetryMs = 20;
  static constexpr int64_t kRetryMaxMs = 60'000;

  // Takes the stream over; `hold` as ExportSource's.
  static std::shared_ptr<ExportSession> start(const FeedThreads& threads, std::unique_ptr<Stream> stream,
                                              std::shared_ptr<Database> database, uint64_t hold);
  // Everything has been sent, or the program has gone.
  bool ended() const { return !stream_->is_open(); }

 private:
  struct Work;  // what the workers use

  ExportSession(const FeedThreads& threads, std::unique_ptr<Stream> stream);
  void pump();
  void take(Result<Bytes> frames);

  FeedThreads threads_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Timer> retry_;
  std::shared_ptr<Work> work_;
  int64_t busy_since_ms_ = 0;  // 0: it is not
  bool working_ = false;
  bool greeted_ = false;
};

}  // namespace litefs
