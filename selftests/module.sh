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

# What the driver queues is done soon, and not at once.
wait_look()
{
	for _ in $(seq 300); do
		[ "$(look)" != "$1" ] || return 0
		sleep 0.1
	done
	check_look "$1"
}

# From here on, the log is looked at.
mark_log()
{
	marks=$((${marks:-0} + 1))
	echo "selftests: mark $marks of $$" >/dev/kmsg
}

# What the log says since the mark. Taken once, it can be looked at often.
take_log()
{
	logged=$(dmesg | sed "1,/selftests: mark $marks of $$\$/d")
}

# The log that was taken has that text in as many lines as that. All by the shell: in a
# kernel that looks for mistakes, each program that is run takes its time.
check_taken()
{
	times=0
	while IFS= read -r line; do
		case $line in
		*"$2"*)	times=$((times + 1)) ;;
		esac
	done <<-EOF
	$logged
	EOF
	[ "$times" -eq "$1" ] || fail "the log says $times times, expected $1: $2"
}

check_logged()
{
	take_log
	check_taken "$@"
}

# Waits until the log says that.
wait_logged()
{
	for _ in $(seq 300); do
		take_log
		case $logged in
		*"$1"*)	return ;;
		esac
		sleep 0.1
	done
	fail "the log does not say: $1"
}

# Runs the functions that are named, as tests.
run_tests()
{
	echo "TAP version 13"
	echo "1..$#"

	number=0
	failed=0
	for test; do
		number=$((number + 1))
		$test
		case $? in
		0)	echo "ok $number $test" ;;
		"$SKIP")	echo "ok $number $test # SKIP" ;;
		*)	echo "not ok $number $test"
			failed=$((failed + 1)) ;;
		esac
	done

	echo "# $failed of $# failed"
	[ $failed -eq 0 ]
}
