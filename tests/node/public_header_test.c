/* A C program that knows only the public header, SQLite and the shared library, and uses all of it. */
#include <litefs/litefs.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

#define CHECK(condition)                                             \
  do {                                                               \
    if (!(condition)) {                                              \
      printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                    \
    }                                                                \
  } while (0)

static void check_version(void) {
  char text[64];
  int number = LITEFS_VERSION_MAJOR * 1000000 + LITEFS_VERSION_MINOR * 1000 + LITEFS_VERSION_PATCH;
  sprintf(text, "%d.%d.%d", LITEFS_VERSION_MAJOR, LITEFS_VERSION_MINOR, LITEFS_VERSION_PATCH);
  CHECK(strcmp(text, LITEFS_VERSION_STRING) == 0);
  CHECK(number == LITEFS_VERSION_NUMBER);
  CHECK(strcmp(litefs_version(), LITEFS_VERSION_STRING) == 0);
}

static void check_results(void) {
  int result;
  for (result = LITEFS_OK; result <= LITEFS_INTERNAL; ++result) {
    CHECK(strcmp(litefs_result_text(result), "unknown result") != 0);
  }
  CHECK(strcmp(litefs_result_text(-1), "unknown result") == 0);
}

static void on_log(void* context, int level, const char* line) {
  (void)context;
  if (level >= LITEFS_LOG_WARNING) printf("%s\n", line);
}

static void on_role(void* context, int role, const char* primary) { (void)context, (void)role, (void)primary; }

static void on_transaction(void* context, const char* database, const litefs_position* position) {
  (void)context, (void)database, (void)position;
}

static int on_database(void* context, const litefs_database* database) {
  CHECK(database->size == sizeof(litefs_database));
  CHECK(strcmp(database->name, "c.db") == 0);
  CHECK(strcmp(database->state, "ready") == 0);
  CHECK(*database->detail == '\0');
  CHECK(database->page_size != 0 && database->size_bytes != 0 && database->lag_ms == 0);
  ++*(int*)context;
  return 0;
}

static int on_replica(void* context, const litefs_replica* replica) {
  (void)context, (void)replica;
  CHECK(!"no replica is connected");
  return 0;
}

static int on_row(void* context, int columns, char** values, char** names) {
  (void)names;
  CHECK(columns == 3 && strcmp(values[0], "primary") == 0 && strcmp(values[1], "c.db") == 0);
  CHECK(strcmp(values[2], "1") == 0);
  ++*(int*)context;
  return 0;
}

static void check_sql(litefs_node* node) {
  sqlite3* db = NULL;
  litefs_position before, after;
  int count = 0;
  CHECK(sqlite3_open_v2("file:c.db?vfs=litefs", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI,
                        NULL) == SQLITE_OK);
  CHECK(sqlite3_exec(db, "PRAGMA journal_mode=WAL; CREATE TABLE t(v)", NULL, NULL, NULL) == SQLITE_OK);
  CHECK(litefs_get_position(node, "c.db", &before) == LITEFS_OK);
  CHECK(sqlite3_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL) == SQLITE_OK);
  CHECK(litefs_get_position(node, "c.db", &after) == LITEFS_OK);
  CHECK(after.txid == before.txid + 1 && after.epoch == before.epoch && after.checksum != before.checksum);
  CHECK(litefs_wait_position(node, "c.db", &after, 0) == LITEFS_OK);
  ++after.txid;
  CHECK(litefs_wait_position(node, "c.db", &after, 1) == LITEFS_TIMED_OUT);
  CHECK(litefs_list_databases(node, on_database, &count) == LITEFS_OK && count == 1);
  CHECK(litefs_list_replicas(node, on_replica, NULL) == LITEFS_OK);
  CHECK(sqlite3_litefs_functions(NULL) == SQLITE_MISUSE);
  CHECK(sqlite3_litefs_functions(db) == SQLITE_OK);
  CHECK(sqlite3_exec(db, "SELECT litefs_role(), name, txid = litefs_txid() FROM litefs_databases", on_row, &count,
                     NULL) == SQLITE_OK && count == 2);
  CHECK(sqlite3_litefs_unregister(node) == SQLITE_BUSY);
  CHECK(litefs_close(node) == LITEFS_BUSY);
  CHECK(sqlite3_close(db) == SQLITE_OK);
}

static void check_node(const char* data_dir) {
  litefs_options options = LITEFS_OPTIONS_INIT;
  litefs_node* node = NULL;
  litefs_int64 lag_ms = -1;
  char* text = NULL;
  int role = LITEFS_ROLE_STARTING;
  CHECK(litefs_open(&options, &node) == LITEFS_INVALID);
  CHECK(strstr(litefs_message(node), "data_dir") != NULL);
  CHECK(litefs_close(node) == LITEFS_OK);

  options.data_dir = data_dir;
  options.listen = "127.0.0.1:0";
  options.hostname = "c";
  options.candidate = 1;
  options.log = on_log;
  options.log_level = LITEFS_LOG_WARNING;
  if (litefs_open(&options, &node) != LITEFS_OK) {
    printf("%s\n", litefs_message(node));
    exit(1);
  }
  CHECK(litefs_role(node, &role) == LITEFS_OK && role == LITEFS_ROLE_PRIMARY);
  CHECK(litefs_primary(node, &text) == LITEFS_OK && *text == '\0');
  litefs_free(text);
  CHECK(litefs_address(node, &text) == LITEFS_OK && strncmp(text, "127.0.0.1:", 10) == 0);
  litefs_free(text);
  while (litefs_lag(node, &lag_ms) == LITEFS_UNAVAILABLE) {
  }
  CHECK(lag_ms == 0);
  CHECK(litefs_promote(node) == LITEFS_UNSUPPORTED);
  CHECK(litefs_handoff(node, NULL) == LITEFS_UNSUPPORTED);
  CHECK(litefs_on_role(node, on_role, NULL) == LITEFS_OK);
  CHECK(litefs_on_transaction(node, on_transaction, NULL) == LITEFS_OK);
  CHECK(sqlite3_litefs_register(NULL, 0) == SQLITE_MISUSE);
  CHECK(sqlite3_litefs_register(node, 0) == SQLITE_OK);
  CHECK(sqlite3_vfs_find("litefs") != NULL);
  check_sql(node);
  CHECK(litefs_close(node) == LITEFS_OK);
  CHECK(sqlite3_vfs_find("litefs") == NULL);
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  check_version();
  check_results();
  check_node(argv[1]);
  return failures == 0 ? 0 : 1;
}
