#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Loads and unloads the module, and changes the generation from another module.
# Prints TAP. The module is loaded when this ends, whatever it was at the start.
#
#	module_test.sh sysgenid.ko sysgenid_bump.ko busy [sysgenid-rs-test]
#
# busy is the program that maps. The last one holds a mapping; without it, that test
# is skipped. Wants to be root, and that nobody else uses the module.

set -u

if [ $# -lt 3 ]; then
	echo "Usage: $0 sysgenid.ko sysgenid_bump.ko busy [sysgenid-rs-test]" >&2
	exit 2
fi

DRIVER=$1
BUMP=$2
BUSY=$3
HOLDER=${4:-}
PARAMETER=/sys/module/sysgenid_bump/parameters/bump

. "$(dirname "$0")/module.sh"

# The module is in use by what the argument says, and only by that.
check_not_unloaded()
{
	if rmmod sysgenid 2>/dev/null; then
		fail "the module was unloaded while there was $1"
		return
	fi
	[ -c $NODE ] || fail "$NODE is gone, though the module was not unloaded"
}

check_fresh()
{
	check_look "0 none" || return
	[ -c $NODE ] || { fail "$NODE is no character device"; return; }
	mode=$(stat -c %a $NODE)
	[ "$mode" = 666 ] || fail "the mode of $NODE is $mode, expected 666"
}

fresh_driver_stands_at_0()
{
	if is_loaded sysgenid; then
		unload || return
	fi
	load && check_fresh
}

# As Firecracker's guest test does it by the ioctl.
five_changes_by_another_module()
{
	insmod "$BUMP" || { fail "$BUMP cannot be loaded"; return; }
	check_look "0 none" || return
	for n in 1 2 3 4 5; do
		echo 1 >$PARAMETER || { fail "$PARAMETER cannot be written"; return; }
		wait_look "$n kernel" || return
	done
}

# However many there are before the first is made, each is one.
each_call_is_a_change()
{
	echo 20 >$PARAMETER || { fail "$PARAMETER cannot be written"; return; }
	wait_look "25 kernel"
}

# In a hard interrupt, which is where a call can find the least of what it might need.
called_in_an_interrupt()
{
	echo 5 >/sys/module/sysgenid_bump/parameters/interrupt ||
		{ fail "it cannot be called"; return; }
	wait_look "30 kernel"
}

# Mapping takes the lock of the process's memory, which a readdir of /dev takes when it faults,
# with the directory's lock held, which whoever makes a device's node waits for, with the lock of
# all misc devices held. So mapping must not take that one.
mapped_while_devices_come_and_go()
{
	"$BUSY" --maps &
	mapper=$!
	echo 300 >/sys/module/sysgenid_bump/parameters/devices ||
		{ fail "no devices come and go"; return; }
	kill $mapper 2>/dev/null || { fail "the page is not mapped"; return; }
	wait $mapper 2>/dev/null
	return 0
}

changes_are_logged()
{
	lines=$(dmesg | grep "generation changed from" | sed -n 's/.*from \(.*\)/\1/p' |
		head -n 2 | tr '\n' ';')
	state=reseeded
	[ -e /dev/vmgenid ] || state="not reseeded"
	expected="0 to 1, source kernel, $state;1 to 2, source kernel, $state;"
	[ "$lines" = "$expected" ] || fail "the log says: $lines"
}

# Not by the test before: that one must have left the other module loaded.
not_unloaded_under_another_module()
{
	is_loaded sysgenid_bump || { fail "sysgenid_bump is not loaded"; return; }
	check_not_unloaded "a module that calls it" || return
	rmmod sysgenid_bump || { fail "sysgenid_bump cannot be unloaded"; return; }
	# What it did stays.
	check_look "30 kernel"
}

not_unloaded_under_a_descriptor()
{
	exec 3<$NODE
	check_not_unloaded "a descriptor"
	status=$?
	exec 3<&-
	return $status
}

check_no_descriptor()
{
	for fd in /proc/"$1"/fd/*; do
		if [ "$(readlink "$fd")" = $NODE ]; then
			fail "$HOLDER still has a descriptor"
			return
		fi
	done
}

not_unloaded_under_a_mapping()
{
	[ -n "$HOLDER" ] || { fail "no program to hold a mapping"; return $SKIP; }
	dir=$(mktemp -d) || return
	mkfifo "$dir/in" "$dir/out" || return
	"$HOLDER" --hold-mapping <"$dir/in" >"$dir/out" &
	exec 4>"$dir/in"
	read -r line <"$dir/out"
	status=1
	if [ "$line" = MAPPED ]; then
		check_no_descriptor $! && check_not_unloaded "a mapping"
		status=$?
	else
		fail "$HOLDER says: $line"
	fi
	exec 4>&-
	wait $! || { fail "$HOLDER: exit status $?"; status=1; }
	rm -r "$dir"
	return $status
}

unload_when_all_are_gone()
{
	unload
}

# The kernel does not load a module that calls a function which nobody exports.
another_module_needs_this_one()
{
	if is_loaded sysgenid; then
		fail "sysgenid is loaded"
		return
	fi
	! insmod "$BUMP" 2>/dev/null || { rmmod sysgenid_bump; fail "$BUMP was loaded"; }
}

# A change that was asked for is made before the module goes.
unloaded_with_a_change_on_its_way()
{
	insmod "$BUMP" || { fail "$BUMP cannot be loaded"; return; }
	for _ in $(seq 20); do
		echo 50 >$PARAMETER || { fail "$PARAMETER cannot be written"; return; }
		rmmod sysgenid_bump && unload && load && insmod "$BUMP" || return
	done
	rmmod sysgenid_bump
}

load_again()
{
	load && check_fresh
}

twenty_rounds()
{
	for n in $(seq 20); do
		unload || { fail "round $n"; return; }
		load || { fail "round $n"; return; }
		insmod "$BUMP" || { fail "round $n"; return; }
		echo 1 >$PARAMETER || { fail "round $n"; return; }
		wait_look "1 kernel" || { fail "round $n"; return; }
		rmmod sysgenid_bump || { fail "round $n"; return; }
	done
	unload && load && check_fresh
}

TESTS="fresh_driver_stands_at_0 five_changes_by_another_module each_call_is_a_change
	called_in_an_interrupt mapped_while_devices_come_and_go changes_are_logged
	not_unloaded_under_another_module not_unloaded_under_a_descriptor
	not_unloaded_under_a_mapping unload_when_all_are_gone
	another_module_needs_this_one load_again
	unloaded_with_a_change_on_its_way twenty_rounds"

# shellcheck disable=SC2086 # words
run_tests $TESTS
status=$?

is_loaded sysgenid || load
[ $status -eq 0 ]
