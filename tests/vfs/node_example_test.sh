#!/bin/sh
# node_example_test.sh EXAMPLE EXTENSION: runs examples/node with the extension. npm gets better-sqlite3, which is compiled,
# into a directory that is removed. Ends with 77 where there is no node or no npm, or where node's headers are missing.
set -eu
example=$1
extension=$(readlink -f "$2")
skip() {
  echo "skipped: $*"
  exit 77
}
command -v node > /dev/null || skip "there is no node"
command -v npm > /dev/null || skip "there is no npm"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM

# Without them beside node, node-gyp would fetch its headers.
npm_config_nodedir=$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")
export npm_config_nodedir
[ -e "$npm_config_nodedir/include/node/node.h" ] || skip "node's headers are not installed (libnode-dev)"

cp "$example/package.json" "$example/notes.js" "$scratch"
cd "$scratch"
# Built here, and not fetched as a binary.
export npm_config_build_from_source=true npm_config_cache="$scratch/cache"
if ! npm install --no-audit --no-fund > install.log 2>&1; then
  cat install.log
  exit 1
fi
LITEFS_EXTENSION=${extension%.so} node notes.js
