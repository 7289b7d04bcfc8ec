#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The ledger that the example `ledger` writes to, as one clone knows it: what came before
# the snapshot, and since. Prints TAP.
#
#	ledger_test.sh [--careless] N
#
# The arguments are the example's. What that says is noted at once, for the host to compare
# between clones:
#
#	# entry submit ID, # entry commit ID	what the ledger keeps
#	# revert ID				what it takes back
set -u

if [ "$1" = --careless ]; then
	careless=yes more=$2
else
	careless='' more=$1
fi
cd "$(mktemp -d)" || exit

number=0 bad=0
result() { # result STATUS NAME
	number=$((number + 1))
	if [ "$1" = 0 ]; then
		echo "ok $number $2"
	else
		bad=1
		sed 's/^/# before: /' before
		sed 's/^/# since: /' since
		echo "not ok $number $2"
	fi
}

# What was reverted may be so in each clone.
kept_twice() {
	sort before since | grep -v '^revert ' | uniq -d | grep -q .
}

is_reverted() {
	[ "$(grep '^revert ' since)" = "revert $1" ] && ! grep -qxF "commit $1" before since
}

is_committed() {
	! grep -q '^revert ' since && grep -qxF "commit $1" since
}

commits() {
	grep -c '^commit ' "$1"
}

# What was in its hands, or came in its place, and the others.
each_is_committed() {
	[ "$(commits before)" = 1 ] && [ "$(commits since)" = $((1 + more)) ]
}

ended_well() {
	[ "$ended" = 0 ]
}

# The reader is told how the example ended: the shell keeps that to itself.
{
	/ledger "$@"
	echo "ended $?"
} | {
	: >before
	: >since
	now=before ended=
	while read -r who what id; do
		case "$who $what" in
		"ledger submit" | "ledger commit")
			echo "$what $id" >>$now
			echo "# entry $what $id"
			;;
		"ledger revert")
			echo "$what $id" >>$now
			echo "# revert $id"
			;;
		"READY ")
			now=since
			echo READY
			;;
		"ended "*)
			ended=$what
			;;
		*)
			echo "Bail out! the ledger does not know: $who $what $id"
			exit 1
			;;
		esac
	done
	echo 'TAP version 13'
	echo '1..4'
	! kept_twice
	result $? nothing_is_submitted_or_committed_twice
	# The last thing before the snapshot.
	in_its_hands=$(sed -n '$s/^submit //p' before)
	if [ -z "$in_its_hands" ]; then
		result 1 something_was_in_its_hands
	elif [ -n "$careless" ]; then
		is_committed "$in_its_hands"
		result $? what_was_in_its_hands_is_committed
	else
		is_reverted "$in_its_hands"
		result $? what_was_in_its_hands_is_reverted
	fi
	each_is_committed
	result $? each_transaction_is_committed
	ended_well
	result $? the_worker_ends_well
	exit "$bad"
}
