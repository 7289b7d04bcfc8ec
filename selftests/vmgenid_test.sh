#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What the driver makes of the VM generation ID, whoever drives the VMGenID device: of
# notifications, of an ID that changes without one, and of what is asked for meanwhile.
# Prints TAP. The module is loaded when this ends, whatever it was at the start.
#
#	vmgenid_test.sh sysgenid.ko|--built-in sysgenid_hypervisor.ko settle busy [vmgenid.ko]
#
# EXTRA in the environment names tests that are for some kernels only: in a hard interrupt, as
# on machines with a device tree, the kernel's own chain of notifiers makes debug kernels
# complain; not each of them can hibernate; and not each tells of forks. settle and busy are
# programs of these tests. vmgenid.ko is the kernel's own driver where it is a module; it has the
# device in the end, and nothing can take it away: a second run in the same guest fails. Wants to
# be root, and that nobody else uses the module.

set -u

if [ $# -lt 4 ]; then
	echo "Usage: $0 sysgenid.ko|--built-in sysgenid_hypervisor.ko settle busy [vmgenid.ko]" >&2
	exit 2
fi

DRIVER=$1
HYPERVISOR=$2
SETTLE=$3
BUSY=$4
IN_TREE=${5:-}

. "$(dirname "$0")/module.sh"
. "$(dirname "$0")/vmgenid.sh"

A=000102030405060708090a0b0c0d0e0f
B=f0e0d0c0b0a090807060504030201000

modalias()
{
	cat /sys/bus/platform/devices/QEMUVGID:*/modalias
}

alias_fits()
{
	modalias=$(modalias) || return
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
	modprobe "$(modalias)" || { fail "modprobe"; return; }
	is_loaded sysgenid || fail "it is not loaded"
}

# Nothing is taken from anybody, so there is nothing to be given back.
binds_nothing()
{
	if [ -e /sys/bus/platform/drivers/sysgenid ]; then fail "there is a driver of ours"; fi
}

one_change_one_generation()
{
	remember
	play change 1 || return
	check_changed 1
}

many_changes_as_many_generations()
{
	remember
	for _ in $(seq 20); do
		play change 1 && settle || return
	done
	check_changed 20
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

# The ID is 16 bytes, and each of them counts.
any_byte_counts()
{
	remember
	play id 00000000000000000000000000000000 && settle || return
	for byte in $(seq 0 15); do
		play id "$(printf "%0$((2 * byte))d01%0$((30 - 2 * byte))d" 0 0 |
			sed 's/.*\(.\{32\}\)$/\1/')" && settle || return
	done
	check_changed 17
}

# An ID that comes back is another one than the one in between.
an_id_that_returns()
{
	play id $A && settle || return
	remember
	play id $B && settle && play id $A && settle || return
	check_changed 2 || return
	# Nobody has looked in between, and what was drawn before is as good as it was.
	remember
	play id $B && play id $A || return
	check_unchanged
}

answered_is_the_id()
{
	remember
	play change 1 && settle || return
	id=$(cat $PLAY/id)
	for key in vmgenid-id vmgenid-answered; do
		shown=$(sed -n "s/^$key:\t//p" /proc/self/fdinfo/0 </dev/vmgenid)
		[ "$shown" = "$id" ] || { fail "$key is $shown, expected $id"; return; }
	done
}

# --- An ID that changes, and nobody is notified ---

not_by_itself_where_nobody_can_know()
{
	remember
	# Whoever has it no more open is followed by a last look.
	sleep 6
	play id $A || return
	sleep 6
	check_logged 0 "generation changed" || return
	check_changed 1
}

# Somebody who only has it open, or mapped, and never asks.
by_itself_where_somebody_can()
{
	play id $A && settle || return
	remember
	for node in /dev/sysgenid /dev/vmgenid; do
		# shellcheck disable=SC2217 # it does not read, it has it open
		sleep 100 <$node &
		holder=$!
		play id "$(tr -d - </proc/sys/kernel/random/uuid)"
		wait_logged "to $((generation + 1)), source page, reseeded"
		status=$?
		kill $holder
		[ $status -eq 0 ] || return
		wait $holder 2>/dev/null
		check_changed 1 || return
		remember
	done
}

by_whoever_looks()
{
	for looks in "true <$NODE" "cat /proc/self/fdinfo/0 <$NODE >/dev/null" "true </dev/vmgenid" \
		"cat /proc/self/fdinfo/0 </dev/vmgenid >/dev/null" settle; do
		remember
		play id "$(tr -d - </proc/sys/kernel/random/uuid)" || return
		eval "$looks" || { fail "$looks"; return; }
		wait_logged "to $((generation + 1)), source page, reseeded" ||
			{ fail "$looks"; return; }
		check_changed 1 || return
	done
}

# Whoever asks for a change gets it after the one that is due.
trigger_settles_first()
{
	remember
	play id $B || return
	"$SETTLE" --trigger || { fail "it is not triggered"; return; }
	wait_logged "to $((generation + 2)), source ioctl, reseeded" || return
	check_look "$((generation + 2)) ioctl" || return
	check_taken 1 "from $generation to $((generation + 1)), source page, reseeded"
}

# A system that hibernated, and was started again as another machine. The lab's guests have no
# disk, so this is what the kernel says then.
after_hibernation()
{
	remember
	# Whoever has it no more open is followed by a last look.
	sleep 6
	play id $A || return
	play resumed 1 || return
	wait_logged "to $((generation + 1)), source page, reseeded" || return
	check_changed 1
}

# The kernel's notification, where it may not sleep, and while somebody who is nobody keeps the
# driver's locks busy.
forks_in_hard_interrupts()
{
	su nobody -s /bin/sh -c "exec '$BUSY' --acks" &
	acker=$!
	remember
	status=0
	for _ in $(seq 20); do
		if ! { play fork 1 && settle; }; then
			status=1
			break
		fi
	done
	kill $acker 2>/dev/null || { fail "nobody acks"; status=1; }
	wait $acker 2>/dev/null
	[ $status -eq 0 ] || return
	check_changed 20
}

# Whoever is told of forks before the driver, and keeps all others waiting, holds nobody up: the
# change is made while it does.
others_are_not_waited_for()
{
	held=$(cat $PLAY/held)
	remember
	play hold 1 && play begin 1 || return
	for _ in $(seq 300); do
		[ "$(cat $PLAY/held)" = "$held" ] || break
		sleep 0.1
	done
	check_changed 1
	status=$?
	[ "$(cat $PLAY/held)" != "$held" ] || { fail "nobody is held"; status=1; }
	play hold 0 || return
	return $status
}

# A real-time task leaves nothing of the first processor, on which ACPI does all its work: so the
# notification waits. (The kernel has two ways of leaving others a twentieth of each second, which both
# have to be switched off.) Who looks is answered, by the other one; and what was noticed is not noticed
# again.
a_busy_processor_is_not_waited_for()
{
	fair=/sys/kernel/debug/sched/fair_server/cpu0/runtime
	limit=$(cat /proc/sys/kernel/sched_rt_runtime_us)
	share=$(cat $fair) || { fail "there is no $fair"; return; }
	remember
	raised=$(cat $PLAY/raised)
	echo -1 >/proc/sys/kernel/sched_rt_runtime_us
	echo 0 >$fair
	"$BUSY" --processor >/tmp/busy &
	hog=$!
	for _ in $(seq 100); do
		[ ! -s /tmp/busy ] || break
		sleep 0.1
	done
	status=0
	if [ ! -s /tmp/busy ]; then
		fail "the processor is not kept"
		status=1
	elif ! { play begin 1 && settle && check_changed 1; }; then
		status=1
	elif [ "$(cat $PLAY/raised)" -ne "$raised" ]; then
		fail "the notification has not waited"
		status=1
	fi
	kill $hog
	wait $hog 2>/dev/null
	echo "$limit" >/proc/sys/kernel/sched_rt_runtime_us
	echo "$share" >$fair
	wait_raised $((raised + 1)) && [ $status -eq 0 ] && settle && check_changed 1
}

# --- Many at once ---

storm_with_changes()
{
	raised=$(cat $PLAY/raised)
	remember
	play storm 20 || return
	wait_raised $((raised + 400))
	status=$?
	play storm 0 || return
	[ $status -eq 0 ] || return
	settle || return
	changes=$(($(look_generation) - generation))
	ids=$(($(cat $PLAY/written)))
	echo "# $(($(cat $PLAY/raised) - raised)) notifications, $ids IDs, $changes changes"
	if [ $changes -lt 1 ] || [ $changes -gt $ids ]; then
		fail "$changes changes of the generation, of $ids IDs"
		return
	fi
	remember
	play notify 10 || return
	check_unchanged
}

# Afterwards a change is heard as ever.
unloaded_50_times_in_a_storm()
{
	play storm 16 || return
	for round in $(seq 50); do
		if ! { unload && load; }; then
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

# --- The kernel's own driver, as a module ---

in_tree_driver_comes_second()
{
	insmod "$IN_TREE" || { fail "$IN_TREE cannot be loaded"; return; }
	remember
	play change 1 || return
	check_changed 1 || return
	play notify 100 || return
	check_changed 1
}

# The one that holds the device is left to it, and hears as ever.
in_tree_driver_stays()
{
	mark_log
	unload || return
	play change 1 || return
	wait_logged "random: crng reseeded due to virtual machine fork" || return
	load || return
	check_look "0 none" || return
	remember
	play change 1 || return
	check_changed 1
}

TESTS="binds_nothing one_change_one_generation many_changes_as_many_generations
	same_id_changes_nothing any_byte_counts an_id_that_returns answered_is_the_id
	not_by_itself_where_nobody_can_know by_itself_where_somebody_can by_whoever_looks
	trigger_settles_first storm_with_changes ${EXTRA:-}"

if [ "$DRIVER" != --built-in ]; then
	TESTS="alias_fits loaded_by_modalias $TESTS unloaded_50_times_in_a_storm"
	if [ -n "$IN_TREE" ]; then
		TESTS="$TESTS in_tree_driver_comes_second in_tree_driver_stays"
	fi
	is_loaded sysgenid || load || exit
fi

is_loaded sysgenid_hypervisor || insmod "$HYPERVISOR" || exit

# shellcheck disable=SC2086 # words
run_tests $TESTS
status=$?

[ -c $NODE ] || load
[ $status -eq 0 ]
