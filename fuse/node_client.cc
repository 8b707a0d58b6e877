#include "fuse/node_client.h"

#include <algorithm>

#include "env/unix_client.h"
#include "node/local_requests.h"
#include "node/status.h"

namespace litefs {
namespace {

constexpr int kAnswerMs = 5000;
// A node that copies a database may have to wait for its disk, or for a long transaction's end.
constexpr int kSilenceMs = 90'000;
constexpr size_t kAnswerBytesMax = 64 << 20;

Error refusal(const std::string& line) {
  size_t begin = std::string_view(kLocalError).size();
  return Error(ErrorCode::kInvalid, line.substr(begin, line.find('\n') - begin));
}

}  // namespace

std::string NodeClient::socket_path() const { return data_dir_ + "/" + kStatusSocketName; }

Error NodeClient::explained(const Error& error) const {
  if (error.code() != ErrorCode::kNotFound) return error;
  return Error(ErrorCode::kNotFound, "no node runs with the data directory " + data_dir_);
}

Error NodeClient::stopping() const {
  return Error(ErrorCode::kUnavailable, "the node with the data directory " + data_dir_ + " is stopping");
}

Result<std::string> NodeClient::ask(const std::string& request) {
  Result<std::string> reply = unix_exchange(
      {.path = socket_path(), .request = request, .reply_bytes_max = kAnswerBytesMax, .timeout_ms = kAnswerMs});
  if (!reply.ok()) return explained(reply.error());
  if (reply.value().empty()) return stopping();
  if (reply.value().rfind(kLocalError, 0) == 0) return refusal(reply.value());
  return reply;
}

Status NodeClient::receive(const std::string& request, const std::function<Status(ByteView)>& take,
                           const std::function<Status()>& check) {
  std::string first;  // until its line end
  bool greeted = false;
  auto greet = [&](ByteView bytes) -> Status {
    auto end = std::find(bytes.begin(), bytes.end(), '\n');
    bool whole = end != bytes.end();
    first.append(bytes.begin(), whole ? end + 1 : end);
    if (!whole && first.size() <= kLocalRequestBytesMax) return {};
    if (first.rfind(kLocalError, 0) == 0) return refusal(first);
    if (first != kLocalOk) return Error(ErrorCode::kUnsupported, "the node answers in a way that is not understood");
    greeted = true;
    ByteView rest = bytes.subspan(static_cast<size_t>(end + 1 - bytes.begin()));
    return rest.empty() ? Status() : take(rest);
  };
  // Why the caller did not want more, as against why nothing came.
  Status taken;
  Status received = unix_receive(
      {.path = socket_path(), .request = request, .timeout_ms = kSilenceMs, .check = [&] { return taken = check(); }},
      [&](ByteView bytes) { return taken = greeted ? take(bytes) : greet(bytes); });
  if (!taken.ok()) return taken;
  if (!received.ok()) return explained(received.error());
  if (!greeted) return first.rfind(kLocalError, 0) == 0 ? refusal(first) : stopping();
  return {};
}

}  // namespace litefs
