#!/bin/sh
# The build, installed into a prefix of its own, is enough for programs outside of the tree: the examples are compiled
# there with what pkg-config says of it, and pass their test.
#
#   install_test.sh SOURCE BUILD TEST_EXAMPLES
set -eu
source=$1 build=$2 test_examples=$(realpath "$3")
unset LD_LIBRARY_PATH  # meson sets it, for the build
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

# As a package is made: into a staging directory, then to where it is used. Only there can it be found.
meson install -C "$build" --no-rebuild --quiet --destdir "$scratch/staging" > "$scratch/log" 2>&1 || {
  cat "$scratch/log" >&2
  fail "meson install fails"
}
pc=$(find "$scratch/staging" -name litefs.pc)
[ -n "$pc" ] || fail "no litefs.pc is installed"
configured=$(sed -n 's/^prefix=//p' "$pc")
prefix=$scratch/prefix
mv "$scratch/staging$configured" "$prefix"
[ -z "$(find "$scratch/staging" ! -type d)" ] || fail "installed outside of the prefix: $(find "$scratch/staging" ! -type d)"
pc=$(find "$prefix" -name litefs.pc)

headers=$(cd "$prefix/include" && find . ! -type d | sort | tr '\n' ' ')
[ "$headers" = "./litefs/litefs.h ./litefs/litefs.hpp " ] || fail "headers: $headers"
[ -x "$prefix/bin/litefs" ] || fail "the program litefs is not installed"
[ "$("$prefix/bin/litefs" version | head -1 | grep -c '[0-9]')" = 1 ] || fail "the installed litefs does not run"
if grep -n -F -e "$source" -e "$build" "$pc"; then fail "litefs.pc has a path of the build"; fi
if grep -q -r -F -e "$source" "$prefix/include"; then fail "a header has a path of the build"; fi

PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
# The file says the prefix that was configured; where it lies says the one that is.
pkg() { pkg-config --define-variable=prefix="$prefix" "$@" litefs; }
libraries=$(pkg --variable=libdir)
[ "$(pkg --modversion)" = "$("$prefix/bin/litefs" version | sed 's/^[^0-9]*//; s/ .*//' | head -1)" ] ||
  fail "litefs.pc is of $(pkg --modversion), the program says: $("$prefix/bin/litefs" version)"

# run NAME: the programs $scratch/NAME/guestbook and kv.
run() {
  LITEFS_GUESTBOOK=$scratch/$1/guestbook LITEFS_KV=$scratch/$1/kv "$test_examples" > "$scratch/log" 2>&1 || {
    cat "$scratch/log" >&2
    fail "the examples fail, $1"
  }
  echo "passed: $1"
}

cd "$scratch"
cp "$source/examples/c/guestbook.c" "$source/examples/cpp/kv.cc" "$source/examples/cpp/line_server.h" .
LC_ALL=C
export LC_ALL
built=0
# Compilers and flags are words, so not quoted.
if ls "$libraries"/liblitefs.so > /dev/null 2>&1; then
  mkdir shared
  ${CC:-cc} -std=c99 -Werror -Wall -Wextra -pedantic -o shared/guestbook guestbook.c $(pkg --cflags --libs)
  ${CXX:-c++} -std=c++17 -Werror -Wall -Wextra -pedantic -pthread -o shared/kv kv.cc $(pkg --cflags --libs)
  LD_LIBRARY_PATH=$libraries
  export LD_LIBRARY_PATH
  run shared
  unset LD_LIBRARY_PATH
  built=1
fi
if ls "$libraries"/liblitefs.a > /dev/null 2>&1; then
  mkdir static
  # Away with the shared one, which the linker prefers.
  rm -f "$libraries"/liblitefs.so*
  ${CC:-cc} -std=c99 -o static/guestbook guestbook.c $(pkg --static --cflags --libs)
  ${CXX:-c++} -std=c++17 -o static/kv kv.cc $(pkg --static --cflags --libs)
  run static
  built=1
fi
[ $built = 1 ] || fail "no library is installed"
