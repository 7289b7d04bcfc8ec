#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Malformed VMGenID devices, which our driver refuses, beside well-formed ones, which
# it does not. Prints TAP. The module is loaded when this ends, whatever it was at the
# start.
#
#	vmgenid_bad_test.sh sysgenid.ko TABLE.asl...
#
# The guest has each of the tables, compiled by iasl (QEMU: -acpitable file=TABLE.aml).
# What is expected of its device is said in the table itself: by what the driver says
# of it in the log, "nothing", or "absent". Wants to be root, and that nobody else uses
# the module.

set -u

if [ $# -lt 2 ]; then
	echo "Usage: $0 sysgenid.ko TABLE.asl..." >&2
	exit 2
fi

DRIVER=$1
shift
TABLES=$*

. "$(dirname "$0")/module.sh"

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

# What happened since the mark. Each is refused once, in one line.
check_all_devices()
{
	wrong=0
	take_log
	while read -r device table expected; do
		case $expected in
		nothing | absent)	check_taken 0 " $device: " ;;
		*)	check_taken 1 " $device: $expected" && check_taken 1 " $device: " ;;
		esac || { fail "$table"; wrong=$((wrong + 1)); }
	done <<-EOF
	$LIST
	EOF
	[ $wrong -eq 0 ] || return
	# Of those that are left the hypervisor means one, and nobody knows which.
	check_taken 1 "sysgenid: no VM generation ID: there are several VMGenID devices" ||
		return
	[ ! -e /dev/vmgenid ] || fail "there is a /dev/vmgenid"
}

load_marked()
{
	if is_loaded sysgenid; then
		unload || return
	fi
	mark_log
	load
}

each_is_refused_or_not()
{
	load_marked && check_all_devices
}

# What cannot be seen is not said to be so or so.
pending_is_not_known()
{
	if grep -q sysgenid-pending /proc/self/fdinfo/0 <$NODE; then
		fail "it is in the description"
		return
	fi
	grep -q "sysgenid-reseeded:	0" /proc/self/fdinfo/0 <$NODE ||
		fail "the random number generator was reseeded with an ID that nobody knows"
}

the_same_after_loading_again()
{
	load_marked && check_all_devices
}

run_tests all_tables_are_there each_is_refused_or_not pending_is_not_known \
	the_same_after_loading_again
status=$?

[ -c "$NODE" ] || load
[ $status -eq 0 ]
