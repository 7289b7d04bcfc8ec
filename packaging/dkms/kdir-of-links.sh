#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Makes a directory that modules in Rust can be built against (make -C DIRECTORY M=...), from a
# headers package that cannot do that and a tree of the same kernel that is prepared for it
# (scripts/prepare-kernel.sh). Of the headers there are links, so that nothing of that package is
# touched; the tree is not needed any more afterwards.
#
# usage: kdir-of-links.sh HEADERS TREE DIRECTORY PLACE VERSION
#
# PLACE is where DIRECTORY will be in the end, and VERSION is that of the headers package, which
# the file "made-for" keeps.
set -eu

headers=$1 tree=$2 directory=$3 place=$4 version=$5
# Where the links lead to, if the headers are not yet in their place.
target=${LINKS_TO:-$headers}

# links FROM TO EXCEPT: a link in TO to each thing in FROM.
links() {
	for path in "$headers$1"/* "$headers$1"/.[!.]*; do
		name=${path##*/}
		case " $3 " in
		*" $name "*) continue ;;
		esac
		if [ -e "$path" ] || [ -L "$path" ]; then
			ln -s "$target$1/$name" "$directory$2/$name"
		fi
	done
}

mkdir -p "$directory/rust" "$directory/scripts"
links "" "" "Makefile rust scripts"
links /scripts /scripts target.json
cp "$tree/scripts/target.json" "$directory/scripts"

# Its own output directory is what makes the kernel's Makefile look here first.
if ! grep -qE '^(export )?KBUILD_OUTPUT *:?=' "$headers/Makefile"; then
	echo "$headers/Makefile is not one that a headers package of Debian has: it names no KBUILD_OUTPUT" >&2
	exit 1
fi
sed -E "s,^(export )?KBUILD_OUTPUT *:?=.*,KBUILD_OUTPUT = $place," "$headers/Makefile" >"$directory/Makefile"

# What there is differs from series to series: metadata, procedural macros, and inline helpers.
cp "$tree"/rust/*.rmeta "$tree"/rust/*.so "$directory/rust"
strip --strip-unneeded --remove-section=.comment "$directory"/rust/*.so
for helper in "$tree"/rust/helpers/*.bc; do
	[ -e "$helper" ] || continue
	mkdir -p "$directory/rust/helpers"
	cp "$helper" "$directory/rust/helpers"
done

echo "$version" >"$directory/made-for"
