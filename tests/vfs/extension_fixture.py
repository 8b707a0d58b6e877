"""Nodes in Python programs (extension_node.py), each in a process of its own. What goes wrong is raised."""

import json
import os
import re
import select
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ANSWER_S = 60
END_S = 30


class NodeError(Exception):
    """What the program's sqlite3 has said."""


class Node:
    """A program whose directory holds its litefs.yml, data and log."""

    def __init__(self, extension, directory, **environment):
        self.directory = directory
        self.log_path = os.path.join(directory, "log")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LITEFS_")}
        self.errors = open(os.path.join(directory, "stderr"), "a+")
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "extension_node.py"), extension], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.errors, env={**inherited, "LITEFS_LOG": self.log_path, **environment})
        self.pending = b""

    def send(self, *request):
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self):
        end = time.monotonic() + ANSWER_S
        while b"\n" not in self.pending:
            if not select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]:
                raise RuntimeError("no answer in %d s" % ANSWER_S)
            read = os.read(self.process.stdout.fileno(), 65536)
            if not read:
                raise RuntimeError("the program has ended: " + self.standard_error())
            self.pending += read
        line, self.pending = self.pending.split(b"\n", 1)
        answer = json.loads(line)
        if "error" in answer:
            raise NodeError(answer["error"])
        return answer["rows"]

    def do(self, *request):
        self.send(*request)
        return self.receive()

    def load(self):
        self.do("load", "loader")
        return self

    def open(self, connection="c", name="file:app.db?vfs=litefs"):
        self.do("open", connection, name)
        return self

    def sql(self, text, connection="c"):
        return self.do("sql", connection, text)

    def value(self, text, connection="c"):
        return self.sql(text, connection)[0][0]

    def error(self, *request):
        """The error that this must get."""
        try:
            rows = self.do(*request)
        except NodeError as error:
            return str(error)
        raise AssertionError("no error for %r: %r" % (request, rows))

    def standard_error(self):
        self.errors.seek(0)
        return self.errors.read()

    def join(self):
        """Waits for its end, which must be in order."""
        status = self.process.wait(timeout=END_S)
        if status != 0:
            raise RuntimeError("it ended with %d: %s" % (status, self.standard_error()))

    def stop(self):
        self.process.stdin.close()
        self.join()

    def clean_up(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()


def write_config(directory, candidate, listen="127.0.0.1:0", primary="127.0.0.1:1"):
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "litefs.yml")
    with open(path, "w") as out:
        out.write('data:\n  dir: "%s/data"\nhttp:\n  addr: "%s"\nlease:\n  type: static\n' % (directory, listen) +
                  '  hostname: %s\n  candidate: %s\n' % (os.path.basename(directory), str(candidate).lower()) +
                  '  advertise-url: "http://%s"\n' % primary)
    return path


def address_in(log_path):
    """Where a primary listens, by what it has logged last."""
    end = time.monotonic() + ANSWER_S
    while time.monotonic() < end:
        with open(log_path) as log:
            found = re.findall(r"INFO primary .*addr=(\S+)", log.read())
        if found:
            return found[-1]
        time.sleep(0.01)
    raise RuntimeError("the primary does not say where it listens: " + log_path)
