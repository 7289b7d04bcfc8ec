#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What is so on the machine on which the packages are installed, when it runs. Prints TAP.
#
# usage: template_guest.sh booted|no_device|signatures|upgraded
set -u

number=0

check() { # check NAME COMMAND...: the command succeeds
	number=$((number + 1))
	name=$1
	shift
	if "$@" >/tmp/out 2>&1; then
		echo "ok $number $name"
	else
		sed 's/^/# /' /tmp/out
		echo "not ok $number $name"
	fi
}

says() { # says TEXT COMMAND...: it says that, whatever its exit status is
	text=$1
	shift
	"$@" >/tmp/said 2>&1
	cat /tmp/said
	grep -qF -e "$text" /tmp/said
}

refused() { # refused COMMAND...
	! "$@"
}

is_loaded() {
	[ -d /sys/module/sysgenid ]
}

# What of ours there is, apart from what these tests have brought.
left() {
	find / -xdev \( -path /proc -o -path /sys -o -path /root -o -path /tmp -o -path /var/log \
		-o -path '/var/cache' -o -path /usr/share/doc \) -prune -o -name '*sysgenid*' -print
	systemctl list-unit-files --no-legend '*sysgenid*' | grep -v '^run-sysgenid.mount\|^sysgenid-lab'
}

nothing_is_left() {
	left >/tmp/left
	cat /tmp/left
	[ ! -s /tmp/left ]
}

no_unit_is_left() {
	systemctl list-units --all --plain --no-legend 'sysgenid*' | grep -v '^sysgenid-lab' >/tmp/left
	cat /tmp/left
	[ ! -s /tmp/left ]
}

# The device has a name, and udev loads the module by that.
booted() {
	check "modules-load.d is not read" refused systemctl is-active systemd-modules-load.service
	check "the module is loaded" is_loaded
	check "it is the package's" says updates/sysgenid.ko modinfo -n sysgenid
	check "everybody may read the ID" [ "$(stat -c %a /dev/vmgenid)" = 444 ]
	check "everybody may open the node" [ "$(stat -c %a /dev/sysgenid)" = 666 ]
	check "doctor finds the driver" says "ok      driver         running" sysgenctl doctor
	check "doctor finds the rule" says "60-sysgenid.rules" sysgenctl doctor
	check "doctor finds the units" \
		says "waits for a change; enabled: sysgenid-machine-id.service, sysgenid-ssh-host-keys.service" \
		sysgenctl doctor
	check "doctor finds it ready" says "this system is ready for clones" sysgenctl doctor
	check "doctor's exit status is 0" sysgenctl doctor
	check "no unit has failed" [ -z "$(systemctl list-units --failed --no-legend)" ]
	check "OpenSSL has the provider" says "sysgenid" \
		env OPENSSL_CONF=/etc/ssl/sysgenid.cnf openssl list -providers
	check "the manual page is there" [ -s /usr/share/man/man8/sysgenctl.8.gz ]
}

no_device() {
	check "the module is loaded by modules-load.d" is_loaded
	check "there is no ID" [ ! -e /dev/vmgenid ]
	check "somebody else can change the generation" sysgenctl trigger
	check "doctor has remarks at most" sysgenctl doctor
}

signatures() {
	check "the module is not loaded" refused is_loaded
	check "it is refused" says "Key was rejected by service" modprobe sysgenid
	check "doctor says why" says "installed and not signed, and this kernel loads signed ones only" \
		sysgenctl doctor
	check "doctor's exit status is 8" sh -c 'sysgenctl doctor; [ $? = 8 ]'
	# That is what an administrator sees who looks at the boot only.
	check "one unit has failed, which loads modules" [ "$(systemctl list-units --failed --plain \
		--no-legend | cut -d ' ' -f 1)" = systemd-modules-load.service ]
}

generation() {
	sed -n 's/^sysgenid-generation:\t//p' /proc/self/fdinfo/0 </dev/sysgenid
}

upgraded() {
	before=$(generation)
	sysgenctl watch --json >/tmp/watched 2>&1 &
	watching=$!
	for _ in $(seq 100); do
		[ ! -s /tmp/watched ] || break
		sleep 0.1
	done
	old=$(cat /etc/machine-id)
	check "apt upgrades while it is used" apt-get install -y --no-install-recommends /root/newer/*.deb
	check "who uses it goes on" kill -0 $watching
	check "the generation is the same" [ "$(generation)" = "$before" ]
	check "nothing took it for a change" [ "$(cat /etc/machine-id)" = "$old" ]
	check "doctor says that the old one runs" \
		says "running, and another build of it is installed" sysgenctl doctor
	check "a change is seen" sysgenctl trigger
	kill $watching
	wait $watching 2>/dev/null
	check "it is unloaded" rmmod sysgenid
	check "the new one is loaded" modprobe sysgenid
	check "doctor is content" says "ok      driver         running" sysgenctl doctor
	check "apt purges them" apt-get purge -y sysgenid 'sysgenid-modules-*' libsysgenid0.1 \
		openssl-provider-sysgenid
	check "what ran is stopped" refused systemctl is-active sysgenid-changed.path
	check "none of the units is left" no_unit_is_left
	check "the ID is for root again" [ "$(stat -c %a /dev/vmgenid)" = 400 ]
	check "it is unloaded again" rmmod sysgenid
	check "it is not found any more" refused modprobe sysgenid
	check "nothing is left" nothing_is_left
}

"$1"
