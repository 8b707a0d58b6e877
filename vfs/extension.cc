// The loadable extension litefs_vfs.so: the VFS, the SQL functions, and the node of a program that knows neither.
//
// Loading registers the VFS "litefs" and starts the node of the configuration file that LITEFS_CONFIG names; without
// it, the first open with the URI parameter litefs_config=FILE does. LITEFS_DEFAULT=1 makes the VFS SQLite's default.
// LITEFS_LOG=stderr or a file's name is where the node logs. The functions are there on the connection that loads it
// and on each that is opened later. It stays loaded and the node runs until the process ends, which stops it in order.
// Thread rule: any thread.
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "env/fork_guard.h"
#include "env/quiet_signals.h"
#include "litefs/litefs.h"
#include "vfs/functions.h"
#include "vfs/registration.h"
#include "vfs/sqlite_api.h"

SQLITE_EXTENSION_INIT1

namespace litefs {
namespace {

// The version that it is built for and tested with; what SQLite has gained since is not used.
constexpr int kSqliteMin = 3040000;
// How long a process that ends waits for its node.
constexpr std::chrono::seconds kEndMax{10};

// Never destroyed: other threads may use it while the process ends.
struct Extension {
  std::atomic<ForkGuard*> guard{nullptr};  // set with the node, never destroyed
  Mutex mutex;
  litefs_node* node GUARDED_BY(mutex) = nullptr;
  std::string config GUARDED_BY(mutex);  // the node's, absolute
  bool ending GUARDED_BY(mutex) = false;
  bool ends_in_order GUARDED_BY(mutex) = false;  // std::atexit knows
  bool is_registered GUARDED_BY(mutex) = false;
  bool is_default GUARDED_BY(mutex) = false;
  std::FILE* log GUARDED_BY(mutex) = nullptr;
};

Extension& extension() {
  static Extension& one = *new Extension;
  return one;
}

// Whether the node is another process's, from which this one was forked. Asked before the mutex, which another thread
// may have had at that moment.
bool forked(const Extension& self) {
  const ForkGuard* guard = self.guard;
  return guard && guard->forked();
}

Error invalid(const std::string& why) { return Error(ErrorCode::kInvalid, why); }

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// ---- the log ----

void write_log(void* file, int level, const char* line) {
  constexpr const char* kNames[] = {"?", "DEBUG", "INFO", "WARN", "ERROR"};
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char time[32];
  std::strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &parts);
  const bool known = level >= LITEFS_LOG_DEBUG && level <= LITEFS_LOG_ERROR;
  // Names come from users and peers, and must not end the line or steer a terminal.
  std::string shown(line);
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < ' ' || c == 127) c = '?';
  }
  // One call for a line, as several threads log.
  std::fprintf(static_cast<std::FILE*>(file), "%s.%03dZ litefs %s %s\n", time, static_cast<int>(ms),
               kNames[known ? level : 0], shown.c_str());
  std::fflush(static_cast<std::FILE*>(file));
}

Status open_log(Extension& self) REQUIRES(self.mutex) {
  const std::string name = variable("LITEFS_LOG");
  if (self.log || name.empty()) return {};
  self.log = name == "stderr" ? stderr : std::fopen(name.c_str(), "ae");
  return self.log ? Status() : Status(Error(ErrorCode::kIo, "LITEFS_LOG: " + name + ": " + std::strerror(errno)));
}

// ---- the end of the process ----

// Connections may be open, and other threads use them: then the node's threads end, after all that has been committed
// is captured and told of, but nothing is freed. What is committed from then on is captured by the next start.
void end_node(std::chrono::steady_clock::time_point until) {
  litefs_node* node = nullptr;
  {
    Extension& self = extension();
    MutexLock lock(self.mutex);
    self.ending = true;
    node = std::exchange(self.node, nullptr);
  }
  if (litefs_close(node) == LITEFS_OK || !node->member()) return;
  if (node_users().end(until)) node->member()->end();
}

// A thread of its own does it, so that whatever it meets does not keep the process from ending: what is then left
// undone the next start does, as after a SIGKILL.
void on_exit() {
  if (forked(extension())) return;
  struct Ended {
    std::mutex mutex;
    std::condition_variable told;
    bool is_so = false;
  };
  Ended& ended = *new Ended;  // the thread may outlive this call
  const auto until = std::chrono::steady_clock::now() + kEndMax;
  try {
    QuietSignals quiet;
    std::thread([until, &ended] {
      end_node(until);
      std::lock_guard lock(ended.mutex);
      ended.is_so = true;
      ended.told.notify_all();
    }).detach();
  } catch (const std::exception&) {
    return;
  }
  std::unique_lock lock(ended.mutex);
  ended.told.wait_until(lock, until, [&] { return ended.is_so; });
}

// ---- the node ----

Status open_node(Extension& self, const std::string& config) REQUIRES(self.mutex) {
  TRY(open_log(self));
  litefs_options options = LITEFS_OPTIONS_INIT;
  options.config_path = config.c_str();
  if (self.log) {
    options.log = write_log;
    options.log_context = self.log;
  }
  std::unique_ptr<ForkGuard> guard = TRY(ForkGuard::create());
  litefs_node* node = nullptr;
  if (litefs_open(&options, &node) != LITEFS_OK) {
    const std::string message = litefs_message(node);
    litefs_close(node);
    return Error(ErrorCode::kUnavailable, message);
  }
  if (bind_node(node) != SQLITE_OK) {
    litefs_close(node);
    return Error(ErrorCode::kBusy, "this process has a node already");
  }
  self.config = config;
  self.node = node;
  self.guard = guard.release();
  if (!self.ends_in_order) self.ends_in_order = std::atexit(on_exit) == 0;
  return {};
}

// The one node is that of `config`, from here on.
Status start_node(Extension& self, const std::string& config) REQUIRES(self.mutex) {
  if (self.ending) return Error(ErrorCode::kCancelled, kEnding);
  std::error_code error;
  const std::string path = std::filesystem::weakly_canonical(config, error).string();
  if (error) return invalid(config + ": " + error.message());
  if (!self.node) return open_node(self, path);
  return path == self.config ? Status()
                             : invalid("the node of this process is that of " + self.config + ", not of " + path);
}

// NodeStarter.
Status start_for(const char* name) {
  Extension& self = extension();
  // The open itself says so.
  if (forked(self)) return {};
  const char* config = name ? sqlite3_uri_parameter(name, "litefs_config") : nullptr;
  MutexLock lock(self.mutex);
  if (config) return start_node(self, config);
  if (self.ending) return Error(ErrorCode::kCancelled, kEnding);
  if (self.node) return {};
  return Error(ErrorCode::kUnavailable,
               std::string(kNoNode) +
                   ": set LITEFS_CONFIG to its configuration file before the extension is loaded, or "
                   "open a database as file:NAME?vfs=litefs&litefs_config=FILE");
}

// ---- loading ----

int on_open(sqlite3* db, char**, const sqlite3_api_routines*) { return add_functions(db); }

Result<bool> wants_default() {
  const std::string value = variable("LITEFS_DEFAULT");
  if (value == "1") return true;
  if (value.empty() || value == "0") return false;
  return invalid("LITEFS_DEFAULT is '" + value + "', and not 0 or 1");
}

Status register_once(Extension& self) REQUIRES(self.mutex) {
  if (is_taken()) return Error(ErrorCode::kBusy, "this program has the VFS 'litefs' already, from liblitefs");
  const bool make_default = TRY(wants_default());
  if (const std::string config = variable("LITEFS_CONFIG"); !config.empty()) {
    Status started = start_node(self, config);
    if (!started.ok()) return started.error().with_context("LITEFS_CONFIG");
  }
  // Registering it again would change which VFS is the default.
  if (self.is_registered && (self.is_default || !make_default)) return {};
  if (register_vfs(make_default, start_for) != SQLITE_OK) {
    return Error(ErrorCode::kUnsupported, "this SQLite has no VFS 'unix' that the VFS 'litefs' could stand on");
  }
  self.is_registered = true;
  self.is_default = make_default;
  return {};
}

Status load(sqlite3* db, const sqlite3_api_routines* api) {
  Extension& self = extension();
  if (forked(self)) {
    return Error(ErrorCode::kUnsupported, "this process was forked from one that has loaded it, and cannot use it");
  }
  MutexLock lock(self.mutex);
  if (sqlite3_api && sqlite3_api != api) {
    return Error(ErrorCode::kUnsupported, "another SQLite library in this process has loaded it already");
  }
  sqlite3_api = api;
  if (sqlite3_libversion_number() < kSqliteMin) {
    return Error(ErrorCode::kUnsupported,
                 std::string("it needs SQLite 3.40 or newer; this is ") + sqlite3_libversion());
  }
  TRY(register_once(self));
  const auto entry = reinterpret_cast<void (*)()>(on_open);
  if (sqlite3_auto_extension(entry) == SQLITE_OK && add_functions(db) == SQLITE_OK) return {};
  return Error(ErrorCode::kUnavailable, "its functions cannot be added: " + std::string(sqlite3_errmsg(db)));
}

}  // namespace
}  // namespace litefs

extern "C" LITEFS_API int sqlite3_litefsvfs_init(sqlite3* db, char** message, const sqlite3_api_routines* api) {
  std::string why;
  try {
    litefs::Status loaded = litefs::load(db, api);
    if (loaded.ok()) return SQLITE_OK_LOAD_PERMANENTLY;
    why = "litefs: " + loaded.error().message();
  } catch (const std::bad_alloc&) {
    return SQLITE_NOMEM;
  } catch (const std::exception& error) {
    why = error.what();
  }
  if (message) *message = api->mprintf("%s", why.c_str());
  return SQLITE_ERROR;
}
