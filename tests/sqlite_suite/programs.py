"""SQLite's other test programs. Each runs as a sequence of commands where its databases are, and is judged as a test
file is: what it says, but for times and counts that are others in each run, has to be what it says without litefs."""

import re

SCRIPT = "{source}/mptest/"
THREADS = "suite_threadtest3"


def mptest(script, mode):
    return [["suite_mptester", "mp.db", SCRIPT + script + ".test", "--journalmode", mode, "--timeout", "120000"]]


def kvtest(mode):
    run = ["suite_kvtest", "run", "kv.db", "--count", "1000", "--integrity-check", "--jmode", mode]
    return [["suite_kvtest", "init", "kv.db", "--count", "500", "--size", "3000", "--pagesize", "1024"],
            [*run, "--random", "--update"], [*run, "--desc", "--update", "--fsync", "--multitrans"],
            [*run, "--random", "--blob-api"], [*run, "--asc", "--mmap", "1000000"], ["suite_kvtest", "stat", "kv.db"]]


def speedtest(mode, *options):
    return [["suite_speedtest1", "--size", "10", "--verify", "--journal", mode, *options, "speed.db"]]


# Names that directories on a mount may have: one that ends in -wal is a database's file.
PROGRAMS = {
    **{f"mptest_{script}_{mode}": mptest(script, mode)
       for script in ("config01", "config02", "crash01", "multiwrite01") for mode in ("delete", "wal")},
    **{f"threadtest3_{test}": [[THREADS, test]] for test in (
        "walthread1", "walthread2", "walthread3", "walthread4", "walthread5", "cgt_pager_1", "dynamic_triggers",
        "checkpoint_starvation_1", "checkpoint_starvation_2", "create_drop_index_1", "lookaside1", "vacuum1", "stress1",
        "stress2", "shared1")},
    **{f"kvtest_{mode}": kvtest(mode) for mode in ("delete", "truncate", "persist", "wal")},
    **{f"speedtest1_{mode}": speedtest(mode) for mode in ("delete", "truncate", "persist", "wal")},
    "speedtest1_exclusive": speedtest("wal", "--exclusive"),
}

# What of a program's output says whether it is right, and is the same in each run.
TELLING = re.compile(r"^(Verification Hash: .*|Integrity-check: .*|integrity-check: .*|Number of entries: .*|"
                     r"Average value size: .*|\d+ errors out of \d+ tests|Running \S+ for .*|.*\bERROR\b.*|"
                     r".*[Ee]rror: .*|Summary: \d+ errors)")


def said(output):
    """The lines that tell, numbered as assertions are. mptest's begin with a process number."""
    lines = [re.sub(r"^\d+\.", "", match.group(1)) for match in map(TELLING.match, output.splitlines()) if match]
    return {("says", number): line for number, line in enumerate(lines, 1)}
