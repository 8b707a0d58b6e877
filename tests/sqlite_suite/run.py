#!/usr/bin/env python3
"""Runs SQLite's own test files without litefs and through its doors, and compares them assertion by assertion.

    run.py --cache DIR --library liblitefs.so --litefs PROGRAM [--door vfs|mount] [--jobs N] [FILE ...]

First SQLite's programs are built in the cache, where they are not there yet (see build). Without FILE, the test files
are those that files.txt names for the doors; with --all, all there. A name that programs.py has is one of SQLite's
other programs, and counts as a file. Without --door they run through both. A file has passed when its results are the
same, or every difference has its reason in differences.txt, and the node's log has no error that is not expected
there. Each file runs in directories of its own; on a mount what is no database's file lies aside, in an ordinary
directory (aside.c). Last line: "[sqlite] test files: N | N passed | N failed | N skipped".
"""

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

# Nothing is left beside the sources.
sys.dont_write_bytecode = True

import doors
from programs import PROGRAMS, said
from results import END, Differences, compare, parse

HERE = pathlib.Path(__file__).resolve().parent
SHOWN = 8


def run(command, directory, place, timeout):
    """(exit status or "time limit", output) of a test program and all its children."""
    with open(place.directory / "output", "a+b") as output:
        begin = output.tell()
        process = subprocess.Popen(command, cwd=directory, env={**os.environ, **place.environment},
                                   stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = "the time limit"
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        output.seek(begin)
        return status, output.read().decode("utf-8", "replace")


class Suite:
    def __init__(self, options, work):
        self.options = options
        self.work = work
        self.programs = pathlib.Path(options.cache).resolve() / "programs"
        self.tests = self.programs.parent / "source" / "test"
        self.differences = Differences(HERE / "differences.txt")
        self.native = doors.Native(work / "native")
        self.printing = threading.Lock()

    def results_of(self, file, door):
        """(results, errors in the node's log, seconds)"""
        place = door.place(file)
        begin = time.monotonic()
        if file in PROGRAMS:
            results = self.programs_results(PROGRAMS[file], place)
        else:
            status, output = run([str(self.programs / "suite_testfixture"), str(self.tests / f"{file}.test"),
                                  f"--testdir={place.tests}"], place.directory, place, self.options.timeout)
            results = parse(output, status, [str(place.tests), str(place.directory)])
        seconds = time.monotonic() - begin
        return results, door.errors(place), seconds

    def programs_results(self, commands, place):
        output = ""
        for command in commands:
            words = [str(self.programs / command[0])] + [word.format(source=self.tests.parent) for word in command[1:]]
            status, more = run(words, place.tests, place, self.options.timeout)
            output += more
            if status != 0:
                break
        return said(output) | {(END, 1): f"ended with {status}"}

    def one(self, file, through):
        """For each door whether it has passed."""
        native, _, native_seconds = self.results_of(file, self.native)
        passed = []
        for door in through:
            got, errors, seconds = self.results_of(file, door)
            reasons, unexplained = self.differences.explain(file, door.name, compare(native, got))
            if len(native) == 1:
                unexplained.append((END, "nothing is said", "nothing to compare"))
            errors = [line for line in errors if not self.differences.expects_log(file, line)]
            passed.append(not unexplained and not errors)
            summary = f"{len(got) - 1} assertions, {seconds:.1f} s, without litefs {native_seconds:.1f} s"
            self.report(file, door.name, summary, reasons, unexplained, errors)
            if passed[-1]:
                door.clean(file)
        if all(passed):
            self.native.clean(file)
        return passed

    def report(self, file, door, summary, reasons, unexplained, errors):
        shown = None if self.options.verbose else SHOWN
        lines = [f"{'FAILED' if unexplained or errors else 'ok'} {door} {file}: {summary}"]
        lines += [f"    differs: {why}" for why in reasons]
        for name, before, now in unexplained[:shown]:
            lines.append(f"    {name}: without litefs {before or 'is not there'}; {door}: {now or 'is not there'}")
        if shown and len(unexplained) > shown:
            lines.append(f"    ... {len(unexplained)} differences, the last: {unexplained[-1]}")
        lines += [f"    log: {line}" for line in errors[:shown]]
        with self.printing:
            print("\n".join(lines), flush=True)


def listed_files():
    """[(file, doors that run it always)]"""
    files = []
    always = []
    for line in (HERE / "files.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            always = line.strip("[]").split()
        elif not line.startswith("#"):
            files += [(file, always) for file in line.split()]
    return files


def run_all(options, work):
    suite = Suite(options, work)
    files = [(file, None) for file in options.files] or listed_files()
    with contextlib.ExitStack() as stack:
        opened = []
        skipped = 0
        for name in [options.door] if options.door else ["vfs", "mount"]:
            why_not = doors.why_not(name)
            if why_not:
                print(f"skipped: {why_not}")
                skipped += 1
                continue
            opened.append(stack.enter_context(doors.open_door(name, work / name, options.litefs, suite.programs)))
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(options.jobs))
        runs = []
        for file, always in files:
            through = [door for door in opened if options.all or always is None or door.name in always]
            if through:
                runs.append(pool.submit(suite.one, file, through))
        passed = [each for finished in runs for each in finished.result()]
        for door in opened:
            if not door.alive():
                print(f"FAILED: the {door.name}'s node has ended by itself")
                passed.append(False)
    return passed, skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", required=True)
    parser.add_argument("--library", required=True)
    parser.add_argument("--litefs", help="the program, for a mount")
    parser.add_argument("--door", choices=["vfs", "mount"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=300, help="of each test file, in seconds")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--work", help="keep here what the failed runs leave behind")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    if subprocess.run([str(HERE / "build"), options.cache, options.library], check=False).returncode != 0:
        return 1
    work = pathlib.Path(options.work or tempfile.mkdtemp(prefix="litefs-sqlite-")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    try:
        passed, skipped = run_all(options, work)
    finally:
        if not options.work:
            shutil.rmtree(work, ignore_errors=True)
    print(f"[sqlite] test files: {len(passed)} | {passed.count(True)} passed | {passed.count(False)} failed | "
          f"{skipped} skipped")
    return 0 if passed and all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
