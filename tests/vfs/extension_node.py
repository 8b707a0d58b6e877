"""A Python program with the extension, which knows of litefs what sqlite3 can say.

For a test it does what it is told by lines of its standard input, each a JSON list, and answers each by {"rows": …} or
{"error": …}:

  ["load", CONNECTION]              opens an in-memory database there, and loads the extension
  ["open", CONNECTION, NAME]        NAME may be a URI
  ["sql", CONNECTION, SQL]
  ["close", CONNECTION]
  ["load_in_threads", COUNT]        each with a connection of its own, at once
  ["load_in_another_sqlite", FILE]  by a copy of the SQLite library, in FILE; what it says
  ["fork", CONNECTION, LOADER]      what a forked process gets with one that is open, and one of load; it ends by exit()
  ["end", CONNECTION, SQL]          runs it, and ends with the connection open, while one thread waits for a transaction
                                    that never comes and another one commits

It ends at the end of its input, without closing anything.
"""

import ctypes
import json
import os
import sqlite3
import sys
import threading
import time

extension = sys.argv[1]
connections = {}


def load(name):
    connection = sqlite3.connect(name, check_same_thread=False, isolation_level=None)
    connection.enable_load_extension(True)
    connection.load_extension(extension)
    return connection


def connect(name):
    return sqlite3.connect(name, uri=name.startswith("file:"), check_same_thread=False, isolation_level=None)


def errors_of(*calls):
    errors = []
    for call in calls:
        try:
            errors.append("no error: %r" % (call(),))
        except sqlite3.Error as error:
            errors.append(str(error))
    return errors


def load_in_threads(count):
    failures = []

    def one():
        try:
            assert load(":memory:").execute("SELECT litefs_role()").fetchone()
        except Exception as error:
            failures.append(str(error))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def load_in_another_sqlite(path):
    sqlite = ctypes.CDLL(path)
    db, message = ctypes.c_void_p(), ctypes.c_char_p()
    assert sqlite.sqlite3_open(b":memory:", ctypes.byref(db)) == 0
    sqlite.sqlite3_enable_load_extension(db, 1)
    code = sqlite.sqlite3_load_extension(db, extension.encode(), None, ctypes.byref(message))
    return [code, (message.value or b"").decode()]


def fork(connection, loader):
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        errors = errors_of(lambda: connection.execute("SELECT * FROM t").fetchall(),
                           lambda: loader.execute("SELECT litefs_role()").fetchall(),
                           lambda: loader.execute("SELECT * FROM litefs_databases").fetchall(),
                           lambda: connect("file:app.db?vfs=litefs").execute("SELECT 1 FROM sqlite_schema"),
                           lambda: load(":memory:"))
        os.write(write_end, json.dumps(errors).encode())
        sys.exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        errors = json.loads(answer.read() or "[]")
    _, status = os.waitpid(child, 0)
    return errors + [status]


def end(connection, sql):
    name = connection.execute("SELECT file FROM pragma_database_list").fetchone()[0]
    waiting = connect("file:%s?vfs=litefs" % name)
    writing = connect("file:%s?vfs=litefs" % name)
    # Held for ever, so that Python does not close them either.
    for held in (connection, waiting, writing):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
    writing.execute("CREATE TABLE IF NOT EXISTS flood(x)")

    def flood():
        while True:
            writing.execute("INSERT INTO flood VALUES(1)")
            time.sleep(0.0005)  # so that the other connection gets the lock now and then

    def wait():
        waiting.execute("SELECT litefs_wait(1000000000, 4000000)")

    for work in (flood, wait):
        threading.Thread(target=work, daemon=True).start()
    connection.execute("PRAGMA busy_timeout=10000")
    connection.execute(sql)
    print(json.dumps({"rows": connection.execute("SELECT litefs_txid()").fetchall()}), flush=True)
    sys.exit(0)


def run(op, *arguments):
    if op == "load":
        connections[arguments[0]] = load(":memory:")
    elif op == "open":
        connections[arguments[0]] = connect(arguments[1])
    elif op == "sql":
        return connections[arguments[0]].execute(arguments[1]).fetchall()
    elif op == "close":
        connections.pop(arguments[0]).close()
    elif op == "load_in_threads":
        return load_in_threads(arguments[0])
    elif op == "load_in_another_sqlite":
        return load_in_another_sqlite(arguments[0])
    elif op == "fork":
        return fork(connections[arguments[0]], connections[arguments[1]])
    elif op == "end":
        end(connections[arguments[0]], arguments[1])
    else:
        raise ValueError(op)
    return []


for line in sys.stdin:
    try:
        answer = {"rows": run(*json.loads(line))}
    except sqlite3.Error as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
