#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The module that was built for one kernel, in a Debian system with that kernel and without any
# compiler. It runs as root, in a system that nobody needs afterwards. Prints TAP.
#
# usage: prebuilt.sh PACKAGES (a directory with our packages, and those of the system's kernel)
set -u

. "$(dirname "$0")/common.sh"

first=$(basename /lib/modules/*)

installs() {
	succeeds apt install "$packages"/sysgenid_*.deb "$packages/sysgenid-modules-$first"_*.deb &&
		finds_module "$first" ""
}

takes_no_compiler() {
	for program in dkms gcc make rustc; do
		! command -v "$program" | diagnose | grep . || return
	done
}

# For Debian's own Python, compiled by the package's script.
python_finds_it() {
	succeeds apt install "$packages"/python3-sysgenid_*.deb || return
	python3 -c 'import importlib.metadata, sysgenid
sysgenid.SystemRandom(allow_missing=True).random()
assert importlib.metadata.version("sysgenid") == sysgenid.__version__' || return
	[ -n "$(find /usr/lib/python3/dist-packages/sysgenid -name '*.pyc')" ] || { echo "# not compiled"; return 1; }
}

purges() {
	succeeds apt purge python3-sysgenid sysgenid "sysgenid-modules-$first" && succeeds apt autoremove --purge || return
	! finds_module "$first" "" >/dev/null || { echo "# the module is still found"; return 1; }
	everything >"$work/after"
	diff "$work/before" "$work/after" >"$work/diff" || { diagnose "$work/diff"; return 1; }
}

echo "TAP version 13"
succeeds apt update || exit
everything >"$work/before"
installs
result $? "apt installs the packages, and the module is found"
takes_no_compiler
result $? "no compiler came along"
python_finds_it
result $? "Python finds its package"
purges
result $? "purged, nothing is left"
end_tests
