#!/usr/bin/env python3
"""Notes on two nodes: a primary, which takes them, and a replica, which has its own live copy.

  python3 examples/python/notes.py                                        with litefs_vfs.so installed
  LITEFS_EXTENSION=build/vfs/litefs_vfs python3 examples/python/notes.py  with the one of a build

The program is plain sqlite3. It loads the extension once, and opens its database by the VFS "litefs". Here both nodes
are processes of this machine, in a directory that is removed at the end. It exits with 0 if all went as told.
"""

import multiprocessing
import os
import socket
import sqlite3
import sys
import tempfile

NOTES = "file:notes.db?vfs=litefs"
WAIT_MS = 10000


def load_litefs():
    """Starts the node of the file that LITEFS_CONFIG names. This connection can ask about it, and so can later ones."""
    connection = sqlite3.connect(":memory:")
    connection.enable_load_extension(True)
    connection.load_extension(os.environ.get("LITEFS_EXTENSION", "litefs_vfs"))
    connection.enable_load_extension(False)
    return connection


def primary(config, to_replica, done):
    os.environ["LITEFS_CONFIG"] = config
    load_litefs()
    notes = sqlite3.connect(NOTES, uri=True)
    notes.execute("PRAGMA journal_mode=WAL")
    with notes:
        notes.execute("CREATE TABLE note(text)")
        notes.executemany("INSERT INTO note VALUES(?)", [("buy milk",), ("water the plants",)])
    role, position = notes.execute("SELECT litefs_role(), litefs_position()").fetchone()
    print("the %s has taken 2 notes, and is at %s" % (role, position), flush=True)
    to_replica.send(position)
    done.wait()


def replica(config, from_primary):
    os.environ["LITEFS_CONFIG"] = config
    node = load_litefs()
    position = from_primary.recv()
    # Whoever has written there wants to read it here: wait for that very state.
    arrived, = node.execute("SELECT litefs_wait(?, ?, 'notes.db')", (position, WAIT_MS)).fetchone()
    if not arrived:
        sys.exit("the notes did not arrive")
    notes = sqlite3.connect(NOTES, uri=True)
    role, lag_ms = notes.execute("SELECT litefs_role(), litefs_lag()").fetchone()
    print("the %s, %s ms behind, reads %s" % (role, lag_ms, [text for text, in notes.execute("SELECT text FROM note")]))
    try:
        notes.execute("INSERT INTO note VALUES('not here')")
    except sqlite3.OperationalError as error:
        host_name, = notes.execute("SELECT litefs_primary()").fetchone()
        print("a write on it fails (%s): the primary is %s" % (error, host_name), flush=True)
        return
    sys.exit("the replica took a write")


def write_config(directory, name, address, primary_address):
    path = os.path.join(directory, name + ".yml")
    with open(path, "w") as out:
        out.write('data:\n  dir: "%s/%s"\nhttp:\n  addr: "%s"\n' % (directory, name, address) +
                  'lease:\n  type: static\n  hostname: %s\n' % name +
                  '  candidate: %s\n' % ("true" if name == "primary" else "false") +
                  '  advertise-url: "http://%s"\n' % primary_address)
    return path


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % probe.getsockname()[1]


def main():
    # Not "fork": a node stays in the process that has started it.
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="litefs-notes-") as directory:
        address = free_address()
        from_primary, to_replica = processes.Pipe(duplex=False)
        done = processes.Event()
        first = processes.Process(
            target=primary, args=(write_config(directory, "primary", address, address), to_replica, done))
        second = processes.Process(
            target=replica, args=(write_config(directory, "replica", "127.0.0.1:0", address), from_primary))
        first.start()
        second.start()
        # Closed here, so that the replica sees the end of a primary that dies.
        to_replica.close()
        second.join()
        done.set()
        first.join()
        return 0 if first.exitcode == 0 and second.exitcode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
