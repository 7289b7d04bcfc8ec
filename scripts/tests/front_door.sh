#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# `make help` names every verb of the Makefile. Prints TAP.
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

checkout=$(cd "$(dirname "$0")/../.." && pwd)

every_verb_is_listed() {
	help=$(make -C "$checkout" help) || return
	verbs=$(sed -n 's/^\.PHONY: //p' "$checkout/Makefile")
	[ -n "$verbs" ] || { echo "# the Makefile has no verbs"; return 1; }
	unlisted=
	for verb in $verbs; do
		case $help in
		*"make $verb "* | *"make [$verb] "*) ;;
		*) unlisted="$unlisted $verb" ;;
		esac
	done
	[ -z "$unlisted" ] || { echo "# make help does not list:$unlisted"; return 1; }
}

echo "TAP version 13"
every_verb_is_listed
result $? "make help lists every verb"
end_tests
