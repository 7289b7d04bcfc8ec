#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Services that may not see all devices, under the real systemd: what sysgenctl doctor says of them,
# and that the drop-in that is installed gives them the nodes. Prints TAP.
#
# Wants to be root in a guest with systemd (lab run --systemd): it changes units.

set -u

. "$(dirname "$0")/module.sh"

UNITS=/run/systemd/system
DROP_IN=/usr/lib/sysgenid/devices.conf

# A drop-in for the service, with these lines.
drop_in()
{
	mkdir -p "$UNITS/$1.d"
	printf '[Service]\n' >"$UNITS/$1.d/test.conf"
	printf '%s\n' "$2" >>"$UNITS/$1.d/test.conf"
}

# As the drop-in's head says.
give_the_nodes()
{
	mkdir -p "/etc/systemd/system/$1.d"
	ln -s $DROP_IN "/etc/systemd/system/$1.d/sysgenid.conf"
}

restart()
{
	systemctl daemon-reload
	systemctl restart "$1" || { fail "$1 does not start"; return; }
	# What it has mapped by then, it has mapped for good.
	systemctl is-active --quiet "$1" || fail "$1 does not run"
}

# The service has that verdict: the exit status, and these words.
diagnosed()
{
	unit=$1 wanted=$2
	shift 2
	said=$(sysgenctl doctor --unit "$unit" 2>&1)
	status=$?
	[ $status -eq "$wanted" ] || { fail "$unit: exit status $status, said $said"; return; }
	for words; do
		case $said in
		*"$words"*) ;;
		*) fail "$unit does not say '$words': $said"; return ;;
		esac
	done
}

# A program that has drawn when its unit is up.
set_up()
{
	cat >/run/drawer.py <<-EOT
	import os, socket, ssl, time
	ssl.RAND_bytes(16)
	with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
	    notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
	time.sleep(100000)
	EOT
	cat >$UNITS/drawer.service <<-EOT
	[Service]
	Type=notify
	Environment=OPENSSL_CONF=/etc/ssl/sysgenid.cnf
	ExecStart=/usr/bin/python3 /run/drawer.py
	EOT
	mkdir -p /run/sshd
	[ -e /etc/ssh/ssh_host_ed25519_key ] ||
		ssh-keygen -q -N '' -t ed25519 -f /etc/ssh/ssh_host_ed25519_key
}

serves()
{
	ssh-keyscan -q -t ed25519 127.0.0.1 2>/dev/null | grep -q ssh-ed25519 || fail "sshd does not answer"
}

open_devices()
{
	restart drawer.service || return
	diagnosed drawer.service 0 "python3  protected by the provider" "1 process has libcrypto"
}

no_configuration()
{
	drop_in ssh.service ""
	restart ssh.service || return
	diagnosed ssh.service 8 "sshd" "has libcrypto and no protection" \
		"it has the system's configuration" "sysgenctl openssl enable"
}

private_devices()
{
	drop_in ssh.service "Environment=OPENSSL_CONF=/etc/ssl/sysgenid.cnf
PrivateDevices=yes"
	restart ssh.service || return
	diagnosed ssh.service 8 "its unit ssh.service has PrivateDevices=yes" \
		"ln -s $DROP_IN /etc/systemd/system/ssh.service.d/sysgenid.conf"
}

private_devices_and_the_nodes()
{
	give_the_nodes ssh.service
	restart ssh.service || return
	diagnosed ssh.service 0 "protected by the provider" || return
	serves
}

closed_devices()
{
	drop_in drawer.service "DevicePolicy=closed"
	restart drawer.service || return
	diagnosed drawer.service 8 "its unit drawer.service has a DevicePolicy="
}

closed_devices_and_the_nodes()
{
	give_the_nodes drawer.service
	restart drawer.service || return
	diagnosed drawer.service 0 "protected by the provider" || return
	# Nothing else is open because of it.
	systemctl show --property=DevicePolicy drawer.service | grep -qx DevicePolicy=closed ||
		fail "the drop-in changes the policy"
}

# Without the driver, both start all the same.
without_the_driver()
{
	systemctl stop ssh.service drawer.service
	rmmod sysgenid || { fail "the module is in use"; return; }
	result=0
	for unit in ssh.service drawer.service; do
		restart $unit && diagnosed $unit 8 "there is no /dev/sysgenid on this system" || result=1
	done
	modprobe sysgenid
	return $result
}

# Nobody is told to be protected who cannot be looked at.
others_are_not_known()
{
	said=$(setpriv --reuid 65534 --clear-groups sysgenctl doctor --all 2>&1)
	status=$?
	[ $status -eq 5 ] || { fail "exit status $status, said $said"; return; }
	case $said in
	*"not known of "*" processes"*) ;;
	*) fail "it says: $said" ;;
	esac
}

all_are_looked_at()
{
	restart ssh.service && restart drawer.service || return
	sysgenctl doctor --all --json >/run/all
	python3 - <<-EOT || fail "$(cat /run/all)"
	import json
	report = json.load(open("/run/all"))
	verdicts = {(row["name"], row["unit"]): row["verdict"] for row in report["processes"]}
	assert verdicts["sshd", "ssh.service"] == "ok", verdicts
	assert verdicts["python3", "drawer.service"] == "ok", verdicts
	assert report["unreadable_processes"] == 0
	EOT
}

no_such_unit()
{
	diagnosed no-such.service 1 "systemd knows no process of a unit no-such.service"
}

set_up
run_tests open_devices no_configuration private_devices private_devices_and_the_nodes \
	closed_devices closed_devices_and_the_nodes all_are_looked_at others_are_not_known \
	without_the_driver no_such_unit
