#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Kills the lab in the middle of each of its steps, from an empty cache on, and sees that
# nothing is left behind, and that the next call repairs what the last one left. Prints TAP.
#
# usage: interrupted.sh CACHE (an empty directory, or one that is not there)
#
# Whether a process or a mount is left is asked of the whole machine, so no other lab may run.
set -u

. "$(dirname "$0")/tap.sh"

lab=$(cd "$(dirname "$0")/.." && pwd)/lab
cache=${1:?usage: interrupted.sh CACHE}
export SYSGENID_CACHE="$cache"
out=$(mktemp)
trap 'rm -f "$out"' EXIT

left_behind() {
	pgrep -f "qemu-system-x86_64.*sysgenid.lab" >"$out.left"
	grep " $cache/" /proc/self/mountinfo >>"$out.left"
	pgrep -f "$lab|$cache/root-" >>"$out.left"
	if [ -s "$out.left" ]; then
		sed 's/^/# left behind: /' "$out.left"
		rm -f "$out.left"
		return 0
	fi
	rm -f "$out.left"
	return 1
}

# interrupt SIGNAL SECONDS LINE ARGUMENTS...: starts the lab, waits until it has said LINE and
# for SECONDS more, and sends SIGNAL to the lab's first process only, as kill(1) would.
interrupt() {
	signal=$1 seconds=$2 line=$3
	shift 3
	# A shell without job control starts what is in the background with SIGINT ignored.
	env --default-signal=INT "$lab" "$@" >"$out" 2>&1 &
	pid=$!
	waited=0
	until grep -qF "$line" "$out"; do
		if ! kill -0 "$pid" 2>/dev/null || [ "$waited" -gt 6000 ]; then
			diagnose "$out"
			result 1 "SIG$signal: '$line' is reached"
			kill -s KILL "$pid" 2>/dev/null
			wait "$pid" 2>/dev/null
			return
		fi
		sleep 0.1
		waited=$((waited + 1))
	done
	sleep "$seconds"
	kill -0 "$pid" 2>/dev/null
	result $? "SIG$signal: still running $seconds s after '$line'"
	kill -s "$signal" "$pid" 2>/dev/null
	wait "$pid" 2>/dev/null
	sleep 1
	! left_behind
	result $? "SIG$signal: nothing is left of '$line'"
}

echo "TAP version 13"
# The guest sleeps: however fast the machine is, the lab is not done when it is killed.
interrupt KILL 8 "making the toolchain root" run -- sleep 1000
interrupt TERM 15 "making the toolchain root" run -- sleep 1000
interrupt KILL 10 "building the lab's tool" run -- sleep 1000
interrupt KILL 1 "asking the archive" run -- sleep 1000
interrupt KILL 4 "unpacking the source" run -- sleep 1000
interrupt INT 4 "preparing kernel" run -- sleep 1000
interrupt KILL 20 "preparing kernel" run -- sleep 1000
interrupt KILL 10 "building the kernel" run --kernel debug -- sleep 1000

# Two labs at once that need the same things. Each gets its own guest, too.
"$lab" run -- sh -c 'sleep 2; exit 3' >"$out.1" 2>&1 &
first=$!
"$lab" run -- sh -c 'sleep 2; exit 4' >"$out.2" 2>&1 &
second=$!
wait "$first"
[ $? = 3 ] || { diagnose "$out.1"; false; }
result $? "two at once: the first"
wait "$second"
[ $? = 4 ] || { diagnose "$out.2"; false; }
result $? "two at once: the second"
rm -f "$out.1" "$out.2"

interrupt KILL 1 "emulating the processor" run --boot -- sleep 1000
interrupt TERM 1 "booted Linux" run --boot -- sleep 1000
interrupt TERM 1 "resumed Linux" run -- sleep 1000
# While a machine boots that is to be saved when it has booted: none has two processors yet.
interrupt KILL 1 "emulating the processor" run --smp 2 -- sleep 1000
interrupt KILL 0 "READY" clone -- sh -c 'echo READY; sleep 1000'
interrupt KILL 1 "clone1: resumed" clone -- sh -c 'echo READY; sleep 1000'

interrupt KILL 4 "making a Debian system" system -- sleep 1000
interrupt KILL 1 "the command runs" system -- sh -c 'echo the command runs; sleep 1000'
[ -n "$(ls -A "$cache/scratch")" ]
result $? "what the command has changed is left on the disk"
{ "$lab" system -- true >"$out" 2>&1 && [ -z "$(ls -A "$cache/scratch")" ]; } ||
	{ diagnose "$out"; false; }
result $? "until there is another one"

"$lab" run --smp 2 -- true >"$out" 2>&1
status=$?
[ "$status" = 0 ] || diagnose "$out"
result "$status" "the lab works after all that"

script -qefc "'$lab' run -- sh -c 'exit 6'" /dev/null >"$out" </dev/null
status=$?
[ "$status" = 6 ] || { diagnose "$out"; false; }
result $? "the lab works on a terminal"

! left_behind
result $? "nothing is left in the end"
end_tests
