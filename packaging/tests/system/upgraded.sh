#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A machine in which our packages are installed, the module is loaded, and its device is open: they are
# upgraded (the newer ones are in /root/newer), and purged. Prints TAP.
set -u

# shellcheck source=../../../lab/tests/tap.sh
. "$(dirname "$0")/tap.sh"

work=$(mktemp -d) || exit
log=$work/log

# took NAME COMMAND...: a test that the command succeeds
took() {
	name=$1
	shift
	"$@" >"$log" 2>&1 || { diagnose "$log"; false; }
	result $? "$name"
}

says() { # says TEXT COMMAND...: it says that, whatever its exit status is
	text=$1
	shift
	"$@" >"$work/said" 2>&1
	cat "$work/said"
	has "$work/said" "$text"
}

refused() { # refused COMMAND...
	! "$@"
}

# what follows a change, if udev was told of one, is over
is_over() {
	udevadm settle
	for _ in $(seq 300); do
		[ -e /run/sysgenid-changed ] || systemctl is-active sysgenid-changed.service | grep -q activating ||
			return 0
		sleep 0.2
	done
	echo "a run goes on"
	return 1
}

# identity: what a clone gets anew
identity() {
	cat /etc/machine-id /etc/ssh/ssh_host_*_key.pub
}

user_of() { # user_of SERVICE
	id -nu "$(sed -n 's/^Uid:\t\([0-9]*\).*/\1/p' "/proc/$(systemctl show -P MainPID "$1")/status")"
}

generation() {
	sed -n 's/^sysgenid-generation:\t//p' /proc/self/fdinfo/0 </dev/sysgenid
}

# What of ours there is, apart from what these tests have brought.
nothing_is_left() {
	{
		find / -xdev \( -path /proc -o -path /sys -o -path /root -o -path /tests -o -path /tmp \
			-o -path /var/log -o -path /var/cache -o -path /usr/share/doc \) -prune \
			-o -name '*sysgenid*' -print
		systemctl list-unit-files --no-legend '*sysgenid*' | grep -v '^sysgenid-lab'
	} >"$work/left"
	cat "$work/left"
	[ ! -s "$work/left" ]
}

no_unit_is_left() {
	systemctl list-units --all --plain --no-legend 'sysgenid*' | grep -v '^sysgenid-lab' >"$work/left"
	cat "$work/left"
	[ ! -s "$work/left" ]
}

echo "TAP version 13"
# As an earlier version leaves it: a change was served, and nothing is noted of it. It would be a reason
# for another identity.
took "a change was served" [ "$(generation)" -ge 1 ]
took "nothing goes on" is_over
rm -f /run/sysgenid/served
touch /etc/sysgenid/identity-at-trigger
before=$(generation)
identity >"$work/identity"
sysgenctl watch --json >"$work/watched" 2>&1 &
watching=$!
for _ in $(seq 100); do
	[ ! -s "$work/watched" ] || break
	sleep 0.1
done
took "apt upgrades while the device is open" \
	apt-get install --yes --no-install-recommends /root/newer/*.deb
took "who uses it goes on" kill -0 $watching
took "the generation is the same" [ "$(generation)" = "$before" ]
took "what udev was asked for is over" is_over
identity >"$work/identity.now"
took "nothing took it for a change" cmp "$work/identity" "$work/identity.now"
took "that change counts as served" grep -q " $before\$" /run/sysgenid/served
rm /etc/sysgenid/identity-at-trigger
touch /etc/sysgenid/no-template
took "apt installs them again" apt-get install --yes --reinstall --no-install-recommends /root/newer/sysgenid_*.deb
took "what the administrator has said stays" [ -e /etc/sysgenid/no-template ]
took "doctor says that the old one runs" \
	says "running, and another build of it is installed" sysgenctl doctor
took "a change is seen" sysgenctl trigger
kill $watching
wait $watching 2>/dev/null
took "it is unloaded" rmmod sysgenid
took "the new one is loaded" modprobe sysgenid
took "doctor is content" says "ok      driver         running" sysgenctl doctor
took "sysgenctl serve starts" systemctl start sysgenid-serve.socket sysgenid-serve.service
took "its first start has made its user" [ "$(user_of sysgenid-serve.service)" = sysgenid-serve ]
took "a server is tracked, and is to be frozen" sysgenctl unit --track --freeze ssh.service
took "it starts so" systemctl restart ssh.service
took "apt purges them" apt-get purge --yes sysgenid 'sysgenid-modules-*' libsysgenid0.1 \
	openssl-provider-sysgenid
took "the server starts without" systemctl restart ssh.service
took "what ran is stopped" refused systemctl is-active sysgenid-changed.path
took "none of the units is left" no_unit_is_left
took "the ID is for root again" [ "$(stat -c %a /dev/vmgenid)" = 400 ]
took "it is unloaded again" rmmod sysgenid
took "it is not found any more" refused modprobe sysgenid
took "nothing is left" nothing_is_left
end_tests
