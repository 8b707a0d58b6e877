"""The ways to SQLite's files: none of litefs, the VFS, a mount. A door gives each test file a place of its own."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time


@dataclasses.dataclass
class Place:
    directory: pathlib.Path  # where the program begins
    tests: pathlib.Path  # where its databases are
    environment: dict
    log_begin: int = 0


def make_empty(directory):
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


class Native:
    name = "native"

    def __init__(self, work):
        self.work = work

    def place(self, file):
        directory = make_empty(self.work / file)
        (directory / "db").mkdir()
        return Place(directory, directory / "db", {})

    def errors(self, _place):
        return []

    def alive(self):
        return True

    def clean(self, file):
        shutil.rmtree(self.work / file, ignore_errors=True)


def errors_in(log, begin=0):
    """Lines of a log that tell of an error, each once."""
    if not log.exists():
        return []
    with open(log, "rb") as lines:
        lines.seek(begin)
        text = lines.read().decode("utf-8", "replace")
    found = (line for line in text.splitlines() if line.startswith("error ") or " error " in line[:40])
    return list(dict.fromkeys(line[line.index("error "):] for line in found))


class Vfs(Native):
    """A node in each test program, with a data directory of its own."""

    name = "vfs"

    def place(self, file):
        directory = make_empty(self.work / file)
        tests = directory / "data" / "db"
        tests.mkdir(parents=True)
        environment = {"LITEFS_SUITE_DATA": str(directory / "data"), "LITEFS_SUITE_LOG": str(directory / "log")}
        return Place(directory, tests, environment)

    def errors(self, place):
        return errors_in(place.directory / "log")


class Mount(Native):
    """One mount for all, with a directory for each file."""

    name = "mount"
    START_SECONDS = 60

    def __init__(self, work, litefs, aside):
        super().__init__(work)
        self.litefs = litefs
        self.aside = aside
        make_empty(work)
        self.mount = work / "mount"
        self.mount.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.config = work / "litefs.yml"
        self.config.write_text(
            f"fuse:\n  dir: \"{self.mount}\"\ndata:\n  dir: \"{work / 'data'}\"\nhttp:\n  addr: \"127.0.0.1:{port}\"\n"
            f"lease:\n  type: static\n  candidate: true\n  advertise-url: \"http://127.0.0.1:{port}\"\n")
        self.log = work / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([litefs, "mount", "-config", str(self.config)], stdout=log, stderr=log)
        deadline = time.monotonic() + self.START_SECONDS
        while subprocess.run([litefs, "status", "-config", str(self.config)], capture_output=True).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = self.log.read_text(errors="replace")
                self.close()
                raise RuntimeError(f"the mount does not come up: {text}")
            time.sleep(0.1)

    def place(self, file):
        directory = make_empty(self.work / "tests" / file)
        (directory / "aside").mkdir()
        tests = self.mount / file
        tests.mkdir()
        environment = {"LD_PRELOAD": self.aside, "ASIDE_MOUNT": tests, "ASIDE_PLAIN": directory / "aside"}
        environment = {name: str(value) for name, value in environment.items()}
        return Place(directory, tests, environment, self.log.stat().st_size)

    def errors(self, place):
        return errors_in(self.log, place.log_begin)

    def alive(self):
        return self.process.poll() is None

    def clean(self, file):
        shutil.rmtree(self.work / "tests" / file, ignore_errors=True)

    def close(self):
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if os.path.ismount(self.mount):
            subprocess.run(["umount", "-l", str(self.mount)], check=False)


def why_not(door):
    """Why a door cannot be used on this machine; None: it can."""
    if door != "mount":
        return None
    if os.geteuid() != 0:
        return "a mount needs root"
    return None if os.path.exists("/dev/fuse") else "a mount needs /dev/fuse"


@contextlib.contextmanager
def open_door(name, work, litefs, programs):
    if name == "vfs":
        yield Vfs(work)
        return
    mount = Mount(work, litefs, programs / "suite_aside.so")
    try:
        yield mount
    finally:
        mount.close()
