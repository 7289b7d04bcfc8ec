#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Makes a Debian source tree of this checkout, with what the packages are made from and no more.
# It has no crates yet: vendor.sh puts them there.
#
# usage: source.sh DIRECTORY
set -eu

if [ $# -ne 1 ] || [ -e "$1" ]; then
	echo "usage: $0 DIRECTORY (which must not exist yet)" >&2
	exit 2
fi
to=$1
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)
if ! head -n 1 packaging/debian/changelog | grep -qF "sysgenid ($version)"; then
	echo "packaging/debian/changelog does not begin with version $version, which Cargo.toml has:" \
		"write an entry for it" >&2
	exit 1
fi
umask 022
mkdir -p "$to"

# The module, user space, and how they are built and installed. What stands at the top of the
# checkout belongs to the module, but for what Cargo and editors read.
tar -c --exclude-vcs-ignores --exclude=packaging/tests --exclude='*.test.toml' \
	--mode=u=rwX,go=rX --owner=0 --group=0 --sort=name \
	Cargo.lock Cargo.toml Documentation/man Kbuild LICENSES Makefile abstractions include packaging \
	scripts/check-kdir.sh scripts/prepare-kernel.sh scripts/rustc-metadata.sh uapi userspace ./*.rs | tar -x -C "$to"
mv "$to/packaging/debian" "$to/debian"

# Of the workspace, the members that are there.
sed -n '/^members/,/^]/s/^  "\(.*\)",$/\1/p' Cargo.toml | while read -r member; do
	[ -d "$to/$member" ] || echo "\\#^  \"$member\",#d"
done | sed -i -f - "$to/Cargo.toml"
