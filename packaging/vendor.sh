#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Puts the crates into a tree that source.sh has made, and says in debian/copyright whose they are.
# This is the step for which cargo may ask the network.
#
# usage: vendor.sh TREE
set -eu

if [ $# -ne 1 ] || [ ! -f "$1/debian/control" ]; then
	echo "usage: $0 TREE (which packaging/source.sh has made)" >&2
	exit 2
fi
tree=$1

# The workspace has fewer members here, so fewer crates are locked. None of them is another one.
cp "$tree/Cargo.lock" "$tree/Cargo.lock.whole"
cargo vendor --quiet --manifest-path "$tree/Cargo.toml" "$tree/vendor" >"$tree/vendored"
if grep '^checksum' "$tree/Cargo.lock" | grep -vxFf "$tree/Cargo.lock.whole" >&2; then
	echo "these crates are not those of the checkout's Cargo.lock: that one is not up to date" >&2
	exit 1
fi
"$(dirname "$0")/crates.py" "$tree" >"$tree/vendored"
cat "$tree/vendored" >>"$tree/debian/copyright"
rm "$tree/vendored" "$tree/Cargo.lock.whole"
