#!/bin/sh
# The extension calls the SQLite that has loaded it, by the table of routines that it was given: it needs no SQLite
# library, asks the loader for none of its functions, and shows nothing but its entry point.
set -eu
extension=$1
failed=0
if nm -D --undefined-only "$extension" | grep -i sqlite; then
  echo "asked of the loader; it must come by sqlite3_api (vfs/sqlite_api.h)"
  failed=1
fi
if readelf -d "$extension" | grep NEEDED | grep -i sqlite; then
  echo "needed; a program's own SQLite may be another one"
  failed=1
fi
exported=$(nm -D --defined-only "$extension" | awk '{print $3}' | tr '\n' ' ')
if [ "$exported" != "sqlite3_litefsvfs_init " ]; then
  echo "exported: $exported"
  failed=1
fi
exit $failed
