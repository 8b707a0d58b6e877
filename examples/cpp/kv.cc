// A key-value service on every node of a cluster: liblitefs and SQLite behind a line protocol, in C++.
//
//   kv LITEFS.YML PORT       a node as the configuration file says, serving on 127.0.0.1:PORT (0: any free port)
//
//   SET key value            "OK POSITION"; on a replica "MOVED primary-host-name": set it there
//   DEL key                  likewise
//   GET key [POSITION]       "VALUE value" or "NONE". With the POSITION of a SET: not before this node has that SET, so
//                            that who writes on the primary reads his own write on any replica ("LATE": not in time)
//   INFO                     "role=replica primary=db1 position=1/7/8d1d7d2f0e0e6a5c lag_ms=0 keys=5"
//
// What cannot be done is answered by "ERROR why". The service ends on SIGTERM and SIGINT. To try it, with the two
// litefs.yml of the README:
//
//   db1$ ./kv litefs.yml 7000 &         db2$ ./kv litefs.yml 7000 &
//   db1$ nc 127.0.0.1 7000              db2$ nc 127.0.0.1 7000
//   SET colour blue                     GET colour 1/3/46116f4b043c79f7
//   OK 1/3/46116f4b043c79f7             VALUE blue
//
//   c++ -std=c++17 -pthread -o kv kv.cc $(pkg-config --cflags --libs litefs)
#include <sqlite3.h>

#include <charconv>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <litefs/litefs.hpp>
#include <sstream>

#include "line_server.h"

namespace {

using namespace std::chrono_literals;

constexpr const char* kDatabase = "kv.db";
constexpr auto kWaitMax = 10s;
constexpr int kBusyMs = 5000;

// ---- SQLite, with owners and exceptions ----

struct SqlError : std::runtime_error {
  SqlError(int result, const std::string& message) : std::runtime_error(message), code(result & 0xff) {}
  int code;
};

struct CloseConnection {
  void operator()(sqlite3* db) const { sqlite3_close(db); }
};
using Connection = std::unique_ptr<sqlite3, CloseConnection>;

// Opens this node's copy. A replica has none before the primary has made it and it has come here.
Connection open_connection(int flags) {
  sqlite3* opened = nullptr;
  const std::string uri = std::string("file:") + kDatabase + "?vfs=litefs";
  const int code = sqlite3_open_v2(uri.c_str(), &opened, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI | flags, nullptr);
  Connection db(opened);
  if (code != SQLITE_OK) throw SqlError(code, opened ? sqlite3_errmsg(opened) : sqlite3_errstr(code));
  sqlite3_busy_timeout(opened, kBusyMs);
  return db;
}

// Runs one statement. The first row's first column, where there is one.
std::optional<std::string> run(const Connection& db, const char* sql, const std::vector<std::string>& parameters = {}) {
  sqlite3_stmt* prepared = nullptr;
  int code = sqlite3_prepare_v2(db.get(), sql, -1, &prepared, nullptr);
  const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> statement(prepared, sqlite3_finalize);
  if (code != SQLITE_OK) throw SqlError(code, sqlite3_errmsg(db.get()));
  int index = 0;
  for (const std::string& text : parameters) {
    sqlite3_bind_text(prepared, ++index, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
  }
  code = sqlite3_step(prepared);
  if (code != SQLITE_ROW && code != SQLITE_DONE) throw SqlError(code, sqlite3_errmsg(db.get()));
  if (code == SQLITE_DONE) return std::nullopt;
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(prepared, 0));
  return std::string(text ? text : "", static_cast<size_t>(sqlite3_column_bytes(prepared, 0)));
}

// ---- Positions as text: EPOCH/TXID/CHECKSUM ----

std::string to_text(const litefs_position& position) {
  char text[64];
  snprintf(text, sizeof text, "%llu/%llu/%016llx", position.epoch, position.txid, position.checksum);
  return text;
}

litefs_position to_position(const std::string& text) {
  litefs_position position{};
  char rest;
  if (sscanf(text.c_str(), "%llu/%llu/%llx%c", &position.epoch, &position.txid, &position.checksum, &rest) != 3) {
    throw std::invalid_argument("'" + text + "' is no position, which is EPOCH/TXID/CHECKSUM");
  }
  return position;
}

// ---- The service, for one client: a connection may be used by one thread at a time ----

class Session {
 public:
  explicit Session(const litefs::OpenNode& node) : node_(node) {}

  std::string answer(const std::string& line) {
    try {
      return run_command(line);
    } catch (const SqlError& error) {
      // A connection that met an error is not used again: where the database was replaced as a whole, it would get
      // nothing but errors.
      db_.reset();
      if (error.code == SQLITE_READONLY) return "MOVED " + primary();
      return std::string("ERROR ") + error.what();
    } catch (const std::exception& error) {
      return std::string("ERROR ") + error.what();
    }
  }

 private:
  std::string run_command(const std::string& line) {
    std::istringstream words(line);
    std::string verb, key, rest;
    words >> verb >> key >> std::ws;
    std::getline(words, rest);
    if (verb == "SET" && !key.empty()) {
      return write("INSERT INTO pair VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value", {key, rest});
    }
    if (verb == "DEL" && !key.empty() && rest.empty()) return write("DELETE FROM pair WHERE key = ?", {key});
    if (verb == "GET" && !key.empty()) return get(key, rest);
    if (verb == "INFO" && key.empty()) return info();
    return "ERROR the commands are: SET key value, DEL key, GET key [POSITION], INFO";
  }

  // Tries, on any node: a replica answers SQLITE_READONLY. Asking for the role first would not do, as it may change
  // between the question and the write.
  std::string write(const char* sql, const std::vector<std::string>& parameters) {
    if (!db_) db_ = open_connection(SQLITE_OPEN_CREATE);
    run(db_, "PRAGMA journal_mode=WAL");
    run(db_, "CREATE TABLE IF NOT EXISTS pair(key PRIMARY KEY, value NOT NULL) WITHOUT ROWID");
    run(db_, sql, parameters);
    // Asked after the commit, so it has this write; perhaps another client's, too, that came right after it.
    return "OK " + to_text(node_.position(kDatabase));
  }

  std::string get(const std::string& key, const std::string& position) {
    if (!position.empty() && !node_.wait(kDatabase, to_position(position), kWaitMax)) return "LATE";
    if (!db_) db_ = open_connection(0);
    const std::optional<std::string> value = run(db_, "SELECT value FROM pair WHERE key = ?", {key});
    return value ? "VALUE " + *value : "NONE";
  }

  // "-" on the primary itself, and before it is known.
  std::string primary() {
    const std::string host_name = node_.primary();
    return host_name.empty() ? "-" : host_name;
  }

  std::string info() {
    const bool is_primary = node_.role() == LITEFS_ROLE_PRIMARY;
    const std::optional<std::chrono::milliseconds> lag = node_.lag();
    const std::string position = to_text(node_.position(kDatabase));
    if (!db_) db_ = open_connection(0);
    return std::string("role=") + (is_primary ? "primary" : "replica") + " primary=" + primary() +
           " position=" + position + " lag_ms=" + (lag ? std::to_string(lag->count()) : "-") +
           " keys=" + run(db_, "SELECT count(*) FROM pair").value_or("-");
  }

  const litefs::OpenNode& node_;
  Connection db_;  // null until it is needed
};

// ---- The process ----

sigset_t ending_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

void log_line(const std::string& line) { std::cerr << line + "\n"; }

void serve(const char* config, uint16_t port) {
  litefs_options options = LITEFS_OPTIONS_INIT;
  options.config_path = config;
  options.log = [](void*, int, const char* line) { log_line(line); };
  litefs::OpenNode node(options);
  node.register_vfs();
  node.on_role([](int role, const std::string& primary) {
    log_line(role == LITEFS_ROLE_PRIMARY ? "this node is the primary" : "this node is a replica of " + primary);
  });
  {
    const LineServer server(port, [&node]() -> LineServer::Answer {
      auto session = std::make_shared<Session>(node);
      return [session](const std::string& line) { return session->answer(line); };
    });
    std::cout << "serving on 127.0.0.1:" << server.port() << ", node at " << node.address() << std::endl;
    const sigset_t signals = ending_signals();
    int signal;
    sigwait(&signals, &signal);
  }
  // All connections are closed now: before that the node cannot be.
  node.close();
}

}  // namespace

int main(int argc, char** argv) {
  uint16_t port = 0;
  if (argc == 3) {
    const std::string_view text(argv[2]);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (error != std::errc() || end != text.data() + text.size()) argc = 0;
  }
  if (argc != 3) {
    std::cerr << "usage: kv LITEFS.YML PORT\n";
    return 2;
  }
  // In every thread: SQLite's log says why the VFS refuses something, and sigwait() above takes the signals.
  sqlite3_config(
      SQLITE_CONFIG_LOG, +[](void*, int, const char* text) { log_line(std::string("sqlite: ") + text); }, nullptr);
  const sigset_t signals = ending_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  try {
    serve(argv[1], port);
  } catch (const std::exception& error) {
    std::cerr << "kv: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
