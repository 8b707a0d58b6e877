// Node's local socket: what programs of this machine ask (local_requests.h).
#include <algorithm>

#include "node/local_requests.h"
#include "node/node.h"

namespace litefs {
namespace {

constexpr size_t kStatusClientsMax = 16;
constexpr size_t kExportsMax = 16;

}  // namespace

void Node::status_client(std::unique_ptr<Stream> stream) {
  std::erase_if(status_clients_, [](const auto& client) { return !client->is_open(); });
  if (status_clients_.size() >= kStatusClientsMax) return;
  Stream* raw = stream.get();
  status_clients_.push_back(std::move(stream));
  StreamEvents events;
  auto line = std::make_shared<std::string>();
  events.on_data = [this, raw, line](ByteView data) {
    line->append(reinterpret_cast<const char*>(data.data()), data.size());
    size_t end = line->find('\n');
    if (end == std::string::npos && line->size() < kLocalRequestBytesMax) return;
    answer_local(raw, line->substr(0, end));
  };
  events.on_closed = [](const Status&) {};
  raw->start(std::move(events));
}

// `client` is one of status_clients_ and may be gone afterwards.
void Node::answer_local(Stream* client, const std::string& line) {
  Result<LocalRequest> request = parse_local_request(line);
  std::string reply;
  if (!request.ok()) {
    reply = local_error(request.error());
  } else if (request.value().kind == LocalRequest::Kind::kStatus) {
    reply = status_reply(status_on_loop(), line, env_.clock.wall_ms());
  } else if (request.value().kind == LocalRequest::Kind::kImport) {
    Status allowed = may_import(request.value().argument);
    reply = allowed.ok() ? kLocalOk + options_.fuse_dir + "/" + request.value().argument + "\n"
                         : local_error(allowed.error());
  } else if (std::shared_ptr<Database> database = store_.find(request.value().argument)) {
    return start_export(client, std::move(database));
  } else {
    reply = local_error(Error(ErrorCode::kNotFound, "there is no database '" + request.value().argument + "'"));
  }
  client->write(as_bytes(reply));
  client->finish();
}

Status Node::may_import(const std::string& name) {
  TRY(check_database_name(name));
  if (options_.fuse_dir.empty()) {
    return Error(ErrorCode::kUnsupported,
                 "this node has no mount to import through, as it runs in an application; that can copy the "
                 "database, by SQLite's backup interface, or VACUUM INTO 'file:NAME?vfs=litefs'");
  }
  if (!is_primary()) {
    std::string host = primary_host_name();
    return Error(ErrorCode::kReadOnly, "this node is a replica; import on the primary, " +
                                           (host.empty() ? "" : host + " ") + "(http://" + options_.primary.text() +
                                           ")");
  }
  if (store_.is_foreign(name)) {
    return Error(ErrorCode::kExists, options_.data_dir + "/db/" + name + " is no SQLite database and in the way");
  }
  std::shared_ptr<Database> database = store_.find(name);
  if (!database) return {};
  DatabaseInfo info = database->info();
  // One that does not exist yet, or was deleted, is opened by its creation.
  if (info.state == DatabaseState::kReady || (info.state == DatabaseState::kOpening && info.size_pages == 0)) return {};
  return Error(ErrorCode::kBusy, "'" + name + "' is " + database_state_name(info.state) +
                                     (info.detail.empty() ? "" : ": " + info.detail));
}

void Node::start_export(Stream* client, std::shared_ptr<Database> database) {
  std::erase_if(exports_, [](const auto& session) { return session->ended(); });
  auto it = std::find_if(status_clients_.begin(), status_clients_.end(),
                         [client](const auto& owned) { return owned.get() == client; });
  CHECK(it != status_clients_.end());
  std::unique_ptr<Stream> stream = std::move(*it);
  status_clients_.erase(it);
  if (exports_.size() >= kExportsMax) {
    stream->write(as_bytes(local_error(Error(ErrorCode::kBusy, "too many exports are under way"))));
    return stream->finish();
  }
  // Sessions with replicas count their holds from 1.
  const uint64_t hold = ~next_export_++;
  exports_.push_back(ExportSession::start(FeedThreads{*loop_, workers_}, std::move(stream), std::move(database), hold));
}

}  // namespace litefs
