#!/bin/sh
# Runs a program with a fresh directory as its argument, and removes that.
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$1" "$scratch/data"
