# The demo with mounts: three nodes that `litefs mount` runs, and ordinary SQLite applications. Sourced by run, as root.
database=project.fossil
ports=("" "" "")
need sqlite3 fossil git timeout
begin

up() { mounted "$1" && timeout 5 "$litefs" status -data "$work/node$1/data" > /dev/null 2>&1; }

# sql NODE STATEMENT: what any application would do.
sql() { timeout 20 sqlite3 "$work/node$1/mount/$database" "$2"; }
position() { timeout 5 cat "$work/node$1/mount/$database-pos" 2> /dev/null; }
lag() { timeout 5 cat "$work/node$1/mount/.lag" 2> /dev/null || echo -; }
content() { timeout 60 sqlite3 -readonly "$work/node$1/mount/$database" .sha3sum; }

equal_positions() {
  local first i
  first=$(position $primary)
  [ -n "$first" ] || return 1
  for i in $nodes; do [ "$(position "$i")" = "$first" ] || return 1; done
}

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 20000))
    # Nobody answers there: good enough, and a node whose port is taken after all says so.
    if ! (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then
      echo "$port"
      return
    fi
  done
}

configure() {
  local i=$1 candidate=false
  [ "$i" = $primary ] && candidate=true
  mkdir -p "$work/node$i/mount" "$work/node$i/data"
  cat > "$work/node$i/litefs.yml" << END
fuse:
  dir: "$work/node$i/mount"
data:
  dir: "$work/node$i/data"
http:
  addr: "127.0.0.1:${ports[$i]}"
lease:
  type: "static"
  hostname: "node$i"
  advertise-url: "http://127.0.0.1:${ports[$primary]}"
  candidate: $candidate
END
}

start() {
  "$litefs" mount -config "$work/node$1/litefs.yml" >> "$work/node$1/log" 2>&1 < /dev/null &
  pids[$1]=$!
  # Or bash reports each kill by itself.
  disown
  until_true 15 up "$1" && return
  echo "node$1 does not start:" >&2
  tail -20 "$work/node$1/log" >&2
  exit 1
}

# A line a node: where it is, how far behind, what an application reads there.
show_nodes() {
  local i
  printf '  %-6s %-34s %8s %8s %8s\n' node position lag events visits
  for i in $nodes; do
    printf '  %-6s %-34s %8s %8s %8s\n' "node$i" "$(position "$i")" "$(lag "$i")" \
      "$(sql "$i" 'SELECT count(*) FROM event')" "$(sql "$i" 'SELECT count(*) FROM visit')"
  done
}

# --- The data: this project's own history ----------------------------------------------------------------------

import_history() {
  # As root in somebody else's clone git wants to be told that this is meant.
  git -c "safe.directory=*" -C "$top" fast-export --all 2> "$work/git.log" |
    fossil import --git "$work/$database" > "$work/fossil.log" 2>&1
}

# Without history (an unpacked archive): the tree as it is, one check-in a directory.
import_tree() {
  local entry
  rm -f "$work/$database"
  fossil init "$work/$database" > /dev/null || return 1
  mkdir "$work/tree"
  (
    cd "$work/tree" && fossil open --nosync "$work/$database" > /dev/null || exit 1
    for entry in lib fuse tests examples vfs; do
      [ -d "$top/$entry" ] || continue
      cp -r "$top/$entry" . && fossil add --force "$entry" > /dev/null &&
        fossil commit --no-warnings -m "Add $entry" > /dev/null || exit 1
    done
    fossil close --force > /dev/null
  )
}

step "1. Three nodes start on loopback: node0 is the primary, node1 and node2 are replicas"
for i in $nodes; do ports[$i]=$(free_port); done
for i in $nodes; do configure "$i"; done
for i in $nodes; do
  shown "litefs mount -config node$i/litefs.yml"
  start "$i"
done
shown "cat node1/mount/.primary"
say "$(cat "$work/node1/mount/.primary")"
check "three mounts are up" up 2

step "2. A real database is loaded through the primary's mount: this project's history, as fossil keeps it"
if import_history && [ "$(sqlite3 "$work/$database" 'SELECT count(*) > 0 FROM event' 2> /dev/null)" = 1 ]; then
  shown "git fast-export --all | fossil import --git $database"
else
  import_tree || die "fossil cannot import this project"
  shown "fossil init $database; fossil commit …"
fi
say "$(stat -c %s "$work/$database") bytes, $(sqlite3 "$work/$database" 'SELECT count(*) FROM blob') artifacts," \
  "$(sqlite3 "$work/$database" 'SELECT count(*) FROM event') events"
shown "sqlite3 node0/mount/$database '.restore $database' 'PRAGMA journal_mode=WAL'"
timeout 60 sqlite3 "$work/node0/mount/$database" ".restore $work/$database" || die "cannot load the database"
journal=$(sql $primary 'PRAGMA journal_mode=WAL')
sql $primary 'CREATE TABLE visit(id INTEGER PRIMARY KEY, page, at DEFAULT CURRENT_TIMESTAMP)'
check "the database is on the primary, in WAL" [ "$journal" = wal ]
check "it arrived on both replicas" until_true 20 equal_positions
show_nodes

step "3. A live workload on the primary: small transactions by sqlite3, wiki edits by fossil"
# Each line of its input is a transaction of its own.
transactions() { timeout 60 sqlite3 -cmd '.timeout 10000' "$work/node$primary/mount/$database"; }
visits() {
  local i
  for ((i = 1; i <= $1; i++)); do
    echo "INSERT INTO visit(page) VALUES('page $i of ' || hex(randomblob(20)));"
  done
}
visits 4000 > "$work/visits.sql"
began=$(milliseconds)
for i in 1 2 3 4 5; do
  transactions < "$work/visits.sql" &
  workload=$!
  show_nodes
  wait "$workload" || say "the workload failed"
  workload=
  echo "Revision $i, written through the mount." |
    timeout 20 fossil wiki create "Demo page $i" -R "$work/node0/mount/$database" > "$work/fossil.log" 2>&1 ||
    say "fossil: $(tail -1 "$work/fossil.log")"
done
say "20,000 transactions and 5 wiki edits in $(($(milliseconds) - began)) ms"
check "20,000 small transactions were committed" [ "$(sql $primary 'SELECT count(*) FROM visit')" = 20000 ]
began=$(milliseconds)
check "the replicas have applied all of them" until_true 20 equal_positions
say "$(($(milliseconds) - began)) ms after they were counted"
show_nodes
edits="SELECT count(*) FROM event WHERE type = 'w'"
shown "sqlite3 node1/mount/$database \"$edits\""
check "fossil's wiki edits are on the replica" [ "$(sql 1 "$edits")" = 5 ]

step "4. A replica refuses writes"
before=$(position 1)
shown "sqlite3 node1/mount/$database 'DELETE FROM visit'"
if refusal=$(sql 1 'DELETE FROM visit' 2>&1); then refused=no; else refused=yes; fi
say "$refusal"
check "the write was refused" [ $refused = yes ]
check "and nothing changed" [ "$(position 1)" = "$before" ]

step "5. A replica is killed; the primary goes on; the replica comes back and catches up"
shown "kill -9 ${pids[2]}    # node2"
kill -KILL "${pids[2]}"
until_true 5 ended "${pids[2]}"
transactions < "$work/visits.sql" || say "the workload failed"
say "4,000 transactions later:"
say "node0  $(position $primary)"
say "node1  $(position 1)"
say "node2  (dead)"
began=$(milliseconds)
start 2
check "node2 came back and caught up" until_true 20 equal_positions
say "$(($(milliseconds) - began)) ms from its start to equal positions"
show_nodes

step "6. Equal to the last bit"
shown "sqlite3 nodeN/mount/$database .sha3sum 'PRAGMA integrity_check'"
reference=$(content $primary)
[ -n "$reference" ] || reference=unreadable
for i in $nodes; do
  say "node$i  $(content "$i")"
  check "node$i holds the primary's content" [ "$(content "$i")" = "$reference" ]
  check "node$i passes integrity_check" [ "$(sql "$i" 'PRAGMA integrity_check')" = ok ]
done
check "all positions and page checksums are equal" equal_positions

step "7. A database that stays in SQLite's default journal mode, DELETE, goes in by import and comes out by export"
sqlite3 "$work/ledger.db" 'CREATE TABLE entry(id INTEGER PRIMARY KEY, what); INSERT INTO entry(what) VALUES(1), (2)'
shown "litefs import -data node0/data ledger.db ledger.db"
say "$(timeout 60 "$litefs" import -data "$work/node0/data" "$work/ledger.db" ledger.db 2>&1)"
database=ledger.db
check "it is on all nodes" until_true 20 equal_positions
shown "litefs import -data node1/data ledger.db ledger.db    # on a replica"
if refusal=$(timeout 60 "$litefs" import -data "$work/node1/data" "$work/ledger.db" ledger.db 2>&1); then
  refused=no
else
  refused=yes
fi
say "$refusal"
check "a replica refuses an import" [ $refused = yes ]
entries() {
  local i
  for ((i = 1; i <= $1; i++)); do echo "INSERT INTO entry(what) VALUES('entry $i');"; done
}
began=$(milliseconds)
entries 300 | transactions || say "the workload failed"
say "300 transactions in $(($(milliseconds) - began)) ms, each under a rollback journal"
check "the replicas have applied them" until_true 20 equal_positions
shown "sqlite3 nodeN/mount/ledger.db 'PRAGMA journal_mode' 'SELECT count(*) FROM entry'"
for i in $nodes; do
  say "node$i  $(position "$i")  $(sql "$i" 'PRAGMA journal_mode')  $(sql "$i" 'SELECT count(*) FROM entry')"
done
check "the primary keeps the mode, and every node has the rows" \
  [ "$(sql 0 'PRAGMA journal_mode')$(sql 1 'SELECT count(*) FROM entry')$(sql 2 'SELECT count(*) FROM entry')" = delete302302 ]
shown "litefs export -data node2/data ledger.db copy.db"
say "$(timeout 60 "$litefs" export -data "$work/node2/data" ledger.db "$work/copy.db" 2>&1)"
check "a replica's export is the primary's content" \
  [ "$(sqlite3 "$work/copy.db" .sha3sum)" = "$(content $primary)" ]
summarize
