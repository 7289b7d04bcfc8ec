#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Malformed VMGenID devices, which our driver refuses, beside well-formed ones, which
# it hears. Prints TAP. The module is loaded when this ends, whatever it was at the
# start.
#
#	vmgenid_bad_test.sh sysgenid.ko sysgenid_hypervisor.ko TABLE.asl...
#
# The guest has each of the tables, compiled by iasl (QEMU: -acpitable file=TABLE.aml).
# What is expected of its device is said in the table itself: by what the driver says
# of it in the log, or "absent". Wants to be root, that nobody else uses the module,
# and that the in-tree driver was never loaded.

set -u

if [ $# -lt 3 ]; then
	echo "Usage: $0 sysgenid.ko sysgenid_hypervisor.ko TABLE.asl..." >&2
	exit 2
fi

DRIVER=$1
HYPERVISOR=$2
shift 2
TABLES=$*
HEARD="notifications of this VMGenID device are heard"

. "$(dirname "$0")/module.sh"
. "$(dirname "$0")/vmgenid.sh"

# Prints a line "DEVICE TABLE EXPECTATION" for each table. The device is found by its
# name in the table; on the ACPI bus and on the platform bus it is called the same.
list_devices()
{
	for table in $TABLES; do
		expected=$(sed -n 's,^// Expect: ,,p' "$table")
		[ -n "$expected" ] || { fail "$table expects nothing"; return; }
		name=$(sed -n 's/^ *Device (\(....\))$/\1/p' "$table")
		path=$(grep -l -x -F "\\_SB_.$name" /sys/bus/acpi/devices/VMGENCTR:*/path) ||
			{ fail "$table: there is no device $name"; return; }
		path=${path%/path}
		echo "${path##*/} $table $expected"
	done
}

all_tables_are_there()
{
	LIST=$(list_devices) || { echo "$LIST"; return 1; }
	while read -r device table _; do
		uid=$(cat "/sys/bus/acpi/devices/$device/uid")
		[ "$uid" = "$(basename "$table" .asl)" ] ||
			{ fail "$table: _UID of $device is $uid"; return; }
	done <<-EOF
	$LIST
	EOF
}

check_heard()
{
	check_driver "$1" sysgenid || return
	check_taken 1 "sysgenid $1: $HEARD" || return
	check_taken 1 " $1: "
}

# Said once, and then once by the driver core, unless it is an error by which a driver
# says that it is not for this device; and nothing more.
check_refused()
{
	check_driver "$1" "" || return
	check_taken 1 "sysgenid $1: $2" || return
	case $2 in
	"cannot evaluate"*)	check_taken 1 " $1: " ;;
	*)	check_taken 1 " $1: probe with driver sysgenid failed with error -22" &&
			check_taken 2 " $1: " ;;
	esac
}

check_device()
{
	if [ "$2" = absent ]; then
		[ ! -e "$DEVICES/$1" ] || fail "$1 is absent, and on the platform bus"
		return
	fi
	[ -e "$DEVICES/$1" ] || { fail "$1 is not on the platform bus"; return; }
	case $2 in
	"$HEARD")	check_heard "$1" ;;
	*)	check_refused "$1" "$2" ;;
	esac
}

# What happened since the mark.
check_all_devices()
{
	wrong=0
	bound=1
	take_log
	while read -r device table expected; do
		[ "$expected" != "$HEARD" ] || bound=$((bound + 1))
		check_device "$device" "$expected" || { fail "$table"; wrong=$((wrong + 1)); }
	done <<-EOF
	$LIST
	EOF
	[ $wrong -eq 0 ] || return
	set -- "$OURS"/*:*
	[ $# -eq $bound ] || fail "$# devices are bound, expected $bound"
}

load_marked()
{
	if is_loaded sysgenid; then
		unload || return
	fi
	mark_log
	load
}

each_is_refused_or_heard()
{
	load_marked && check_all_devices || return
	# Of several ones, this is about those that are not refused.
	check_taken 1 "sysgenid: the VMGenID device is held by the driver sysgenid"
}

# By the source that this kernel's configuration has.
own_device_is_heard()
{
	check_driver "$DEVICE" sysgenid || return
	remember
	play change 3 || return
	case $(look) in
	"$((generation + 3)) vmfork" | "$((generation + 3)) vmgenid") ;;
	*)	fail "generation and source are \"$(look)\"" ;;
	esac
}

the_same_when_bound_by_hand()
{
	mark_log
	while read -r device table expected; do
		case $expected in
		absent)	;;
		"$HEARD")
			echo "$device" >$OURS/unbind || { fail "$table: not unbound"; return; }
			check_driver "$device" "" || return
			echo "$device" >$OURS/bind || { fail "$table: not bound"; return; } ;;
		*)
			if echo "$device" 2>/dev/null >$OURS/bind; then
				fail "$table: bound"
				return
			fi ;;
		esac
	done <<-EOF
	$LIST
	EOF
	check_all_devices
}

the_same_after_loading_again()
{
	for _ in 1 2; do
		load_marked && check_all_devices && own_device_is_heard || return
	done
}

DEVICE=$(find_device) || { echo "$DEVICE"; exit 1; }
is_loaded sysgenid_hypervisor || insmod "$HYPERVISOR" || exit

run_tests all_tables_are_there each_is_refused_or_heard own_device_is_heard \
	the_same_when_bound_by_hand the_same_after_loading_again
status=$?

[ -c "$NODE" ] || load
[ $status -eq 0 ]
