// litefs_databases and litefs_replicas: eponymous virtual tables, whose rows are taken when a scan begins.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/types.h"
#include "litefs/litefs.h"
#include "vfs/functions.h"
#include "vfs/registration.h"
#include "vfs/sqlite_api.h"

namespace litefs {
namespace {

// NULL where there is neither.
struct Value {
  Value() = default;
  Value(sqlite3_int64 given) : number(given) {}
  Value(std::string given) : text(std::move(given)) {}

  std::optional<sqlite3_int64> number;
  std::optional<std::string> text;
};
using Rows = std::vector<std::vector<Value>>;

struct Table {
  const char* name;
  const char* declaration;
  // One of LITEFS_…
  int (*fill)(litefs_node* node, Rows& rows);
};

// SQLite's integers have a sign.
sqlite3_int64 number(litefs_uint64 value) { return static_cast<sqlite3_int64>(value); }

int fill_databases(litefs_node* node, Rows& rows) {
  auto each = [](void* context, const litefs_database* database) {
    const litefs_position& at = database->position;
    const Value lag_ms = database->lag_ms < 0 ? Value() : Value(database->lag_ms);
    static_cast<Rows*>(context)->push_back(
        {std::string(database->name), std::string(database->state), std::string(database->detail), number(at.epoch),
         number(at.txid), hex16(at.checksum), hex16(at.txid) + "/" + hex16(at.checksum),
         sqlite3_int64{database->page_size}, number(database->size_bytes), lag_ms, number(database->log_bytes)});
    return 0;
  };
  return litefs_list_databases(node, each, &rows);
}

int fill_replicas(litefs_node* node, Rows& rows) {
  auto each = [](void* context, const litefs_replica* replica) {
    std::vector<Value> row = {std::string(replica->host_name), std::string(replica->address), hex16(replica->node_id),
                              sqlite3_int64{replica->connected_since_ms}};
    if (*replica->database) {
      row.insert(row.end(), {std::string(replica->database), number(replica->txid), number(replica->behind_txids)});
    } else {
      row.resize(7);
    }
    static_cast<Rows*>(context)->push_back(std::move(row));
    return 0;
  };
  return litefs_list_replicas(node, each, &rows);
}

constexpr Table kTables[] = {
    {"litefs_databases",
     "CREATE TABLE x(name TEXT, state TEXT, detail TEXT, epoch INTEGER, txid INTEGER, checksum TEXT, position TEXT, "
     "page_size INTEGER, size_bytes INTEGER, lag_ms INTEGER, log_bytes INTEGER)",
     fill_databases},
    {"litefs_replicas",
     "CREATE TABLE x(hostname TEXT, address TEXT, node_id TEXT, connected_since_ms INTEGER, database TEXT, "
     "txid INTEGER, behind_txids INTEGER)",
     fill_replicas},
};

struct OpenTable {
  sqlite3_vtab base;
  const Table* table;
};

struct Cursor {
  sqlite3_vtab_cursor base;
  Rows rows;
  size_t at;
};

Cursor* of(sqlite3_vtab_cursor* cursor) { return reinterpret_cast<Cursor*>(cursor); }

int connect(sqlite3* db, void* table, int, const char* const*, sqlite3_vtab** out, char**) {
  const auto* connected = static_cast<const Table*>(table);
  const int code = sqlite3_declare_vtab(db, connected->declaration);
  if (code != SQLITE_OK) return code;
  auto* open = new (std::nothrow) OpenTable{{}, connected};
  if (!open) return SQLITE_NOMEM;
  *out = &open->base;
  return SQLITE_OK;
}

int disconnect(sqlite3_vtab* table) {
  delete reinterpret_cast<OpenTable*>(table);
  return SQLITE_OK;
}

// All rows, always: they are few.
int best_index(sqlite3_vtab*, sqlite3_index_info* info) {
  info->estimatedCost = 1000;
  return SQLITE_OK;
}

int open_cursor(sqlite3_vtab*, sqlite3_vtab_cursor** out) {
  auto* cursor = new (std::nothrow) Cursor{{}, {}, 0};
  if (!cursor) return SQLITE_NOMEM;
  *out = &cursor->base;
  return SQLITE_OK;
}

int close_cursor(sqlite3_vtab_cursor* cursor) {
  delete of(cursor);
  return SQLITE_OK;
}

Status fill(const Table& table, Rows& rows) {
  const std::shared_ptr<Binding> binding = TRY(node_for(nullptr));
  NodeUser user(node_users());
  if (!user) return Error(ErrorCode::kCancelled, kEnding);
  litefs_node* node = &binding->handle();
  const int result = table.fill(node, rows);
  return result == LITEFS_OK ? Status() : Error(ErrorCode::kIo, litefs_message(node));
}

int filter(sqlite3_vtab_cursor* cursor, int, const char*, int, sqlite3_value**) {
  const Table& table = *reinterpret_cast<OpenTable*>(cursor->pVtab)->table;
  try {
    of(cursor)->rows.clear();
    of(cursor)->at = 0;
    Status filled = fill(table, of(cursor)->rows);
    if (filled.ok()) return SQLITE_OK;
    sqlite3_free(cursor->pVtab->zErrMsg);
    cursor->pVtab->zErrMsg = sqlite3_mprintf("%s: %s", table.name, filled.error().message().c_str());
    return SQLITE_ERROR;
  } catch (const std::exception&) {
    return SQLITE_NOMEM;
  }
}

int next_row(sqlite3_vtab_cursor* cursor) {
  ++of(cursor)->at;
  return SQLITE_OK;
}

int at_end(sqlite3_vtab_cursor* cursor) { return of(cursor)->at >= of(cursor)->rows.size(); }

int column(sqlite3_vtab_cursor* cursor, sqlite3_context* context, int index) {
  const Value& value = of(cursor)->rows[of(cursor)->at][static_cast<size_t>(index)];
  if (value.text) sqlite3_result_text(context, value.text->c_str(), -1, SQLITE_TRANSIENT);
  if (value.number) sqlite3_result_int64(context, *value.number);
  return SQLITE_OK;
}

int row_id(sqlite3_vtab_cursor* cursor, sqlite3_int64* out) {
  *out = static_cast<sqlite3_int64>(of(cursor)->at);
  return SQLITE_OK;
}

// Without xCreate a table is there under its module's name alone.
sqlite3_module make_module() {
  sqlite3_module module{};
  module.xConnect = connect;
  module.xBestIndex = best_index;
  module.xDisconnect = disconnect;
  module.xDestroy = disconnect;
  module.xOpen = open_cursor;
  module.xClose = close_cursor;
  module.xFilter = filter;
  module.xNext = next_row;
  module.xEof = at_end;
  module.xColumn = column;
  module.xRowid = row_id;
  return module;
}

const sqlite3_module kModule = make_module();

}  // namespace

int add_tables(sqlite3* db) {
  for (const Table& table : kTables) {
    const int code = sqlite3_create_module_v2(db, table.name, &kModule, const_cast<Table*>(&table), nullptr);
    if (code != SQLITE_OK) return code;
  }
  return SQLITE_OK;
}

}  // namespace litefs
