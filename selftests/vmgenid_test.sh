#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The ACPI VMGenID device under our own driver: what it hears, and from when to when.
# Prints TAP. The module is loaded when this ends, whatever it was at the start.
#
#	vmgenid_test.sh sysgenid.ko sysgenid_hypervisor.ko [vmgenid.ko]
#	vmgenid_test.sh --built-in sysgenid_hypervisor.ko [vmgenid.ko]
#
# Without vmgenid.ko, this is for a kernel with CONFIG_VMGENID=n. With it, that driver
# has the device in the end, and nothing can take it away: a second run in the same
# guest fails. --built-in is for a kernel that has our driver in it; there, vmgenid.ko
# only says that CONFIG_VMGENID is not n. Wants to be root, and that nobody else uses
# the module.

set -u

if [ $# -lt 2 ]; then
	echo "Usage: $0 sysgenid.ko|--built-in sysgenid_hypervisor.ko [vmgenid.ko]" >&2
	exit 2
fi

DRIVER=$1
HYPERVISOR=$2
IN_TREE=${3:-}
if [ -n "$IN_TREE" ]; then SOURCE=vmfork; else SOURCE=vmgenid; fi

. "$(dirname "$0")/module.sh"
. "$(dirname "$0")/vmgenid.sh"

fresh_module_binds()
{
	if is_loaded sysgenid; then
		unload || return
	fi
	mark_log
	load || return
	check_driver "$DEVICE" sysgenid || return
	check_look "0 none" || return
	check_logged 1 "sysgenid $DEVICE: notifications of this VMGenID device are heard" ||
		return
	check_logged 1 "sysgenid: source $SOURCE: "
}

built_in_is_bound()
{
	check_driver "$DEVICE" sysgenid
}

alias_fits()
{
	modalias=$(cat "$DEVICES/$DEVICE/modalias") || return
	for alias in $(tr '\0' '\n' <"$DRIVER" | sed -n 's/^alias=\(acpi\*:.*\)/\1/p'); do
		# shellcheck disable=SC2254 # a pattern it is
		case $modalias in
		$alias)	return ;;
		esac
	done
	fail "no alias of $DRIVER fits $modalias"
}

# As udev does it when the device comes up. What depmod has made is taken where it is;
# busybox can make it, too.
loaded_by_modalias()
{
	modules=/lib/modules/$(uname -r)
	if [ ! -e "$modules/modules.alias" ]; then
		if ! { mkdir -p "$modules" && cp "$DRIVER" "$modules" && depmod; }; then
			fail "$modules cannot be made"
			return
		fi
	fi
	unload || return
	modprobe "$(cat "$DEVICES/$DEVICE/modalias")" || { fail "modprobe"; return; }
	check_driver "$DEVICE" sysgenid
}

one_change_one_generation()
{
	remember
	play change 1 || return
	check_changed 1 || return
	check_logged 1 "generation changed from $generation to $((generation + 1)), source $SOURCE" ||
		return
	check_logged 1 "generation changed from"
}

many_changes_as_many_generations()
{
	remember
	play change 40 || return
	check_changed 40
}

same_id_changes_nothing()
{
	raised=$(cat $PLAY/raised)
	remember
	play notify 2000 || return
	raised=$(($(cat $PLAY/raised) - raised))
	[ $raised -eq 2000 ] || { fail "$raised notifications were raised"; return; }
	check_unchanged
}

not_before_the_notification()
{
	remember
	check_pending 0 || return
	play id 000102030405060708090a0b0c0d0e0f || return
	check_pending 1 || return
	check_unchanged || return
	play notify 1 || return
	check_pending 0 || return
	check_changed 1 || return
	# The ID from before would be a change as well, if it was that one that was kept.
	remember
	play notify 1 || return
	check_unchanged
}

# The ID is 16 bytes, and each of them counts.
any_byte_counts()
{
	remember
	play id 00000000000000000000000000000000 && play notify 1 || return
	for byte in $(seq 0 15); do
		play id "$(printf "%0$((2 * byte))d01%0$((30 - 2 * byte))d" 0 0 |
			sed 's/.*\(.\{32\}\)$/\1/')" && play notify 1 || return
	done
	check_changed 17
}

storm_with_changes()
{
	raised=$(cat $PLAY/raised)
	remember
	play storm 20 || return
	wait_raised $((raised + 400))
	status=$?
	play storm 0 || return
	[ $status -eq 0 ] || return
	changes=$(($(look_generation) - generation))
	echo "# $(($(cat $PLAY/raised) - raised)) notifications, $changes changes"
	# Two that are on their way at once can be heard as one, and a look while the ID
	# is being written sees half of it.
	if [ $changes -lt 1 ] || [ $changes -gt 100 ]; then
		fail "$changes changes of the generation"
		return
	fi
	remember
	play notify 10 || return
	check_unchanged
}

unbound_hears_nothing()
{
	unbind || return
	remember
	play change 3 || return
	check_unchanged || return
	# The ID that is there when the driver comes is the one it begins with.
	bind || return
	check_unchanged || return
	play notify 3 || return
	check_unchanged || return
	play change 1 || return
	check_changed 1
}

# in_a_storm ROUNDS COMMAND1 COMMAND2: does both, again and again, while notifications are
# raised all the time; afterwards a change is heard as ever.
in_a_storm()
{
	play storm 16 || return
	for round in $(seq "$1"); do
		if ! { $2 && $3; }; then
			play storm 0
			fail "round $round"
			return
		fi
	done
	play storm 0 || return
	remember
	play change 1 || return
	check_changed 1
}

bound_100_times_in_a_storm()
{
	in_a_storm 100 unbind bind
}

unloaded_50_times_in_a_storm()
{
	in_a_storm 50 unload load
}

# Who comes first gets the device.
in_tree_driver_comes_second()
{
	insmod "$IN_TREE" || { fail "$IN_TREE cannot be loaded"; return; }
	check_driver "$DEVICE" sysgenid || return
	remember
	play change 5 || return
	check_changed 5 || return
	# It holds nothing: else it must never be unloaded, for it would leave its handler.
	rmmod vmgenid || { fail "vmgenid cannot be unloaded"; return; }
	play change 1 || return
	check_changed 6
}

# The last one: from here on, the device is never unbound.
in_tree_driver_comes_first()
{
	unload || return
	insmod "$IN_TREE" || { fail "$IN_TREE cannot be loaded"; return; }
	check_driver "$DEVICE" vmgenid || return
	mark_log
	load || return
	check_driver "$DEVICE" vmgenid || return
	check_logged 1 "sysgenid: source vmfork: " || return
	check_logged 1 "sysgenid: the VMGenID device is held by the driver vmgenid" || return
	check_logged 0 "sysgenid $DEVICE" || return
	if echo "$DEVICE" 2>/dev/null >$OURS/bind; then
		fail "the device was taken from vmgenid"
		return
	fi
	remember
	play change 3 || return
	check_changed 3 || return
	play notify 100 || return
	check_changed 3 || return
	unload || return
	check_driver "$DEVICE" vmgenid || return
	play change 1 || return
	load || return
	check_look "0 none" || return
	play change 1 || return
	check_look "1 vmfork"
}

HEARS="one_change_one_generation many_changes_as_many_generations
	same_id_changes_nothing not_before_the_notification any_byte_counts
	storm_with_changes unbound_hears_nothing bound_100_times_in_a_storm"

if [ "$DRIVER" = --built-in ]; then
	TESTS="built_in_is_bound $HEARS"
else
	TESTS="fresh_module_binds alias_fits loaded_by_modalias $HEARS
		unloaded_50_times_in_a_storm"
	if [ -n "$IN_TREE" ]; then
		TESTS="$TESTS in_tree_driver_comes_second in_tree_driver_comes_first"
	fi
fi

DEVICE=$(find_device) || { echo "$DEVICE"; exit 1; }
is_loaded sysgenid_hypervisor || insmod "$HYPERVISOR" || exit

# shellcheck disable=SC2086 # words
run_tests $TESTS
status=$?

[ -c $NODE ] || load
[ $status -eq 0 ]
