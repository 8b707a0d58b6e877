#!/bin/sh
# Runs examples/node with the extension that is its argument: npm gets better-sqlite3, which is compiled, into a directory
# that is removed. Ends with 77 where there is no node or no npm, or where node's headers are missing.
set -eu
example=$1
extension=$2
skip() {
  echo "skipped: $*"
  exit 77
}
command -v node > /dev/null || skip "there is no node"
command -v npm > /dev/null || skip "there is no npm"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM

# node-gyp would fetch the headers: they are beside node, or where Debian has them.
for headers in "$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")" /usr/include/nodejs; do
  for header in include/node/node.h src/node.h; do
    [ ! -e "$headers/$header" ] || export npm_config_nodedir="$headers"
  done
done
[ -n "${npm_config_nodedir:-}" ] || skip "node's headers are not installed (libnode-dev)"

cp "$example/package.json" "$example/notes.js" "$scratch"
cd "$scratch"
# Built here, and not fetched as a binary.
if ! npm_config_build_from_source=true npm_config_cache="$scratch/cache" npm install --no-audit --no-fund > install.log 2>&1; then
  cat install.log
  exit 1
fi
LITEFS_EXTENSION=${extension%.so} node notes.js
