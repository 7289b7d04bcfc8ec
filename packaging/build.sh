#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Builds Debian's packages in a source tree, without any network, and puts them into a directory.
#
# usage: build.sh TREE OUTPUT
set -eu

if [ $# -ne 2 ] || [ ! -f "$1/debian/control" ]; then
	echo "usage: $0 TREE OUTPUT (where packaging/source.sh or kernel-source.sh has made TREE)" >&2
	exit 2
fi
mkdir -p "$2"
output=$(cd "$2" && pwd)
umask 022

# Debug information is for whoever asks for it by DEB_BUILD_OPTIONS.
export DEB_BUILD_OPTIONS="${DEB_BUILD_OPTIONS-noautodbgsym parallel=$(nproc)}"
cd "$1"
# Of the tools that Debian takes for granted, none for C++ is needed.
dpkg-buildpackage --build=binary --no-sign --ignore-builtin-builddeps
# They are made beside the tree, and only if all of them are.
cut -d ' ' -f 1 debian/files | while read -r file; do
	mv "../$file" "$output"
done
mv ../*.changes "$output"
