#!/bin/sh
# The demo without mounts: because it is asked for, and because the machine cannot mount. LITEFS and LITEFS_KV name the
# programs.
set -eu
demo=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
  cat "$scratch/said"
  printf '%s\n' "$*"
  exit 1
}

# show [COMMAND…]: the command runs the demo, which must pass its checks and leave nothing.
show() {
  mkdir "$scratch/tmp"
  TMPDIR=$scratch/tmp "$@" > "$scratch/said" 2>&1 < /dev/null || fail "it ended with $?"
  grep -q ' checks passed, 0 failed$' "$scratch/said" || fail "it did not come to its end"
  grep -q 'MOVED node0' "$scratch/said" || fail "no refused write was shown"
  rmdir "$scratch/tmp" || fail "it left files"
}

show bash "$demo" --no-fuse
if [ "$(id -u)" = 0 ] && command -v setpriv > /dev/null; then
  show setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin bash "$demo"
  grep -q 'No mounts on this machine: ' "$scratch/said" || fail "it does not say that it falls back, and why"
else
  echo "not root: falling back was not tried"
fi
