#include "node/c_api.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>
#include <map>
#include <new>
#include <optional>
#include <utility>

#include "env/process.h"
#include "env/quiet_signals.h"
#include "litefs/litefs.h"
#include "node/open_options.h"

using namespace litefs;

namespace {

int result_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kIo: return LITEFS_IO;
    case ErrorCode::kCorrupt: return LITEFS_CORRUPT;
    case ErrorCode::kNotFound: return LITEFS_NOT_FOUND;
    case ErrorCode::kExists: return LITEFS_EXISTS;
    case ErrorCode::kInvalid: return LITEFS_INVALID;
    case ErrorCode::kBusy: return LITEFS_BUSY;
    case ErrorCode::kNoSpace: return LITEFS_NO_SPACE;
    case ErrorCode::kReadOnly: return LITEFS_READONLY;
    case ErrorCode::kUnsupported: return LITEFS_UNSUPPORTED;
    case ErrorCode::kUnavailable: return LITEFS_UNAVAILABLE;
    case ErrorCode::kDiverged: return LITEFS_DIVERGED;
    case ErrorCode::kTimedOut: return LITEFS_TIMED_OUT;
    case ErrorCode::kCancelled: return LITEFS_CANCELLED;
  }
  return LITEFS_INTERNAL;
}

// Its threads take no signals, while the caller's thread does, as always: it may have to wait for another process.
Status open_quietly(litefs_node& node, const litefs_options& options) {
  std::future<Status> opened;
  {
    QuietSignals quiet;
    opened = std::async(std::launch::async, [&] { return node.open(options); });
  }
  return opened.get();
}

constexpr const char* kForked = "this process was forked from the one that opened the node, which it cannot use";

// Nothing of the handle but its guard is looked at in a forked process: a lock may have been held when it was made.
template <class Work>
int call(litefs_node* node, Work work) {
  if (!node) return LITEFS_INVALID;
  if (node->forked()) return LITEFS_FORKED;
  try {
    if (!node->member()) return node->fail(LITEFS_INVALID, "the node could not be opened");
    Status done = work(*node->member());
    return done.ok() ? LITEFS_OK : node->fail(result_of(done.error().code()), done.error().message());
  } catch (const std::bad_alloc&) {
    return LITEFS_NO_MEMORY;
  } catch (const std::exception& error) {
    return node->fail(LITEFS_INTERNAL, error.what());
  } catch (...) {
    return LITEFS_INTERNAL;
  }
}

Error missing(const char* argument) { return Error(ErrorCode::kInvalid, std::string(argument) + " is NULL"); }

Status hand_out(const std::string& text, char** out) {
  if (!out) return missing("the output argument");
  char* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (!copy) throw std::bad_alloc();
  std::memcpy(copy, text.c_str(), text.size() + 1);
  *out = copy;
  return {};
}

litefs_position position_of(const Position& position) {
  return {position.epoch.value, position.txid.value, position.checksum.value};
}

int role_of(NodeRole role) {
  switch (role) {
    case NodeRole::kStarting: return LITEFS_ROLE_STARTING;
    case NodeRole::kPrimary: return LITEFS_ROLE_PRIMARY;
    case NodeRole::kReplica: return LITEFS_ROLE_REPLICA;
  }
  return LITEFS_ROLE_STARTING;
}

const Error kFixedLease(ErrorCode::kUnsupported, "not supported by this lease: the static one has one primary");

}  // namespace

Status litefs_node::open(const litefs_options& options) {
  guard_ = TRY(ForkGuard::create());
  OpenOptions read = TRY(read_open_options(options));
  member_ = TRY(Member::open(read.options, read.log, *this));
  return {};
}

Status litefs_node::close() {
  if (events_.is_calling()) return Error(ErrorCode::kBusy, "the node cannot be closed from within a callback");
  std::function<Status()> before_close;
  {
    MutexLock lock(mutex_);
    before_close = before_close_;
  }
  if (before_close) TRY(before_close());
  events_.stop();
  member_.reset();
  return {};
}

void litefs_node::set_before_close(std::function<Status()> before_close) {
  MutexLock lock(mutex_);
  before_close_ = std::move(before_close);
}

int litefs_node::fail(int result, const std::string& message) {
  MutexLock lock(mutex_);
  message_ = message;
  return result;
}

std::string litefs_node::message() {
  MutexLock lock(mutex_);
  return message_;
}

extern "C" {

const char* litefs_result_text(int result) {
  switch (result) {
    case LITEFS_OK: return "no error";
    case LITEFS_IO: return "input or output failed";
    case LITEFS_CORRUPT: return "corrupt data";
    case LITEFS_NOT_FOUND: return "not found";
    case LITEFS_EXISTS: return "exists already";
    case LITEFS_INVALID: return "invalid argument";
    case LITEFS_BUSY: return "busy";
    case LITEFS_NO_SPACE: return "no space left";
    case LITEFS_READONLY: return "read-only";
    case LITEFS_UNSUPPORTED: return "not supported";
    case LITEFS_UNAVAILABLE: return "unavailable";
    case LITEFS_DIVERGED: return "diverged";
    case LITEFS_TIMED_OUT: return "timed out";
    case LITEFS_CANCELLED: return "cancelled";
    case LITEFS_NO_MEMORY: return "out of memory";
    case LITEFS_FORKED: return "used after a fork";
    case LITEFS_INTERNAL: return "internal fault";
    default: return "unknown result";
  }
}

int litefs_open(const litefs_options* options, litefs_node** node) {
  if (!node) return LITEFS_INVALID;
  *node = nullptr;
  try {
    *node = new litefs_node;
    Status opened = options ? open_quietly(**node, *options) : Status(missing("options"));
    if (opened.ok()) return LITEFS_OK;
    return (*node)->fail(result_of(opened.error().code()), opened.error().message());
  } catch (const std::bad_alloc&) {
    delete *node;
    *node = nullptr;
    return LITEFS_NO_MEMORY;
  } catch (const std::exception& error) {
    // Threads could not be started, or what the file system library throws.
    return *node ? (*node)->fail(LITEFS_UNAVAILABLE, error.what()) : LITEFS_NO_MEMORY;
  }
}

int litefs_close(litefs_node* node) {
  if (!node) return LITEFS_OK;
  if (node->forked()) return LITEFS_FORKED;
  try {
    Status closed = node->close();
    if (!closed.ok()) return node->fail(result_of(closed.error().code()), closed.error().message());
    delete node;
    return LITEFS_OK;
  } catch (const std::exception& error) {
    return node->fail(LITEFS_INTERNAL, error.what());
  }
}

const char* litefs_message(litefs_node* node) {
  if (!node) return "there is no node";
  if (node->forked()) return kForked;
  thread_local std::string text;
  try {
    text = node->message();
    return text.c_str();
  } catch (...) {
    return "";
  }
}

void litefs_free(void* memory) { std::free(memory); }

int litefs_role(litefs_node* node, int* role) {
  return call(node, [&](Member& self) -> Status {
    if (!role) return missing("role");
    *role = role_of(self.role());
    return {};
  });
}

int litefs_primary(litefs_node* node, char** host_name) {
  return call(node, [&](Member& self) { return hand_out(self.primary_host_name(), host_name); });
}

int litefs_address(litefs_node* node, char** address) {
  return call(node, [&](Member& self) -> Status { return hand_out(TRY(self.address()), address); });
}

int litefs_list_databases(litefs_node* node, litefs_database_function each, void* context) {
  return call(node, [&](Member& self) -> Status {
    if (!each) return missing("each");
    for (const DatabaseStatus& database : TRY(self.status()).databases) {
      litefs_database out;
      out.size = sizeof out;
      out.name = database.name.c_str();
      out.state = database_state_name(database.state);
      out.detail = database.detail.c_str();
      out.position = position_of(database.position);
      out.page_size = database.page_size;
      out.size_bytes = database.size_bytes;
      out.lag_ms = database.lag_ms.value_or(-1);
      out.log_bytes = database.log_bytes;
      if (each(context, &out) != 0) break;
    }
    return {};
  });
}

int litefs_list_replicas(litefs_node* node, litefs_replica_function each, void* context) {
  return call(node, [&](Member& self) -> Status {
    if (!each) return missing("each");
    const NodeStatus status = TRY(self.status());
    for (const PeerStatus& peer : status.peers) {
      litefs_replica out{};
      out.size = sizeof out;
      out.host_name = peer.hostname.c_str();
      out.address = peer.address.c_str();
      out.node_id = peer.node_id.value;
      out.connected_since_ms = peer.connected_since_ms;
      out.database = "";
      if (peer.databases.empty() && each(context, &out) != 0) return {};
      for (const PeerDatabaseStatus& database : peer.databases) {
        out.database = database.name.c_str();
        out.txid = database.txid.value;
        out.behind_txids = database.behind_txids;
        if (each(context, &out) != 0) return {};
      }
    }
    return {};
  });
}

int litefs_get_position(litefs_node* node, const char* database, litefs_position* position) {
  return call(node, [&](Member& self) -> Status {
    if (!database || !position) return missing(database ? "position" : "database");
    *position = position_of(TRY(self.position(database, true)));
    return {};
  });
}

int litefs_wait_position(litefs_node* node, const char* database, const litefs_position* position,
                         unsigned timeout_ms) {
  return call(node, [&](Member& self) -> Status {
    if (!database || !position) return missing(database ? "position" : "database");
    const Position wanted{Epoch{position->epoch}, TxId{position->txid}, Checksum{position->checksum}};
    return self.wait_position(database, wanted, std::chrono::milliseconds(timeout_ms));
  });
}

int litefs_lag(litefs_node* node, litefs_int64* lag_ms) {
  return call(node, [&](Member& self) -> Status {
    if (!lag_ms) return missing("lag_ms");
    std::optional<int64_t> lag = TRY(self.lag_ms());
    if (!lag) return Error(ErrorCode::kUnavailable, "the primary has not been reached yet");
    *lag_ms = *lag;
    return {};
  });
}

int litefs_promote(litefs_node* node) {
  return call(node, [](Member&) -> Status { return kFixedLease; });
}

int litefs_handoff(litefs_node* node, const char*) {
  return call(node, [](Member&) -> Status { return kFixedLease; });
}

int litefs_on_role(litefs_node* node, litefs_role_function told, void* context) {
  return call(node, [&](Member& self) -> Status {
    if (!told) {
      node->events().on_role(nullptr);
      return {};
    }
    using Role = std::pair<NodeRole, std::string>;
    node->events().on_role([&self, told, context, last = std::make_shared<std::optional<Role>>()] {
      Role now(self.role(), self.primary_host_name());
      if (*last == now) return;
      *last = std::move(now);
      told(context, role_of((*last)->first), (*last)->second.c_str());
    });
    return {};
  });
}

int litefs_on_transaction(litefs_node* node, litefs_transaction_function told, void* context) {
  return call(node, [&](Member& self) -> Status {
    if (!told) {
      node->events().on_position(nullptr);
      return {};
    }
    self.follow_positions();
    using Positions = std::map<std::string, Position>;
    node->events().on_position([&self, told, context, last = std::make_shared<Positions>()](const std::string& name) {
      Result<Position> now = self.position(name, false);
      // What waited during the last call may have been told of by it. A replica's database is known before it is there.
      if (!now.ok() || now.value().txid.value == 0 || (*last)[name] == now.value()) return;
      (*last)[name] = now.value();
      const litefs_position position = position_of(now.value());
      told(context, name.c_str(), &position);
    });
    return {};
  });
}

}  // extern "C"
