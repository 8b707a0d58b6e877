#include "repl/replica_connector.h"

#include <algorithm>

#include "env/address.h"

namespace litefs {

Result<std::string> address_of_url(const std::string& url) {
  size_t scheme = url.find("://");
  std::string rest = scheme == std::string::npos ? url : url.substr(scheme + 3);
  rest = rest.substr(0, rest.find('/'));
  HostPort address = TRY(parse_address(rest));
  if (address.host.empty() || address.port == 0) {
    return Error(ErrorCode::kInvalid, "'" + url + "' names no host and port");
  }
  return rest;
}

ReplicaConnector::ReplicaConnector(EventLoop& loop, ReplicaHost& host, Clock& clock, Random& random, const Log& log,
                                   const ReplicaConnectorOptions& options)
    : loop_(loop),
      host_(host),
      clock_(clock),
      random_(random),
      log_(log),
      options_(options),
      timer_(loop.timer([this] { on_timer(); })),
      ticker_(loop.timer([this] {
        if (session_) session_->tick(loop_.now_ms());
      })) {
  ticker_->start(options.times.tick_ms, options.times.tick_ms);
}

void ReplicaConnector::follow(const std::string& primary) {
  if (primary != status_.primary) {
    status_.primary = primary;
    status_.failures = 0;
    dial_.reset();
    if (session_) {
      bool stops = primary.empty();
      session_->goodbye(stops ? wire::GoodbyeReason::kStopping : wire::GoodbyeReason::kHandoff,
                        stops ? "following nobody any more" : "following another primary");
    }
  }
  if (!session_ && !dial_) timer_->start(0);
}

ReplicaConnector::Status ReplicaConnector::status() const {
  Status out = status_;
  out.connected = session_ && session_->is_welcomed();
  return out;
}

void ReplicaConnector::on_timer() {
  ended_.clear();
  if (!status_.primary.empty() && !session_ && !dial_) dial();
}

void ReplicaConnector::dial() {
  ++status_.attempts;
  Result<std::string> address = address_of_url(status_.primary);
  if (!address.ok()) return pause_then_dial(address.error().message());
  auto connected = [this](Result<std::unique_ptr<Stream>> stream) {
    dial_.reset();
    if (!stream.ok()) return pause_then_dial(stream.error().message());
    welcomed_ms_ = 0;
    ReplicaSession::Owner& owner = *this;  // a private base: make_unique could not convert
    session_ = std::make_unique<ReplicaSession>(host_, owner, clock_, log_, options_.times, std::move(stream).value());
    session_->start(loop_.now_ms());
  };
  dial_ = loop_.connect(address.value(), options_.times.hello_deadline_ms, connected);
}

void ReplicaConnector::welcomed() { welcomed_ms_ = loop_.now_ms(); }

void ReplicaConnector::ended(const litefs::Status& why) {
  // Only a session that held for a while was a success: one that fails again and again right behind
  // its welcome must not be dialled ten times a second.
  bool held = welcomed_ms_ != 0 && loop_.now_ms() - welcomed_ms_ >= options_.backoff_max_ms;
  if (held) status_.failures = 0;
  ended_.push_back(std::move(session_));
  pause_then_dial(why.ok() ? "the connection was ended in order" : why.error().message());
}

void ReplicaConnector::pause_then_dial(const std::string& why) {
  // Twice as long each time, and half of it by chance, so that replicas do not come all at once.
  int64_t pause_ms = options_.backoff_max_ms;
  if (status_.failures < 32) {
    pause_ms = std::min(pause_ms, options_.backoff_min_ms << status_.failures);
  }
  pause_ms -= static_cast<int64_t>(random_.u64() % static_cast<uint64_t>(pause_ms / 2 + 1));
  ++status_.failures;
  if (!status_.primary.empty() && why != status_.last_error) {
    log_.warning("no connection to the primary").kv("primary", status_.primary).kv("error", why);
  }
  status_.last_error = why;
  timer_->start(pause_ms);
}

}  // namespace litefs
