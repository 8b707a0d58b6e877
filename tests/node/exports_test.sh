#!/bin/sh
# The shared library exports the C interface and nothing else: anything more would be somebody's to depend on,
# and could take the place of another library's function in a program that has both.
set -eu
library=$1
exported=$(nm -D --defined-only "$library" | awk '{print $3}' | sed 's/@.*//')
stray=$(printf '%s\n' "$exported" | grep -Ev '^(litefs_|sqlite3_litefs)' || true)
if [ -n "$stray" ]; then
  echo "exported, and not litefs_* or sqlite3_litefs*:"
  printf '%s\n' "$stray"
  exit 1
fi
printf '%s\n' "$exported" | grep -qx litefs_version || {
  echo "litefs_version is not exported"
  exit 1
}
