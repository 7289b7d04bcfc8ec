#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What the scripts that load and unload the module have in common; they source it,
# with $DRIVER set.

NODE=/dev/sysgenid
SKIP=4

# Says why a test fails, and fails.
fail()
{
	echo "# $*"
	return 1
}

is_loaded()
{
	[ -d /sys/module/"$1" ]
}

load()
{
	insmod "$DRIVER" || fail "the module cannot be loaded"
}

unload()
{
	rmmod sysgenid || { fail "the module cannot be unloaded"; return; }
	if is_loaded sysgenid; then fail "it is still there"; return; fi
	[ ! -e $NODE ] || fail "$NODE is still there"
}

# Prints what a watcher that is opened now sees: one line "generation source".
look()
{
	sed -n 's/^sysgenid-generation:\t//p; s/^sysgenid-source:\t//p' \
		/proc/self/fdinfo/0 <$NODE | tr '\n' ' ' | sed 's/ $//'
}

check_look()
{
	seen=$(look)
	[ "$seen" = "$1" ] || fail "generation and source are \"$seen\", expected \"$1\""
}

# What the log says from now on is what log() prints.
mark_log()
{
	marks=$((${marks:-0} + 1))
	echo "selftests: mark $marks of $$" >/dev/kmsg
}

log()
{
	dmesg | sed "1,/selftests: mark $marks of $$\$/d"
}

# The log has that text as often as that, since the mark.
check_logged()
{
	times=$(log | grep -c -F "$2")
	[ "$times" = "$1" ] || fail "the log says $times times, expected $1: $2"
}

# Runs the functions that are named, as tests.
run_tests()
{
	echo "TAP version 13"
	echo "1..$#"

	number=0
	failed=0
	for name; do
		number=$((number + 1))
		$name
		case $? in
		0)	echo "ok $number $name" ;;
		"$SKIP")	echo "ok $number $name # SKIP" ;;
		*)	echo "not ok $number $name"
			failed=$((failed + 1)) ;;
		esac
	done

	echo "# $failed of $# failed"
	[ $failed -eq 0 ]
}
