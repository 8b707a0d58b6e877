/* A node within SQLite's test programs: called at the end of each sqlite3_initialize() (SQLITE_EXTRA_INIT), so that
** "litefs" is the default VFS again after a test has shut SQLite down and begun anew.
**
** LITEFS_SUITE_DATA is the node's data directory; without it the programs are SQLite's own. LITEFS_SUITE_LOG is a file
** that the node's log lines are added to, each with its level in front.
*/
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "litefs/litefs.h"
#include "sqlite3.h"

static litefs_node *node;
static int closed;
static int log_file = -1;

static void log_line(void *context, int level, const char *line) {
  static const char *const kLevels[] = {"?", "debug", "info", "warning", "error"};
  char text[2000];
  int size = snprintf(text, sizeof text, "%s %.1900s\n", kLevels[level >= 1 && level <= 4 ? level : 0], line);
  (void)context;
  /* One write, so that the lines of several threads stay whole. */
  if (log_file >= 0 && write(log_file, text, (size_t)size) != size) abort();
}

static int log_stopped(void *context, const litefs_database *database) {
  char text[1000];
  if (strcmp(database->state, "stopped") == 0) {
    snprintf(text, sizeof text, "stopped at the end database=%s detail=%s", database->name, database->detail);
    log_line(context, LITEFS_LOG_ERROR, text);
  }
  return 0;
}

static void close_node(void) {
  if (litefs_list_databases(node, log_stopped, 0) != LITEFS_OK) return; /* a forked child's exit */
  closed = 1;
  /* Where a test leaves connections open the node cannot be closed, and ends with the process as in any program. */
  litefs_close(node);
  node = 0;
}

static void open_node(const char *data) {
  litefs_options options = LITEFS_OPTIONS_INIT;
  const char *log = getenv("LITEFS_SUITE_LOG");
  if (log) log_file = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  options.data_dir = data;
  options.listen = "127.0.0.1:0";
  options.hostname = "suite";
  options.candidate = 1;
  options.log = log_line;
  if (litefs_open(&options, &node) != LITEFS_OK) {
    fprintf(stderr, "litefs: no node on %s: %s\n", data, litefs_message(node));
    /* SQLite would go on with "unix" alone, past the node whose database it is. */
    _exit(99);
  }
  atexit(close_node);
}

int litefs_suite_init(const char *unused) {
  const char *data = getenv("LITEFS_SUITE_DATA");
  (void)unused;
  if (!data || closed) return SQLITE_OK;
  if (!node) open_node(data);
  return sqlite3_litefs_register(node, 1);
}
