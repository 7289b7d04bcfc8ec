#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Watchers that are told of changes, and that an overseer waits for. Prints TAP.
#
# usage: watch_test.sh SYSGENCTL PROGRAM...
set -u

sysgenctl=$1
shift
work=$(mktemp -d) || exit
count=0 failed=0 pid=
trap '[ -z "$pid" ] || kill -KILL "$pid"; rm -rf "$work"' EXIT

result() { # result STATUS NAME
	count=$((count + 1))
	if [ "$1" = 0 ]; then
		echo "ok $count $2"
	else
		failed=$((failed + 1))
		sed 's/^/# /' "$work/out" "$work/err"
		echo "not ok $count $2"
	fi
}

begins() {
	"$program" >"$work/out" 2>"$work/err" &
	pid=$!
	while ! grep -q '^begun with ' "$work/out"; do
		kill -0 "$pid" || return
		sleep 0.1
	done
}

# The change is one that this watcher has acknowledged before the overseer goes on.
heeds_a_change() {
	generation=$("$sysgenctl" trigger --wait --timeout 60s 2>>"$work/err" | sed -n 's/^generation //p')
	[ -n "$generation" ] && grep -q "^generation $generation with " "$work/out"
}

heeds_three_changes() {
	heeds_a_change && heeds_a_change && heeds_a_change
}

# Three, and what it began with.
has_four_numbers() {
	[ "$(sed -n 's/.* with \([0-9a-f]\{16\}\)$/\1/p' "$work/out" | sort -u | wc -l)" = 4 ]
}

# It is there, and cannot acknowledge.
is_waited_for() {
	kill -STOP "$pid"
	! "$sysgenctl" trigger --wait --timeout 1s >/dev/null 2>>"$work/err"
	waited=$?
	kill -CONT "$pid"
	"$sysgenctl" wait --timeout 60s >/dev/null 2>>"$work/err" && [ "$waited" = 0 ]
}

ends() {
	kill "$pid" && { wait "$pid"; [ $? = 143 ]; }
	ended=$?
	pid=
	return $ended
}

echo "TAP version 13"
for program; do
	begins
	result $? "${program##*/} begins"
	heeds_three_changes
	result $? "${program##*/} heeds each change"
	has_four_numbers
	result $? "${program##*/} builds anew each time"
	is_waited_for
	result $? "${program##*/} is waited for"
	ends
	result $? "${program##*/} goes on until it is ended"
done
echo "1..$count"
[ "$failed" = 0 ]
