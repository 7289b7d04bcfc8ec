#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What runs in a Debian system, and what does not: each command has one of its own. Prints TAP.
#
# shellcheck disable=SC2016 # the system's shell expands these
#
# usage: LAB=/path/to/lab SCRATCH=/path/to/directory system.sh
set -u

. "$(dirname "$0")/tap.sh"

mkdir -p "$SCRATCH/added/below"
chmod 700 "$SCRATCH/added"
echo 'a file' >"$SCRATCH/added/below/file"
chmod 750 "$SCRATCH/added/below/file"

echo "TAP version 13"
says "the command's output and exit status" 7 "out$NL" "err$NL" \
	system -- sh -c 'echo out; echo err >&2; exit 7'
says "a command that a signal kills" 137 "" "" \
	system -- sh -c 'kill -9 $$'
says "a command that is not there" 127 "" "/no/such/command" \
	system -- /no/such/command
says "it is root, in a Debian system of its own" 0 "0 debian trixie$NL" "" \
	system -- sh -c '. /etc/os-release; echo "$(id -u) $(uname -n) $VERSION_CODENAME"'
says "it can do all that root can" 0 "1234 4755$NL" "" \
	system -- sh -c 'chown 1234 /mnt && mknod /srv/pipe p && chmod 4755 /srv &&
		echo "$(stat -c %u /mnt) $(stat -c %a /srv)"'
says "but not to the host's kernel" 0 "" "" \
	system -- sh -c 'test -e /proc/sys/kernel/printk
	for name in /proc/sys/kernel/printk /proc/sysrq-trigger /sys/kernel/uevent_seqnum /sys; do
		[ ! -w "$name" ] || exit 1
	done'
says "files are in their places, and root's" 0 "a file${NL}750 0$NL" "" \
	system --add "$SCRATCH/added/below/file:/var/run/not/made/yet" -- \
	sh -c 'cat /run/not/made/yet; stat -c "%a %u" /var/run/not/made/yet'
says "so are directories, and what is there stays" 0 "a file${NL}755$NL" "" \
	system --add "$SCRATCH/added:/etc" -- \
	sh -c 'cat /etc/below/file && test -e /etc/os-release && stat -c %a /etc'
says "no service is started" 0 "101$NL" "" \
	system -- sh -c '/usr/sbin/policy-rc.d any start; echo $?'
says "what one command leaves" 0 "" "" \
	system -- sh -c 'rm -r /usr/share; echo changed >/etc/passwd; touch /var/left'
says "another one does not see" 0 "root:" "" \
	system -- sh -c '! test -e /var/left && test -d /usr/share && head -n 1 /etc/passwd'
says "a command that leaves something running" 0 "" "" \
	system -- sh -c 'sleep 987654 >/dev/null 2>&1 &'
# The kernel ends it, which is not at once. grep is not to find itself.
tries=0
while grep -qszx '98765[4]' /proc/[0-9]*/cmdline && [ "$tries" -lt 100 ]; do
	tries=$((tries + 1))
	sleep 0.1
done
[ "$tries" -lt 100 ]
result $? "it runs no longer"

says "no command" 2 "" "not provided: <CMD>" \
	system
says "a package that would be an option" 2 "" "not a package such as" \
	system --package=-y -- true
says "a size without a disk" 2 "" "--image" \
	system --size 2G -- true
says "a size without a unit" 2 "" "512M" \
	system --image "$SCRATCH/disk" --size 2 -- true
says "a disk in no directory" 125 "" "cannot write to $SCRATCH/no/disk" \
	system --image "$SCRATCH/no/disk" -- true
says "a file that does not exist" 125 "" "/no/such/file: there is no such file" \
	system --add /no/such/file -- true
says "a command that fails" 3 "" "" \
	system --image "$SCRATCH/disk" -- sh -c 'exit 3'
[ ! -e "$SCRATCH/disk" ]
result $? "leaves no disk"
says "a system that is too big" 125 "" "--size" \
	system --image "$SCRATCH/disk" --size 64M -- true
[ ! -e "$SCRATCH/disk" ]
result $? "leaves no disk either"
end_tests
