"""Sums the results of test runs.

Arguments: the JSON logs that `meson test` writes. A program of doctest counts with its test cases, SQLite's test files
count each; one that fails without saying so (it crashed, ran into its time limit) with one failure more, and any other
program as one test. The last line is "N passed, N failed", with ", N skipped" when some were. Exit status 1 when a test
failed or a log is missing.
"""

import json
import re
import sys

CASES = re.compile(
    r"\[(?:doctest\] test cases|sqlite\] test files):\s*(\d+)\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed\s*\|\s*(\d+) skipped")
# doctest also counts as skipped what a filter on the command line leaves out.
FILTER = re.compile(r"^--?(dt-)?(tc|ts|sf|test-case|test-suite|source-file|tce|tse|sfe)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def count(test):
    """(passed, failed, skipped) of one program."""
    result = test["result"]
    found = CASES.findall(COLOUR.sub("", test.get("stdout") or ""))
    passed = sum(int(cases[1]) for cases in found)
    failed = sum(int(cases[2]) for cases in found)
    skipped = sum(int(cases[3]) for cases in found)
    if any(FILTER.match(word) for word in test.get("command", [])):
        skipped = 0
    if result == "SKIP":
        return passed, failed, max(skipped, 1)
    if result not in ("OK", "EXPECTEDFAIL"):
        return passed, max(failed, 1), skipped
    return (passed, failed, skipped) if found else (1, 0, 0)


def main(logs):
    total = [0, 0, 0]
    broken = False
    for log in logs:
        try:
            with open(log, encoding="utf-8", errors="replace") as lines:
                tests = [json.loads(line) for line in lines if line.strip()]
        except (OSError, ValueError) as error:
            print(f"{log}: {error}")
            broken = True
            continue
        if not tests:
            print(f"{log}: no test ran")
            broken = True
        for test in tests:
            counts = count(test)
            total = [a + b for a, b in zip(total, counts)]
            if counts[1]:
                print(f"FAILED: {test['name']} ({test['result']})")
                print("\n".join((test.get("stdout") or "").splitlines()[-60:]))
                print("\n".join((test.get("stderr") or "").splitlines()[-60:]))
            elif counts[2]:
                for line in (test.get("stdout") or "").splitlines():
                    if line.startswith("skipped: "):
                        print(f"{test['name']}: {line}")
    if broken:
        total[1] += 1
    line = f"{total[0]} passed, {total[1]} failed"
    print(line + (f", {total[2]} skipped" if total[2] else ""))
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
