#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What make installs and removes of the package for Python, and what is said of it in several places.
# Prints TAP.
set -u

. "$(dirname "$0")/../../../lab/tests/tap.sh"

checkout=$(cd "$(dirname "$0")/../../.." && pwd)
python=$checkout/userspace/python
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT
place=$work/place
export PYTHONDONTWRITEBYTECODE=1

# by_make VERB: nothing is built, and nothing of a compiler is called.
by_make() {
	make -C "$checkout/userspace" "$@" CARGO=false CBINDGEN=false STRIP=false PYTHONDIR="$place" \
		>"$work/out" 2>&1 || { diagnose "$work/out"; return 1; }
}

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$checkout/Cargo.toml")

is_found() {
	by_make install-python || return
	(cd / && PYTHONPATH=$place python3 -c '
import importlib.metadata, os, sys, sysgenid
assert sysgenid.__file__.startswith(sys.argv[1]), sysgenid.__file__
assert importlib.metadata.version("sysgenid") == sys.argv[2] == sysgenid.__version__
assert os.path.exists(os.path.join(os.path.dirname(sysgenid.__file__), "py.typed"))
sysgenid.SystemRandom(allow_missing=True).random()
' "$place" "$version") >"$work/out" 2>&1 || { diagnose "$work/out"; return 1; }
}

# All modules, and nothing of the tests.
is_complete() {
	diff -r "$python/sysgenid" "$place/sysgenid" >"$work/diff" || { diagnose "$work/diff"; return 1; }
	found=$(cd "$place" && echo *)
	[ "$found" = "sysgenid sysgenid-$version.dist-info" ] || { echo "# $found"; return 1; }
}

# Also what Python has compiled.
is_removed() {
	echo other >"$place/other.py"
	PYTHONPATH=$place PYTHONDONTWRITEBYTECODE='' python3 -c 'import sysgenid' || return
	by_make uninstall-python || return
	found=$(cd "$place" && echo *)
	[ "$found" = other.py ] || { echo "# left: $found"; return 1; }
}

# What pip has installed is pip's.
leaves_that_of_others() {
	by_make install-python || return
	echo pip >"$place/sysgenid-$version.dist-info/INSTALLER"
	for verb in install-python uninstall-python; do
		if by_make "$verb" >/dev/null; then
			echo "# $verb went ahead"
			return 1
		fi
		has "$work/out" "by pip" || { diagnose "$work/out"; return 1; }
	done
	[ -e "$place/sysgenid/__init__.py" ]
}

# make install does not install it: programs in Python are wanted by whoever asks.
is_for_who_asks() {
	would_install install-python || { echo "# install-python would not"; return 1; }
	! would_install install
}

would_install() { # would_install VERB
	make -n -C "$checkout/userspace" "$1" PYTHONDIR="$place" 2>"$work/err" >"$work/out" ||
		{ diagnose "$work/err"; return 1; }
	has "$work/out" " python/sysgenid/"
}

has_the_texts() {
	for licence in MIT Apache-2.0; do
		cmp "$checkout/LICENSES/$licence.txt" "$python/LICENSES/$licence.txt" || return
	done
}

echo "TAP version 13"
is_found
result $? "Python finds it, and its version is that of Cargo.toml"
is_complete
result $? "all of it is installed, and no more"
is_removed
result $? "make uninstall-python leaves nothing, and what is not its own"
leaves_that_of_others
result $? "what somebody else has installed stays"
is_for_who_asks
result $? "make install does not install it"
has_the_texts
result $? "the licences are those of the repository"
end_tests
