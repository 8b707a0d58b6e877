# The demo without mounts: three processes of the key-value service (examples/cpp/kv.cc), each with a node inside.
# Sourced by run; needs no root.
need sqlite3 timeout
begin
connections=("" "" "")

# configure NODE PRIMARY-ADDRESS. Port 0 is any free one, so a replica is configured when its primary's is known.
configure() {
  local i=$1 candidate=false
  [ "$i" = $primary ] && candidate=true
  mkdir -p "$work/node$i"
  cat > "$work/node$i/litefs.yml" << END
data:
  dir: "$work/node$i/data"
http:
  addr: "127.0.0.1:0"
lease:
  type: "static"
  hostname: "node$i"
  advertise-url: "http://$2"
  candidate: $candidate
END
}

serving() { [ -s "$work/node$1/serving" ] || ended "${pids[$1]}"; }

# Starts a node, and connects to its service. Sets `address` to where other nodes reach it.
start() {
  local i=$1 line port
  shown "kv node$i/litefs.yml 0"
  : > "$work/node$i/serving"
  "$kv" "$work/node$i/litefs.yml" 0 > "$work/node$i/serving" 2>> "$work/node$i/log" < /dev/null &
  pids[$i]=$!
  # Or bash reports each kill by itself.
  disown
  until_true 15 serving "$i"
  line=$(cat "$work/node$i/serving")
  if [ -z "$line" ]; then
    show_log "$i" >&2
    die "node$i does not start"
  fi
  say "$line"
  address=${line##* }
  port=${line%%,*}
  connect "$i" "${port##*:}"
}

connect() {
  local fd
  [ -z "${connections[$1]}" ] || exec {connections[$1]}>&-
  exec {fd}<> "/dev/tcp/127.0.0.1/$2" || die "node$1 does not answer"
  connections[$1]=$fd
}

# ask NODE LINE: what the service answers.
ask() {
  local line
  printf '%s\n' "$2" >&"${connections[$1]}"
  read -r -t 20 line <&"${connections[$1]}" && printf '%s\n' "$line"
}
told() {
  shown "node$1> $2"
  told=$(ask "$1" "$2")
  say "$told"
}

# info NODE WORD: one of role, primary, position, lag_ms, keys.
info() { ask "$1" INFO | tr ' ' '\n' | sed -n "s/^$2=//p"; }

# A line a node: where it is, how far behind, what it has.
show_nodes() {
  local i
  printf '  %-6s %-30s %8s %8s\n' node position "lag ms" keys
  for i in $nodes; do
    printf '  %-6s %-30s %8s %8s\n' "node$i" \
      "$(info "$i" position)" "$(info "$i" lag_ms)" "$(info "$i" keys)"
  done
}

equal_positions() {
  local first i
  first=$(info $primary position)
  [ -n "$first" ] || return 1
  for i in $nodes; do [ "$(info "$i" position)" = "$first" ] || return 1; done
}

# workload PREFIX COUNT: sets as many keys on the primary, each a transaction; how many were refused.
workload() {
  local i fd=${connections[$primary]} line refused=0
  (for ((i = 1; i <= $2; i++)); do echo "SET $1:$i value $i of $1"; done) >&"$fd" &
  for ((i = 1; i <= $2; i++)); do
    read -r -t 20 line <&"$fd" || return 1
    [ "${line%% *}" = OK ] || refused=$((refused + 1))
  done
  wait $!
  [ $refused = 0 ]
}

file() { echo "$work/node$1/data/db/kv.db"; }
content() { timeout 60 sqlite3 -readonly "$(file "$1")" .sha3sum; }

step "1. Three processes start, a node inside each: node0 is the primary, node1 and node2 are replicas"
configure $primary 127.0.0.1:1
start $primary
primary_address=$address
for i in 1 2; do
  configure $i "$primary_address"
  start $i
done
up() {
  local i
  for i in $nodes; do timeout 5 "$litefs" status -data "$work/node$i/data" > /dev/null || return 1; done
}
check "three nodes are open, without a mount and as user $(id -un)" up

step "2. What is written on the primary is read on a replica, not before it is there"
told 0 "SET greeting hello from node0"
position=${told#OK }
told 1 "GET greeting $position"
check "node1 has it" [ "$told" = "VALUE hello from node0" ]
told 2 "GET greeting $position"
check "node2 has it" [ "$told" = "VALUE hello from node0" ]

step "3. A live workload on the primary: 2,000 small transactions"
began=$(milliseconds)
all_done=yes
for batch in a b c d; do
  workload $batch 500 || all_done=no
  show_nodes
done
say "in $(($(milliseconds) - began)) ms, each synced to the disk"
check "all were committed" [ "$all_done $(info $primary keys)" = "yes 2001" ]
check "the replicas have applied all of them" until_true 20 equal_positions
show_nodes

step "4. A replica refuses writes, and names the primary"
before=$(info 1 position)
told 1 "SET greeting hello from node1"
check "the write was refused, with the primary's name" [ "$told" = "MOVED node0" ]
told 1 "GET greeting"
check "and nothing changed" [ "$told $(info 1 position)" = "VALUE hello from node0 $before" ]

step "5. A replica is killed; the primary goes on; the replica comes back and catches up"
shown "kill -9 ${pids[2]}    # node2"
kill -KILL "${pids[2]}"
until_true 5 ended "${pids[2]}"
workload e 500 || say "the workload failed"
say "500 transactions later:"
say "node0  $(info 0 position)"
say "node1  $(info 1 position)"
say "node2  (dead)"
began=$(milliseconds)
start 2
check "node2 came back and caught up" until_true 20 equal_positions
say "$(($(milliseconds) - began)) ms from its start to equal positions"
show_nodes

step "6. Equal to the last bit, as any program may see: the databases are plain SQLite files"
shown "sqlite3 -readonly nodeN/data/db/kv.db .sha3sum 'PRAGMA integrity_check'"
reference=$(content $primary)
[ -n "$reference" ] || reference=unreadable
for i in $nodes; do
  say "node$i  $(content "$i")"
  check "node$i holds the primary's content" [ "$(content "$i")" = "$reference" ]
  check "node$i passes integrity_check" \
    [ "$(timeout 60 sqlite3 -readonly "$(file "$i")" 'PRAGMA integrity_check')" = ok ]
done
check "all positions and page checksums are equal" equal_positions
shown "litefs status -data node2/data"
timeout 10 "$litefs" status -data "$work/node2/data" > "$work/status"
sed 's/^/  /' "$work/status"
check "the program litefs knows such a node, too" grep -q "replica of node0" "$work/status"
shown "litefs export -data node2/data kv.db copy.db"
say "$(timeout 60 "$litefs" export -data "$work/node2/data" kv.db "$work/copy.db" 2>&1)"
check "and exports from it" [ "$(sqlite3 "$work/copy.db" .sha3sum)" = "$reference" ]
summarize
