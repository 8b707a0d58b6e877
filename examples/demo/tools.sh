# What both demos use: telling, checking, waiting, and cleaning up. Sourced by run; not a program.
# Expects: top, litefs. Defines: work, nodes, primary, pids.
primary=0
nodes="0 1 2"
pids=("" "" "")
passed=0
failed=0
summary=()

# --- Telling ---------------------------------------------------------------------------------------------------

if [ -t 1 ]; then
  bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' dim=$'\e[2m' plain=$'\e[0m'
else
  bold='' green='' red='' dim='' plain=''
fi

step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
say() { printf '  %s\n' "$*"; }
shown() { printf '  %s$ %s%s\n' "$dim" "$*" "$plain"; }
die() {
  printf '%s%s%s\n' "$red" "$*" "$plain" >&2
  exit 1
}

# check DESCRIPTION COMMAND…: counts, and remembers for the summary.
check() {
  local what=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
    summary+=("${green}ok${plain}      $what")
    printf '  %sok%s      %s\n' "$green" "$plain" "$what"
  else
    failed=$((failed + 1))
    summary+=("${red}FAILED${plain}  $what")
    printf '  %sFAILED%s  %s\n' "$red" "$plain" "$what"
  fi
}

# --- Small tools -----------------------------------------------------------------------------------------------

# until_true SECONDS COMMAND…: tries again and again, but not for ever.
until_true() {
  local end=$(($(milliseconds) + $1 * 1000))
  shift
  until "$@"; do
    [ "$(milliseconds)" -lt $end ] || return 1
    sleep 0.02
  done
}

milliseconds() { local t=${EPOCHREALTIME/[.,]/}; echo "${t%???}"; }
# A killed child stays in the process table until it is waited for.
ended() { ! kill -0 "$1" 2> /dev/null || grep -q '^State:.Z' "/proc/$1/status" 2> /dev/null; }

# need PROGRAM…: or the demo cannot be shown.
need() {
  local program
  for program in "$@"; do
    command -v "$program" > /dev/null || die "$program is missing; examples/demo/run --build installs it"
  done
}

# --- Beginning and end -----------------------------------------------------------------------------------------

# Makes the directory for everything, which goes with whatever was started in it.
begin() {
  work=$(mktemp -d "${TMPDIR:-/tmp}/litefs-demo-XXXXXX") || die "no directory can be made for the demo"
  # fossil and sqlite3 read settings from the home directory; the demo has its own.
  export HOME=$work USER=demo
  trap cleanup EXIT
  trap 'exit 130' INT TERM
}

cleanup() {
  trap - EXIT INT TERM
  [ -n "${workload:-}" ] && kill "$workload" 2> /dev/null
  local i pid
  for i in $nodes; do
    pid=${pids[$i]}
    [ -n "$pid" ] && kill -TERM "$pid" 2> /dev/null
  done
  for i in $nodes; do
    pid=${pids[$i]}
    [ -n "$pid" ] && { until_true 5 ended "$pid" || kill -KILL "$pid" 2> /dev/null; }
    if mounted "$i"; then umount -f -l "$work/node$i/mount" 2> /dev/null; fi
  done
  if ! grep -q " $work/" /proc/self/mountinfo; then rm -rf "$work"; fi
}

mounted() { grep -q " $work/node$1/mount " /proc/self/mountinfo; }

show_log() { printf '\n---- the end of the log of node%s\n' "$1"; tail -30 "$work/node$1/log"; }

# The demo's last words, and its result.
summarize() {
  local line i
  step "Summary"
  for line in "${summary[@]}"; do printf '  %s\n' "$line"; done
  printf '\n  %s checks passed, %s failed\n' "$passed" "$failed"
  [ $failed = 0 ] && return 0
  for i in $nodes; do show_log "$i"; done
  return 1
}
