#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What the scripts about the VMGenID device have in common; they source it after
# module.sh, and set $DEVICE, $SOURCE, and load sysgenid_hypervisor.

DEVICES=/sys/bus/platform/devices
OURS=/sys/bus/platform/drivers/sysgenid
PLAY=/sys/module/sysgenid_hypervisor/parameters

# Prints the name of the hypervisor's own device. Those from the tests' tables have no
# compatible ID.
find_device()
{
	for path in "$DEVICES"/*; do
		case $(cat "$path/modalias" 2>/dev/null) in
		acpi:*:VM_GEN_COUNTER:*)
			echo "${path##*/}"
			return ;;
		esac
	done
	fail "there is no VMGenID device"
}

# Prints the name of the driver that a device is bound to, if it is.
driver_of()
{
	[ ! -e "$DEVICES/$1/driver" ] && return
	path=$(readlink "$DEVICES/$1/driver") && echo "${path##*/}"
}

check_driver()
{
	driver=$(driver_of "$1")
	[ "$driver" = "$2" ] || fail "the driver of $1 is \"$driver\", expected \"$2\""
}

# shellcheck disable=SC2153 # it is set by who sources this
unbind()
{
	echo "$DEVICE" >$OURS/unbind || { fail "$DEVICE cannot be unbound"; return; }
	check_driver "$DEVICE" ""
}

bind()
{
	echo "$DEVICE" >$OURS/bind || { fail "$DEVICE cannot be bound"; return; }
	check_driver "$DEVICE" sysgenid
}

# play PARAMETER VALUE: what the hypervisor does.
play()
{
	echo "$2" >"$PLAY/$1" || fail "sysgenid_hypervisor: $1 $2"
}

# Waits until so many notifications were raised.
wait_raised()
{
	for _ in $(seq 600); do
		[ "$(cat $PLAY/raised)" -lt "$1" ] || return 0
		sleep 0.1
	done
	fail "$(cat $PLAY/raised) notifications after a minute, expected $1"
}

look_generation()
{
	look | cut -d ' ' -f 1
}

# What is changed or unchanged from now on.
remember()
{
	seen_first=$(look)
	generation=${seen_first% *}
	mark_log
}

check_unchanged()
{
	check_look "$seen_first" || return
	check_logged 0 "generation changed"
}

check_changed()
{
	check_look "$((generation + $1)) $SOURCE"
}

# Whether the driver knows of an ID for which the generation has not changed.
check_pending()
{
	pending=$(sed -n 's/^sysgenid-pending:\t//p' /proc/self/fdinfo/0 <"$NODE")
	[ "$pending" = "$1" ] || fail "pending is \"$pending\", expected $1"
}
