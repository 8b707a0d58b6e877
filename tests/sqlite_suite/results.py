"""What a run of one of SQLite's test files says, compared with the run of the same file without litefs.

A result is one assertion's: "ok", or what was expected and what came. Assertions are told apart by name and by how
often the name has come before. The last result is named "(end)": it is how the program ended, with its count of errors.
"""

import fnmatch
import re

ASSERTION = re.compile(r"^(\S+)\.\.\.( Ok| Omitted)?")
DETAIL = re.compile(r"^! (\S+) (expected|got): *(.*)")
SUM = re.compile(r"^(\d+) errors out of (\d+) tests")
END = "(end)"
COUNTED = " errors out of "


def parse(text, status, directories):
    """{(name, nth): result} of a run's output, in order. `directories` are named alike in all runs."""
    results = {}
    seen = {}
    current = None
    end = f"ended with {status}"
    for directory in directories:
        text = text.replace(directory, "DIR")
    for line in text.splitlines():
        detail = DETAIL.match(line)
        if detail and current:
            results[current] += f" {detail.group(2)}: {detail.group(3)[:300]}"
            continue
        assertion = None if line.startswith("!") else ASSERTION.match(line)
        if assertion:
            name = assertion.group(1)
            seen[name] = seen.get(name, 0) + 1
            current = (name, seen[name])
            results[current] = "ok" if assertion.group(2) else "not ok"
            continue
        total = SUM.match(line)
        if total:
            end = f"ended with {status}, {total.group(1)} errors out of {total.group(2)} tests"
        elif current and line.startswith("Error: "):
            results[current] += " " + line[:300]
    results[(END, 1)] = end
    return results


def compare(native, other):
    """[(name, native's result, the other's)] where they differ; None where a run does not have the assertion."""
    return [(key[0], native.get(key), other.get(key))
            for key in dict.fromkeys([*native, *other]) if native.get(key) != other.get(key)]


class Differences:
    """The table of explained differences. Each line: a test file, where, patterns of names separated by commas, a
    colon, and why. Where: "vfs", "mount" or "both": assertions that differ so. "faults": SQLite's loops that let the
    first, second, third call fail until nothing fails any more, and may need another number of rounds: assertions that
    are there in one run only, and are ok. "log": errors that the node's log then tells."""

    WHERE = ("vfs", "mount", "both", "faults", "log")

    def __init__(self, path):
        self.lines = []
        with open(path, encoding="utf-8") as table:
            for number, line in enumerate(table, 1):
                if not line.strip() or line.startswith("#"):
                    continue
                head, colon, why = line.partition(": ")
                words = head.split(None, 2)
                if not colon or len(words) != 3 or words[1] not in self.WHERE or not why.strip():
                    form = f"FILE {'|'.join(self.WHERE)} PATTERN,...: WHY"
                    raise ValueError(f"{path}:{number}: not '{form}': {line.strip()}")
                patterns = [pattern.strip() for pattern in words[2].split(",")]
                self.lines.append((words[0], words[1], patterns, why.strip()))

    def _reason(self, file, where, text):
        for name, line_where, patterns, why in self.lines:
            if line_where in where and fnmatch.fnmatchcase(file, name):
                if any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns):
                    return why
        return None

    def explain(self, file, door, differences):
        """(reasons, unexplained): the table's reasons, each once, and the differences that it has none for. That other
        errors or assertions are counted at the end needs no reason of its own where everything before has one."""
        reasons = {}
        unexplained = []
        end = None
        for difference in differences:
            name, before, now = difference
            if name == END:
                end = difference
                continue
            where = [door, "both"]
            if {before, now} == {"ok", None}:
                where.append("faults")
            why = self._reason(file, where, name)
            if why:
                reasons[why] = True
            else:
                unexplained.append(difference)
        if end and not (reasons and not unexplained and COUNTED in end[2]):
            why = self._reason(file, [door, "both"], END)
            if why:
                reasons[why] = True
            else:
                unexplained.append(end)
        return list(reasons), unexplained

    def expects_log(self, file, line):
        return self._reason(file, ["log"], line) is not None
