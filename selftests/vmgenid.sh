#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What the scripts have in common in which the hypervisor is played; they source it after
# module.sh, and load sysgenid_hypervisor.

PLAY=/sys/module/sysgenid_hypervisor/parameters

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

# Has all made that is due. Whatever it is, it takes no privilege.
settle()
{
	su nobody -s /bin/sh -c "exec '$SETTLE' 60000" || fail "it does not settle: $?"
}

look_generation()
{
	look | cut -d ' ' -f 1
}

# What is changed or unchanged from now on.
remember()
{
	settle || return
	seen_first=$(look)
	generation=${seen_first% *}
	mark_log
}

# The generation that is $1 changes later, by the hypervisor's doing, and reseeded: not one
# change more.
check_changed()
{
	settle || return
	wait_logged " to $((generation + $1)), source " || return
	seen=$(look)
	case $seen in
	"$((generation + $1)) vmfork" | "$((generation + $1)) vmgenid" | \
	"$((generation + $1)) page")	;;
	*)	fail "generation and source are \"$seen\", expected $((generation + $1))"
		return ;;
	esac
	check_logged "$1" ", reseeded" || return
	check_taken "$1" "generation changed"
}

check_unchanged()
{
	settle || return
	check_look "$seen_first" || return
	check_logged 0 "generation changed"
}
