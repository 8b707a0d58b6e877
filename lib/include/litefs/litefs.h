/** @file litefs.h
 * @brief liblitefs: replicated SQLite, the C interface.
 *
 * It is C89 and C++, and includes nothing.
 *
 * A program opens a node (litefs_open), registers the SQLite VFS "litefs" for it (sqlite3_litefs_register), and opens
 * databases as "file:NAME?vfs=litefs". On the primary they are read and written, on a replica they are read. When all
 * connections are closed it closes the node (litefs_close).
 *
 * CAVEATS
 *
 * - The interface is young: until version 1.0 a new minor version may change it. The shared library's name
 *   carries the minor version until then, so that a program never runs with a library it was not built for.
 * - What is not declared here is not exported by the shared library, and is nobody's to use.
 * - The files below DATA/db are the node's while it is open. This process must not open or close them but through the
 *   VFS: closing any descriptor of a file drops all locks that SQLite has on it in the process (fcntl(2)). Another
 *   process may open them with a plain SQLite, read-only.
 * - Several processes of one machine may open nodes on one data directory, with the same options and the same version of
 *   the library. One of them runs the node, the others use it through that one; nothing else tells them apart. When it
 *   ends, in whatever way, another one runs the node on, with all connections open and no commit lost. Meanwhile what
 *   needs the node waits, up to 30 seconds. So it does while that process is stopped (SIGSTOP) and not dead, after which
 *   opens answer SQLITE_BUSY; but the end of a transaction in a rollback mode then waits for as long as it lives, as that
 *   process may have begun to make it final. A mount has its data directory alone.
 * - After fork() the child can use neither the node nor connections that were opened before: every call answers
 *   LITEFS_FORKED, every use of a connection an error. It has none of the node's descriptors, so that it keeps neither
 *   the data directory nor the port when the parent ends. It may open a node of its own; on the same data directory it
 *   is a process like any other. To register the VFS for it, it first closes the connections of before (sqlite3_close,
 *   which then does nothing to their files). Like any child that uses SQLite, it must have been forked while no other
 *   thread was in a call of SQLite.
 *
 * CONVENTIONS
 *
 * - Functions are named litefs_verb_noun or litefs_noun, types litefs_noun, constants LITEFS_NOUN. Those that belong to
 *   SQLite's interface begin with sqlite3_litefs, and answer SQLite's result codes.
 * - Functions answer LITEFS_OK or one of the other results, where nothing else is said; litefs_message then has a
 *   sentence about it. What an error leaves in output arguments is said at each function; else they are as before.
 * - A structure that may grow begins with its size in bytes, which its owner sets: the caller for what he hands in
 *   (LITEFS_OPTIONS_INIT), the library for what it hands out. Members beyond that size are not there.
 * - No function lets a C++ exception out. Each says from which threads it may be called.
 * - Text is UTF-8 and ends with a zero byte. Who frees it is said at each function.
 *
 * LICENCE: Apache-2.0, see the file LICENSE.
 */
#ifndef LITEFS_LITEFS_H
#define LITEFS_LITEFS_H

/** Version of this header. The build checks that it is the library's. */
#define LITEFS_VERSION_MAJOR 0
#define LITEFS_VERSION_MINOR 1
#define LITEFS_VERSION_PATCH 0
#define LITEFS_VERSION_STRING "0.1.0"

/** One number that grows with the version, for comparisons by the preprocessor. */
#define LITEFS_VERSION_NUMBER \
  (LITEFS_VERSION_MAJOR * 1000000 + LITEFS_VERSION_MINOR * 1000 + LITEFS_VERSION_PATCH)

#if defined(__GNUC__)
#define LITEFS_API __attribute__((visibility("default")))
#define LITEFS_EXTENSION __extension__
#else
#define LITEFS_API
#define LITEFS_EXTENSION
#endif

#ifdef __cplusplus
extern "C" {
#endif

LITEFS_EXTENSION typedef unsigned long long litefs_uint64;
LITEFS_EXTENSION typedef long long litefs_int64;

/** @brief The version of the library that is running.
 *
 * It may differ from LITEFS_VERSION_STRING, the version that the caller was compiled with.
 *
 * @return "MAJOR.MINOR.PATCH"; lives as long as the process, not to be freed.
 * Errors: none. Threads: any, at any time.
 */
LITEFS_API const char *litefs_version(void);

/** @name Results. */
/**@{*/
#define LITEFS_OK 0
#define LITEFS_IO 1           /**< the operating system refused; the message has its reason */
#define LITEFS_CORRUPT 2      /**< bytes from a disk or a peer do not mean what they must */
#define LITEFS_NOT_FOUND 3    /**< the named thing does not exist */
#define LITEFS_EXISTS 4       /**< the named thing exists already */
#define LITEFS_INVALID 5      /**< an argument is wrong */
#define LITEFS_BUSY 6         /**< somebody else holds what is needed; trying later may help */
#define LITEFS_NO_SPACE 7     /**< a disk or a configured limit is full */
#define LITEFS_READONLY 8     /**< this node does not take writes now */
#define LITEFS_UNSUPPORTED 9  /**< known, and not done here */
#define LITEFS_UNAVAILABLE 10 /**< a peer, a service or a feature of the kernel is missing */
#define LITEFS_DIVERGED 11    /**< two histories disagree */
#define LITEFS_TIMED_OUT 12   /**< the deadline has passed */
#define LITEFS_CANCELLED 13   /**< the node is being closed */
#define LITEFS_NO_MEMORY 14   /**< no memory */
#define LITEFS_FORKED 15      /**< the process is a fork of the one that opened the node */
#define LITEFS_INTERNAL 16    /**< a fault of the library */
/**@}*/

/** @brief What a result is, in a few words.
 *
 * @return lives as long as the process, not to be freed; "unknown result" for other numbers.
 * Errors: none. Threads: any, at any time.
 */
LITEFS_API const char *litefs_result_text(int result);

/** @brief A node: the databases of one data directory, in one role, replicating. */
typedef struct litefs_node litefs_node;

/** @name Levels of log lines. */
/**@{*/
#define LITEFS_LOG_DEBUG 1
#define LITEFS_LOG_INFO 2
#define LITEFS_LOG_WARNING 3
#define LITEFS_LOG_ERROR 4
/**@}*/

/** @brief Takes a log line: a message and key=value pairs, without a line end.
 *
 * It may be called by any thread, by several at once, from before litefs_open returns until litefs_close has. The line
 * is not the callee's after it returns. It must call nothing of this library or of SQLite.
 */
typedef void (*litefs_log_function)(void *context, int level, const char *line);

/** @brief How a node is to be opened.
 *
 * Begin with LITEFS_OPTIONS_INIT. A member that is 0 has its default.
 */
typedef struct litefs_options {
  /** sizeof(litefs_options) */
  unsigned size;
  /** A configuration file (litefs.yml), as the program `litefs` has it. What concerns a mount, `exec` and the log's
   * format has no effect here. With it the members from data_dir to retention_bytes must be 0. */
  const char *config_path;
  /** The data directory, made where it is missing. Its file system must be a local one. Required. */
  const char *data_dir;
  /** Where other nodes reach this one: "HOST:PORT", or ":PORT" for all addresses. Port 0 is any free one
   * (litefs_address tells). Default ":20202". */
  const char *listen;
  /** What other nodes call this one. Default: the machine's name. */
  const char *hostname;
  /** "http://HOST:PORT", where the primary listens. Required on a replica. */
  const char *primary_url;
  /** Not 0: this node is the primary. Exactly one node of a cluster may be (the static lease). */
  int candidate;
  /** How long transactions stay in the log for replicas that are away. Default 24 hours. */
  litefs_uint64 retention_ms;
  /** And how many bytes of them at most, for each database. Default 1 GiB. */
  litefs_uint64 retention_bytes;
  /** Takes log lines of at least log_level. Default: no log. */
  litefs_log_function log;
  void *log_context;
  /** LITEFS_LOG_…; default LITEFS_LOG_INFO, or what the configuration file says. */
  int log_level;
} litefs_options;

/** @brief The value to begin with. */
#define LITEFS_OPTIONS_INIT \
  { (unsigned)sizeof(litefs_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/** @brief Opens a node, recovers its databases, and begins to replicate.
 *
 * It starts threads, which have all signals blocked. It returns as soon as the node runs: a replica may not have
 * reached its primary yet.
 *
 * @param[in] options  copied.
 * @param[out] node  the node. After an error, too (but LITEFS_NO_MEMORY, where it is NULL), for litefs_message and
 * litefs_close, which must be called, and for nothing else.
 * Errors: LITEFS_INVALID (options), LITEFS_NOT_FOUND (no such configuration file), LITEFS_BUSY (the data
 * directory's node is a mount's, and the message names its process; or the process that runs it does not answer; or this
 * process has one open on it already; or the port is in use), LITEFS_NO_SPACE, LITEFS_READONLY,
 * LITEFS_CORRUPT, LITEFS_UNAVAILABLE, LITEFS_IO. A database that cannot be opened is no error: litefs_list_databases
 * shows it.
 * Threads: any.
 */
LITEFS_API int litefs_open(const litefs_options *options, litefs_node **node);

/** @brief Captures what has been committed, tells the peers, ends the threads, and frees the handle.
 *
 * Unregisters the VFS where it is registered for this node.
 *
 * @param node  NULL is allowed, and has no effect.
 * Errors: LITEFS_BUSY: SQLite connections are open by the VFS, or this is a callback; the node goes on as before.
 * LITEFS_FORKED. After LITEFS_OK the handle is invalid.
 * Threads: any, while no other call with this handle is under way.
 */
LITEFS_API int litefs_close(litefs_node *node);

/** @brief A sentence about the last call with this handle that failed.
 *
 * @return for the calling thread, until it calls this again; empty where nothing has failed. Not to be freed.
 * Errors: none. Threads: any. Where several threads use one handle it may be another thread's failure.
 */
LITEFS_API const char *litefs_message(litefs_node *node);

/** @brief Frees what the library has handed out to be freed. NULL has no effect.
 *
 * Errors: none. Threads: any, at any time.
 */
LITEFS_API void litefs_free(void *memory);

/** @name Roles. */
/**@{*/
#define LITEFS_ROLE_STARTING 0 /**< neither yet */
#define LITEFS_ROLE_PRIMARY 1  /**< takes writes */
#define LITEFS_ROLE_REPLICA 2  /**< follows a primary */
/**@}*/

/** @brief The node's role now.
 *
 * @param[out] role  LITEFS_ROLE_…
 * Errors: LITEFS_FORKED. Threads: any.
 */
LITEFS_API int litefs_role(litefs_node *node, int *role);

/** @brief The primary's host name as this node knows it.
 *
 * @param[out] host_name  to be freed with litefs_free. Empty on the primary itself, and where it is not known: before
 * the first connection to it.
 * Errors: LITEFS_NO_MEMORY, LITEFS_FORKED. Threads: any.
 */
LITEFS_API int litefs_primary(litefs_node *node, char **host_name);

/** @brief Where other nodes reach this one, with the port that it has got.
 *
 * @param[out] address  "HOST:PORT"; to be freed with litefs_free.
 * Errors: LITEFS_NO_MEMORY, LITEFS_FORKED. Threads: any.
 */
LITEFS_API int litefs_address(litefs_node *node, char **address);

/** @brief How far a database has come.
 *
 * Positions are ordered by epoch, then TXID. Equal positions of two nodes mean equal databases.
 */
typedef struct litefs_position {
  litefs_uint64 epoch;    /**< the term of the primary that wrote the last transaction */
  litefs_uint64 txid;     /**< counts transactions, from 1; 0: there has been none */
  litefs_uint64 checksum; /**< over all pages */
} litefs_position;

/** @brief A database, as it is listed. */
typedef struct litefs_database {
  unsigned size;            /**< of what the library filled in */
  const char *name;         /**< relative to DATA/db */
  const char *state;        /**< "ready", or "opening", "fenced", "loading", "stopped" */
  const char *detail;       /**< why, where it is not ready; else empty */
  litefs_position position; /**< captured (on a primary what was committed a moment ago may be missing), or applied */
  unsigned page_size;       /**< in bytes */
  litefs_uint64 size_bytes; /**< of the database itself */
  litefs_int64 lag_ms;      /**< behind the primary; -1: not known */
  litefs_uint64 log_bytes;  /**< of its change log */
} litefs_database;

/** @brief Takes one database of a list. What `database` leads to lives until it returns.
 *
 * @return 0 to go on, anything else to end the list.
 */
typedef int (*litefs_database_function)(void *context, const litefs_database *database);

/** @brief Lists the node's databases, by name.
 *
 * A database is listed when it has a page, is being loaded, or is stopped.
 *
 * @param each  called for each of them on the calling thread; may call any function but litefs_close.
 * Errors: LITEFS_INVALID (each is NULL), LITEFS_NO_MEMORY, LITEFS_FORKED. Threads: any.
 */
LITEFS_API int litefs_list_databases(litefs_node *node, litefs_database_function each, void *context);

/** @brief A database on a replica that is connected to this node, as it is listed. */
typedef struct litefs_replica {
  unsigned size;                   /**< of what the library filled in */
  const char *host_name;           /**< what the replica calls itself */
  const char *address;             /**< where its connection comes from */
  litefs_uint64 node_id;           /**< the replica's, for as long as it has its data directory */
  litefs_int64 connected_since_ms; /**< milliseconds since 1970 */
  const char *database;            /**< its name; empty: the replica has no database yet, and this is its only entry */
  litefs_uint64 txid;              /**< up to which the replica has said that it has received */
  litefs_uint64 behind_txids;      /**< transactions that this node has above that */
} litefs_replica;

/** @brief Takes one database of one replica. What `replica` leads to lives until it returns.
 *
 * @return 0 to go on, anything else to end the list.
 */
typedef int (*litefs_replica_function)(void *context, const litefs_replica *replica);

/** @brief Lists the replicas that are connected, with their databases.
 *
 * On a replica there are none.
 *
 * @param each  called for each database of each of them on the calling thread; may call any function but litefs_close.
 * Errors: LITEFS_INVALID (each is NULL), LITEFS_NO_MEMORY, LITEFS_FORKED. Threads: any.
 */
LITEFS_API int litefs_list_replicas(litefs_node *node, litefs_replica_function each, void *context);

/** @brief The position of a database.
 *
 * On a primary it first captures what has been committed: who asks after his own commit gets at least that.
 *
 * @param database  its name.
 * Errors: LITEFS_NOT_FOUND; LITEFS_IO and others where the database is stopped or cannot be captured; LITEFS_FORKED.
 * Threads: any. It may do as much disk I/O as there is to be captured.
 */
LITEFS_API int litefs_get_position(litefs_node *node, const char *database, litefs_position *position);

/** @brief Sleeps until a database has reached a position.
 *
 * It is enough that the database has been there and is further on. One that is as far, or further, and has not been
 * there has another history, as after a primary that died before it had sent its last commits or lost them in a power
 * cut: that is an error. Of a position from before the node's change log it cannot be told.
 *
 * @param database  its name. It need not exist yet.
 * @param position  what to wait for. With epoch 0 the TXID alone counts; with checksum 0 it is not compared. So
 * {0, 1, 0} is until the database exists and has content.
 * @param timeout_ms  how long at most; 0 only asks.
 * Errors: LITEFS_TIMED_OUT; LITEFS_DIVERGED: the database has another history, on a replica still at the
 * deadline; LITEFS_IO: it is stopped; LITEFS_INVALID, LITEFS_FORKED.
 * Threads: any. The node must not be closed meanwhile.
 */
LITEFS_API int litefs_wait_position(litefs_node *node, const char *database, const litefs_position *position,
                                    unsigned timeout_ms);

/** @brief How far the node is behind its primary: the most of its databases.
 *
 * @param[out] lag_ms  0 on the primary. It grows while the primary is not heard of.
 * Errors: LITEFS_UNAVAILABLE: not known, as the primary has not been reached yet. LITEFS_FORKED. Threads: any.
 */
LITEFS_API int litefs_lag(litefs_node *node, litefs_int64 *lag_ms);

/** @brief Makes this node the primary.
 *
 * Errors: LITEFS_UNSUPPORTED: the node's lease cannot do that (the static one, the only one so far). LITEFS_FORKED.
 * Threads: any.
 */
LITEFS_API int litefs_promote(litefs_node *node);

/** @brief Makes another node the primary in this one's place, without losing a transaction.
 *
 * @param host_name  the successor; NULL is the one that has come furthest.
 * Errors: LITEFS_UNSUPPORTED, as litefs_promote. LITEFS_FORKED. Threads: any.
 */
LITEFS_API int litefs_handoff(litefs_node *node, const char *host_name);

/** @brief Told of the node's role, and of who the primary is, when one of the two changes.
 *
 * @param primary  the primary's host name, as litefs_primary has it; lives until this returns.
 */
typedef void (*litefs_role_function)(void *context, int role, const char *primary);

/** @brief Sets who is told of roles.
 *
 * It is called soon with the role that is now, then for each change. Calls come one at a time, on a thread of the
 * library; they may call any function but litefs_close. What changes while one is under way is told of once, as it is
 * then.
 *
 * @param told  NULL: nobody. When this returns the one before is not called any more (but for the call from within
 * which this is called).
 * Errors: LITEFS_NO_MEMORY, LITEFS_FORKED. Threads: any.
 */
LITEFS_API int litefs_on_role(litefs_node *node, litefs_role_function told, void *context);

/** @brief Told of a database's new position: transactions were captured, or applied.
 *
 * @param database  its name; lives until this returns.
 * @param position  where it is now. Several transactions may have been told of at once.
 */
typedef void (*litefs_transaction_function)(void *context, const char *database, const litefs_position *position);

/** @brief Sets who is told of transactions.
 *
 * As litefs_on_role, but that it is not called for what was before.
 * Errors: LITEFS_NO_MEMORY, LITEFS_FORKED. Threads: any.
 */
LITEFS_API int litefs_on_transaction(litefs_node *node, litefs_transaction_function told, void *context);

/** @brief Registers the SQLite VFS "litefs" for a node.
 *
 * "file:NAME?vfs=litefs" is then the database DATA/db/NAME (NAME may have slashes; the absolute path works too; nothing
 * outside of DATA/db does). On the primary SQLITE_OPEN_CREATE makes it; on a replica it can be opened as soon as the node
 * knows of it (litefs_wait_position). Journal modes are WAL, DELETE, TRUNCATE and PERSIST; MEMORY and OFF are refused
 * when they are asked for, as their transactions could not be captured. On a replica a write answers SQLITE_READONLY as
 * soon as its lock is asked for. Why something is refused is said by sqlite3_log. Temporary and in-memory databases are
 * SQLite's own.
 *
 * @param make_default  not 0: connections that name no VFS have this one.
 * @return an SQLite result: SQLITE_OK; SQLITE_BUSY: the VFS is registered for another node of this process (maybe by
 * the extension), or connections of before a fork are still open; SQLITE_MISUSE: the node is not open; SQLITE_ERROR: the
 * process is a fork of the one that opened the node, or SQLite has no VFS "unix".
 * Threads: any.
 */
LITEFS_API int sqlite3_litefs_register(litefs_node *node, int make_default);

/** @brief Takes the VFS away again.
 *
 * @return an SQLite result: SQLITE_OK, also where it is not registered for this node; SQLITE_BUSY: connections are open
 * by it, and it stays.
 * Threads: any.
 */
LITEFS_API int sqlite3_litefs_unregister(litefs_node *node);

struct sqlite3;

/** @brief Gives an SQLite connection the functions and tables that tell of the node.
 *
 * The node is the one that the VFS is registered for when they are called. DB is a database's name; without it they are
 * about the connection's main database, which must have been opened by the VFS.
 *
 *   litefs_role()            'primary', 'replica' or 'starting'
 *   litefs_primary()         the primary's host name; NULL on the primary, and where it is not known
 *   litefs_txid([DB])        the TXID of its position, as litefs_get_position
 *   litefs_position([DB])    'TXID/CHECKSUM', each 16 hex digits
 *   litefs_wait(TXID, MS [, DB])   as litefs_wait_position: 1, or 0 at the deadline. TXID may be what litefs_position
 *                            answers: then the checksum counts, too, and another one is an error. Not for triggers and
 *                            views.
 *   litefs_lag()             as litefs_lag; NULL where it is not known
 *   litefs_message()         why the VFS last refused something to this thread; NULL where it has not
 *   litefs_databases         a table of litefs_list_databases: name, state, detail, epoch, txid, checksum, position,
 *                            page_size, size_bytes, lag_ms, log_bytes
 *   litefs_replicas          a table of litefs_list_replicas: hostname, address, node_id, connected_since_ms, database,
 *                            txid, behind_txids
 *
 * Checksums and node ids are text of 16 hex digits. What is not known or does not apply is NULL.
 *
 * @return an SQLite result: SQLITE_OK, SQLITE_NOMEM, SQLITE_MISUSE (db is NULL).
 * Threads: as SQLite's functions with this connection.
 */
LITEFS_API int sqlite3_litefs_functions(struct sqlite3 *db);

#ifdef __cplusplus
}
#endif

#endif /* LITEFS_LITEFS_H */
