/* A guest book on every node of a cluster: the C interface of liblitefs, from opening a node to closing it.
 *
 *   guestbook LITEFS.YML                              a node as the configuration file says
 *   guestbook DIRECTORY HOST:PORT                     the primary: keeps its data in DIRECTORY, listens at HOST:PORT
 *   guestbook DIRECTORY HOST:PORT http://HOST:PORT    a replica of the primary at that URL
 *
 * It reads commands from its input, one a line:
 *
 *   sign TEXT         writes an entry, and answers the position at which the book has it: "signed at
 * 1/3/8d1d7d2f0e0e6a5c" read              prints the book as it is on this node now read POSITION     waits until this
 * node has come to POSITION, then prints: who has signed sees his entry on any node
 *
 * and prints changes of its role, and the transactions that it captures or receives, as they come. To try it, in two
 * terminals:
 *
 *   ./guestbook /tmp/book1 127.0.0.1:20201
 *   ./guestbook /tmp/book2 127.0.0.1:20202 http://127.0.0.1:20201
 *
 *   cc -o guestbook guestbook.c $(pkg-config --cflags --libs litefs)
 */
#include <litefs/litefs.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#define DATABASE "book.db"

enum { WAIT_MS = 10000, BUSY_MS = 5000, LINE_BYTES_MAX = 4096 };

typedef struct {
  litefs_node* node;
  sqlite3* db; /* NULL until it is needed */
} guestbook;

/* ---- What the node and SQLite tell. These are called by their threads: printf() is safe there, little else is. ----
 */

static void print_role(void* context, int role, const char* primary) {
  (void)context;
  switch (role) {
    case LITEFS_ROLE_PRIMARY: printf("role: primary\n"); break;
    case LITEFS_ROLE_REPLICA: printf("role: replica of %s\n", *primary ? primary : "a primary not reached yet"); break;
    default: printf("role: starting\n");
  }
}

static void print_transaction(void* context, const char* database, const litefs_position* position) {
  (void)context;
  printf("%s is at transaction %llu\n", database, position->txid);
}

static void print_node_log(void* context, int level, const char* line) {
  (void)context;
  (void)level;
  fprintf(stderr, "litefs: %s\n", line);
}

/* SQLite's log says why the VFS refuses something, which a result code alone cannot. */
static void print_sqlite_log(void* context, int code, const char* message) {
  (void)context;
  fprintf(stderr, "sqlite (%d): %s\n", code, message);
}

/* ---- The book ---- */

static void close_book(guestbook* book) {
  sqlite3_close(book->db); /* NULL is allowed */
  book->db = NULL;
}

/* Opens this node's copy where it is not open. A replica has none before the primary has made one and it has come here.
 * After an error, too, there is a handle, which has the message. Answers an SQLite result. */
static int open_book(guestbook* book, int flags) {
  int code;
  if (book->db) return SQLITE_OK;
  code =
      sqlite3_open_v2("file:" DATABASE "?vfs=litefs", &book->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI | flags, NULL);
  return code == SQLITE_OK ? sqlite3_busy_timeout(book->db, BUSY_MS) : code;
}

/* Says why something was not done. The connection is not used again: where the database was replaced as a whole, it
 * would get nothing but errors. */
static void give_up(guestbook* book, const char* what, int code) {
  char* primary = NULL;
  if ((code & 0xff) != SQLITE_READONLY) {
    printf("cannot %s: %s\n", what, book->db ? sqlite3_errmsg(book->db) : sqlite3_errstr(code));
  } else if (litefs_primary(book->node, &primary) == LITEFS_OK) {
    printf("cannot %s: this node is a replica of %s\n", what, *primary ? primary : "a primary not reached yet");
  }
  litefs_free(primary);
  close_book(book);
}

static int add_entry(sqlite3* db, const char* text) {
  sqlite3_stmt* insert = NULL;
  int code = sqlite3_exec(db,
                          "PRAGMA journal_mode=WAL;"
                          "CREATE TABLE IF NOT EXISTS entry(id INTEGER PRIMARY KEY, text NOT NULL)",
                          NULL, NULL, NULL);
  if (code == SQLITE_OK) code = sqlite3_prepare_v2(db, "INSERT INTO entry(text) VALUES(?)", -1, &insert, NULL);
  if (code != SQLITE_OK) return code;
  sqlite3_bind_text(insert, 1, text, -1, SQLITE_STATIC);
  sqlite3_step(insert);
  return sqlite3_finalize(insert); /* answers what the step did */
}

/* Tries, on any node: a replica answers SQLITE_READONLY. Asking for the role first would not do, as it may change
 * between the question and the write. */
static void sign(guestbook* book, const char* text) {
  litefs_position at;
  int code = open_book(book, SQLITE_OPEN_CREATE);
  if (code == SQLITE_OK) code = add_entry(book->db, text);
  if (code != SQLITE_OK) {
    give_up(book, "sign", code);
    return;
  }
  /* Asked after the commit, so it has this entry; perhaps another's, too, that came right after it. */
  if (litefs_get_position(book->node, DATABASE, &at) != LITEFS_OK) {
    printf("signed, at an unknown position: %s\n", litefs_message(book->node));
    return;
  }
  printf("signed at %llu/%llu/%016llx\n", at.epoch, at.txid, at.checksum);
}

static int wait_for(guestbook* book, const char* text) {
  litefs_position position;
  char rest;
  if (sscanf(text, "%llu/%llu/%llx%c", &position.epoch, &position.txid, &position.checksum, &rest) != 3) {
    printf("'%s' is no position, which is EPOCH/TXID/CHECKSUM\n", text);
    return 0;
  }
  if (litefs_wait_position(book->node, DATABASE, &position, WAIT_MS) != LITEFS_OK) {
    printf("not there: %s\n", litefs_message(book->node));
    return 0;
  }
  return 1;
}

static void read_book(guestbook* book) {
  sqlite3_stmt* entries = NULL;
  int code = open_book(book, 0);
  if (code == SQLITE_OK) {
    code = sqlite3_prepare_v2(book->db, "SELECT id, text FROM entry ORDER BY id", -1, &entries, NULL);
  }
  if (code == SQLITE_OK) {
    while (sqlite3_step(entries) == SQLITE_ROW) {
      printf("%d. %s\n", sqlite3_column_int(entries, 0), (const char*)sqlite3_column_text(entries, 1));
    }
    code = sqlite3_finalize(entries);
  }
  if (code != SQLITE_OK) {
    give_up(book, "read", code);
    return;
  }
  printf("that is the book\n");
}

static void answer(guestbook* book, const char* line) {
  if (strncmp(line, "sign ", 5) == 0) {
    sign(book, line + 5);
  } else if (strcmp(line, "read") == 0 || (strncmp(line, "read ", 5) == 0 && wait_for(book, line + 5))) {
    read_book(book);
  } else if (strncmp(line, "read ", 5) != 0) {
    printf("commands: sign TEXT, read, read POSITION\n");
  }
}

/* ---- The node ---- */

static int open_node(int argc, char** argv, litefs_node** node) {
  litefs_options options = LITEFS_OPTIONS_INIT;
  if (argc == 2) {
    options.config_path = argv[1];
  } else {
    options.data_dir = argv[1];
    options.listen = argv[2];
    options.primary_url = argc == 4 ? argv[3] : NULL;
    options.candidate = argc == 3; /* a cluster has one primary: the node that is the candidate */
  }
  options.log = print_node_log;
  options.log_level = LITEFS_LOG_WARNING;
  return litefs_open(&options, node);
}

static void print_address(litefs_node* node) {
  char* address = NULL;
  if (litefs_address(node, &address) == LITEFS_OK) printf("open at %s\n", address);
  litefs_free(address);
}

int main(int argc, char** argv) {
  guestbook book = {NULL, NULL};
  char line[LINE_BYTES_MAX];
  int failed;
  if (argc < 2 || argc > 4) {
    fprintf(stderr, "usage: guestbook LITEFS.YML | DIRECTORY HOST:PORT [PRIMARY_URL]\n");
    return 2;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);                          /* lines at once, through a pipe, too */
  sqlite3_config(SQLITE_CONFIG_LOG, print_sqlite_log, NULL); /* before SQLite's first use */

  if (open_node(argc, argv, &book.node) != LITEFS_OK) {
    fprintf(stderr, "cannot open the node: %s\n", litefs_message(book.node));
    litefs_close(book.node); /* after an error, too */
    return 1;
  }
  print_address(book.node);
  litefs_on_role(book.node, print_role, NULL);
  litefs_on_transaction(book.node, print_transaction, NULL);
  failed = sqlite3_litefs_register(book.node, 0) != SQLITE_OK;
  if (failed) fprintf(stderr, "cannot register the VFS\n");

  while (!failed && fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = '\0';
    answer(&book, line);
  }

  close_book(&book); /* connections first: a node with open ones cannot be closed */
  if (litefs_close(book.node) != LITEFS_OK) {
    fprintf(stderr, "cannot close the node: %s\n", litefs_message(book.node));
    failed = 1;
  }
  return failed;
}
