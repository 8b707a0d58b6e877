#include "vfs/functions.h"

#include <limits>
#include <optional>

#include "base/types.h"
#include "litefs/litefs.h"
#include "vfs/answers.h"
#include "vfs/file.h"
#include "vfs/registration.h"
#include "vfs/sqlite_api.h"

namespace litefs {
namespace {

// One call of a function, and the node that it is about.
struct Call {
  sqlite3_context* context;
  int argument_count;
  sqlite3_value** arguments;
  litefs_node* node;
};

Error invalid(const std::string& why) { return Error(ErrorCode::kInvalid, why); }

void answer_text(sqlite3_context* context, const std::string& text) {
  sqlite3_result_text(context, text.c_str(), -1, SQLITE_TRANSIENT);
}

// The interface's own error; the code is nobody's to look at.
Status checked(const Call& call, int result) {
  if (result == LITEFS_OK) return {};
  const std::string message = litefs_message(call.node);
  return Error(ErrorCode::kIo, message.empty() ? litefs_result_text(result) : message);
}

// The database that argument `at` names, or the connection's main one where there is none.
Result<std::string> database_of(const Call& call, int at) {
  if (call.argument_count > at) {
    const auto* name = reinterpret_cast<const char*>(sqlite3_value_text(call.arguments[at]));
    return name ? Result<std::string>(name) : invalid("the database's name is NULL");
  }
  const char* name = nullptr;
  sqlite3* db = sqlite3_context_db_handle(call.context);
  if (sqlite3_file_control(db, "main", kControlDatabaseName, &name) == SQLITE_OK && name) return std::string(name);
  return invalid("this connection's main database is none of litefs; name one as the last argument");
}

Result<litefs_position> position_of(const Call& call) {
  const std::string database = TRY(database_of(call, 0));
  litefs_position position{};
  TRY(checked(call, litefs_get_position(call.node, database.c_str(), &position)));
  return position;
}

Status role(const Call& call) {
  int role = LITEFS_ROLE_STARTING;
  TRY(checked(call, litefs_role(call.node, &role)));
  const char* text = role == LITEFS_ROLE_PRIMARY ? "primary" : role == LITEFS_ROLE_REPLICA ? "replica" : "starting";
  answer_text(call.context, text);
  return {};
}

Status primary(const Call& call) {
  char* host_name = nullptr;
  TRY(checked(call, litefs_primary(call.node, &host_name)));
  const std::unique_ptr<char, void (*)(void*)> freed(host_name, litefs_free);
  if (*host_name) answer_text(call.context, host_name);
  return {};
}

Status txid(const Call& call) {
  const litefs_position position = TRY(position_of(call));
  sqlite3_result_int64(call.context, static_cast<sqlite3_int64>(position.txid));
  return {};
}

Status position(const Call& call) {
  const litefs_position position = TRY(position_of(call));
  answer_text(call.context, hex16(position.txid) + "/" + hex16(position.checksum));
  return {};
}

Status lag(const Call& call) {
  litefs_int64 lag_ms = 0;
  const int result = litefs_lag(call.node, &lag_ms);
  if (result == LITEFS_UNAVAILABLE) return {};
  TRY(checked(call, result));
  sqlite3_result_int64(call.context, lag_ms);
  return {};
}

// Nothing where it is none. Some languages have no integers, and bind them as floating-point numbers.
std::optional<sqlite3_int64> integer_of(sqlite3_value* value) {
  const int type = sqlite3_value_numeric_type(value);
  const sqlite3_int64 integer = sqlite3_value_int64(value);
  if (type == SQLITE_INTEGER) return integer;
  if (type == SQLITE_FLOAT && static_cast<double>(integer) == sqlite3_value_double(value)) return integer;
  return std::nullopt;
}

// A TXID, or the text of a position.
Result<litefs_position> wanted_position(sqlite3_value* value) {
  litefs_position position{};
  if (std::optional<sqlite3_int64> txid = integer_of(value)) {
    if (*txid < 0) return invalid("the TXID is negative");
    position.txid = static_cast<litefs_uint64>(*txid);
    return position;
  }
  const auto* given = reinterpret_cast<const char*>(sqlite3_value_text(value));
  const std::string text = given ? given : "";
  Result<uint64_t> txid = parse_hex16(text.substr(0, 16));
  Result<uint64_t> checksum = parse_hex16(text.size() > 17 ? text.substr(17) : "");
  if (text.size() != 33 || text[16] != '/' || !txid.ok() || !checksum.ok()) {
    return invalid("what to wait for is neither a TXID nor a position as litefs_position() answers it");
  }
  position.txid = txid.value();
  position.checksum = checksum.value();
  return position;
}

Status wait(const Call& call) {
  const litefs_position wanted = TRY(wanted_position(call.arguments[0]));
  const std::optional<sqlite3_int64> timeout_ms = integer_of(call.arguments[1]);
  if (!timeout_ms || *timeout_ms < 0 || *timeout_ms > std::numeric_limits<unsigned>::max()) {
    return invalid("the timeout is no number of milliseconds from 0 to 4294967295");
  }
  const std::string database = TRY(database_of(call, 2));
  const int result = litefs_wait_position(call.node, database.c_str(), &wanted, static_cast<unsigned>(*timeout_ms));
  if (result != LITEFS_TIMED_OUT) TRY(checked(call, result));
  sqlite3_result_int(call.context, result == LITEFS_OK ? 1 : 0);
  return {};
}

struct Function {
  const char* name;
  int argument_count;
  int flags;
  Status (*run)(const Call& call);
};

constexpr Function kFunctions[] = {{"litefs_role", 0, 0, role},
                                   {"litefs_primary", 0, 0, primary},
                                   {"litefs_txid", 0, 0, txid},
                                   {"litefs_txid", 1, 0, txid},
                                   {"litefs_position", 0, 0, position},
                                   {"litefs_position", 1, 0, position},
                                   {"litefs_lag", 0, 0, lag},
                                   {"litefs_wait", 2, SQLITE_DIRECTONLY, wait},
                                   {"litefs_wait", 3, SQLITE_DIRECTONLY, wait}};

// Their error begins with the function's name. No exception gets out into SQLite.
void run(sqlite3_context* context, int argument_count, sqlite3_value** arguments) {
  const auto& function = *static_cast<const Function*>(sqlite3_user_data(context));
  try {
    Result<std::shared_ptr<Binding>> binding = node_for(nullptr);
    Status done = binding.ok() ? function.run({context, argument_count, arguments, &binding.value()->handle()})
                               : Status(binding.error());
    if (done.ok()) return;
    const std::string message = std::string(function.name) + ": " + done.error().message();
    sqlite3_result_error(context, message.c_str(), -1);
  } catch (const std::bad_alloc&) {
    sqlite3_result_error_nomem(context);
  } catch (const std::exception& error) {
    sqlite3_result_error(context, error.what(), -1);
  }
}

// It is most wanted where no node is.
void message(sqlite3_context* context, int, sqlite3_value**) {
  try {
    const std::string text = last_refusal();
    if (!text.empty()) answer_text(context, text);
  } catch (const std::bad_alloc&) {
    sqlite3_result_error_nomem(context);
  }
}

}  // namespace

// SQLITE_BUSY from SQLite: the connection has that very function, and a statement is under way (it may be the one that
// loads the extension once more), so that it cannot be put in its own place.
int add_functions(sqlite3* db) {
  for (const Function& function : kFunctions) {
    const int code =
        sqlite3_create_function_v2(db, function.name, function.argument_count, SQLITE_UTF8 | function.flags,
                                   const_cast<Function*>(&function), run, nullptr, nullptr, nullptr);
    if (code == SQLITE_BUSY) return SQLITE_OK;
    if (code != SQLITE_OK) return code;
  }
  const int code =
      sqlite3_create_function_v2(db, "litefs_message", 0, SQLITE_UTF8, nullptr, message, nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? add_tables(db) : code;
}

}  // namespace litefs

extern "C" int sqlite3_litefs_functions(sqlite3* db) { return db ? litefs::add_functions(db) : SQLITE_MISUSE; }
