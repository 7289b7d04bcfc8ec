#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Programs that fork: the parent keeps its number, and the child has one of its own. Prints TAP.
#
# usage: fork_test.sh PROGRAM...
set -u

echo "TAP version 13"
count=0 failed=0
for program; do
	count=$((count + 1))
	out=$("$program" 2>&1)
	status=$?
	# shellcheck disable=SC2086 # These are its words.
	set -- $out
	if [ $status = 0 ] && [ $# = 6 ] && [ "$1 $3 $5" = "parent child parent" ] &&
		[ "$2" = "$6" ] && [ "$2" != "$4" ] && [ ${#2} = 16 ] && [ ${#4} = 16 ]; then
		echo "ok $count ${program##*/}"
	else
		failed=1
		echo "$out" | sed 's/^/# /'
		echo "not ok $count ${program##*/}"
	fi
done
echo "1..$count"
exit $failed
