#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# How scripts that test on the host print TAP, and how they call the lab; they source it.

count=0
failed=0
# The end of a line, which $(...) would take away.
NL='
'

result() { # result STATUS NAME
	count=$((count + 1))
	if [ "$1" = 0 ]; then
		echo "ok $count $2"
	else
		failed=$((failed + 1))
		echo "not ok $count $2"
	fi
}

# The plan, and the exit status of all tests together. Nothing comes after it.
end_tests() {
	echo "1..$count"
	[ "$failed" = 0 ]
}

# Shows a file, or standard input, as diagnostics. Where the last line has no end, it gets one.
diagnose() {
	awk '{ print "# " $0 }' "$@"
}

# Whether a file has a text in it, in which lines may end.
has() {
	text=$(cat "$1"; echo .)
	case ${text%.} in
	*"$2"*) return 0 ;;
	esac
	return 1
}

# says NAME STATUS OUT ERR ARGUMENTS...: a test that calls $LAB as a user would. It has to exit
# with STATUS, and to say OUT on standard output and ERR on standard error, among other things.
says() {
	name=$1 status=$2 out=$3 err=$4
	shift 4
	said=$(mktemp -d) || exit
	"$LAB" "$@" </dev/null >"$said/out" 2>"$said/err"
	ended=$?
	why=
	[ "$ended" = "$status" ] || why="exit status $ended, not $status$NL"
	has "$said/out" "$out" || why="${why}standard output lacks: $out$NL"
	has "$said/err" "$err" || why="${why}standard error lacks: $err$NL"
	if [ -n "$why" ]; then
		echo "${why}standard output:" | diagnose
		diagnose "$said/out"
		echo "standard error:" | diagnose
		diagnose "$said/err"
	fi
	[ -z "$why" ]
	result $? "$name"
	rm -r "$said"
}
