#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The packages that are built in another directory, by somebody in another time zone, with another
# language and umask, are the same, byte for byte. Prints TAP.
#
# usage: FILES=DIR SCRATCH=DIR reproducible.sh (DIR/packages has the packages)
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

: "${FILES:?}" "${SCRATCH:?}"
packaging=$(cd "$(dirname "$0")/.." && pwd)
tree=$SCRATCH/some/where/else
mkdir -p "${tree%/*}" "$SCRATCH/home"

build_again() {
	umask 077
	TZ=Pacific/Kiritimati LC_ALL=C.UTF-8 LANG=de_DE.UTF-8 HOME=$SCRATCH/home
	export TZ LC_ALL LANG HOME
	"$packaging/source.sh" "$tree" && "$packaging/vendor.sh" "$tree" &&
		"$packaging/build.sh" "$tree" "$SCRATCH/again"
}

are_the_same() {
	(build_again) >"$SCRATCH/log" 2>&1 || { tail -n 30 "$SCRATCH/log" | diagnose; return 1; }
	compared=0
	for package in "$FILES"/packages/*.deb; do
		cmp "$package" "$SCRATCH/again/${package##*/}" 2>&1 | diagnose | grep . && return 1
		compared=$((compared + 1))
	done
	[ "$compared" -gt 0 ]
}

echo "TAP version 13"
are_the_same
result $? "the same packages are built elsewhere"
end_tests
