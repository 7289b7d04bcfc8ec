#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Each tree that cannot build Rust modules is refused before the module is compiled, with what
# is wrong and what to do. Prints TAP.
#
# usage: KDIR=/path/to/a/good/tree refused_kdirs.sh
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

: "${KDIR:?}"
compiler=$(rustc --version) || exit
checkout=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT
trees=$work/trees

# tree NAME [CONFIG]: makes what looks like a kernel tree, which is prepared if it has a CONFIG.
tree() {
	mkdir -p "$trees/$1/include/config" "$trees/$1/scripts" "$trees/$1/rust"
	printf 'all modules:\n\t@echo the compiler ran; false\n' >"$trees/$1/Makefile"
	[ $# -lt 2 ] || echo "$2" >"$trees/$1/include/config/auto.conf"
}

# lacking NAME PATTERN...: makes a copy of the good tree, of links, in which these files are missing.
lacking() {
	copy=$trees/$1
	shift
	mkdir -p "$trees" && cp -as "$KDIR" "$copy" && rm "$copy/Makefile" &&
		sed "s,$KDIR,$copy," "$KDIR/Makefile" >"$copy/Makefile" || exit
	for pattern; do
		find "$copy" -path "$copy/$pattern" -delete || exit
	done
}

front_door() { # front_door VERB TREE
	make -C "$checkout" "$1" KDIR="$2" MO="$work/module" >"$work/out" 2>"$work/err"
}

# is_refused TREE WORDS...: standard error has all of the words.
is_refused() {
	if front_door modules "$1"; then
		echo "# it was not refused"
		return 1
	fi
	shift
	for words; do
		has "$work/err" "$words" ||
			{ echo "# \"$words\" is not in:"; diagnose "$work/err"; return 1; }
	done
	if has "$work/out" "the compiler ran" || has "$work/out" "sysgenid.o"; then
		echo "# the module's build was started"
		return 1
	fi
}

refused() { # refused NAME TREE WORDS...
	name=$1
	shift
	is_refused "$@"
	result $? "refused: $name"
}

other='CONFIG_RUST=y
CONFIG_RUSTC_VERSION_TEXT="rustc 1.0.0 (ancient)"'
tree raw
tree c "CONFIG_SMP=y"
tree old "$other"
lacking headers 'rust/*.rmeta' 'rust/*.so' scripts/target.json
# Of a kernel's crates these are the best known. No tree can do with them only.
lacking four 'rust/*.rmeta'
for crate in core bindings pin_init kernel; do
	ln -s "$KDIR/rust/lib$crate.rmeta" "$trees/four/rust" || exit
done
lacking symbols Module.symvers

echo "TAP version 13"
refused "no directory" "$trees/absent" "there is no directory"
refused "not a kernel tree" "$trees" "not a kernel build tree"
refused "not prepared" "$trees/raw" "not prepared" "modules_prepare"
refused "no CONFIG_RUST" "$trees/c" "CONFIG_RUST"
refused "nothing for Rust, as in packages" "$trees/headers" "target.json" "modules_prepare"
refused "four crates only" "$trees/four" "can't find crate for" "modules_prepare"
refused "no table of symbols" "$trees/symbols" "Module.symvers is missing" "undefined"
refused "another compiler" "$trees/old" "rustc 1.0.0 (ancient)" "$compiler"
front_door check-kdir "$KDIR" || { diagnose "$work/err"; false; }
result $? "a good tree is not refused"
end_tests
