#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# mandoc has nothing to say against the manual pages that are installed. Prints TAP.
#
# usage: FILES=DIR manual_pages.sh (after make install PREFIX=/usr DESTDIR=DIR/installed)
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

pages=$FILES/installed/usr/share/man
log=$(mktemp) || exit
trap 'rm -f "$log"' EXIT

are_clean() {
	[ -n "$(find "$pages" -type f)" ] || { echo "# there are no manual pages"; return 1; }
	find "$pages" -type f -exec mandoc -T lint -W warning {} + >"$log" 2>&1
	status=$?
	diagnose "$log"
	[ $status -eq 0 ] && [ ! -s "$log" ]
}

echo "TAP version 13"
are_clean
result $? "manual pages"
end_tests
