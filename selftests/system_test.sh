#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A system that reacts to changes of its generation: the udev rule, the target, and how each
# unit that comes along fails, under the real systemd and udev. Prints TAP.
#
# Then it prints READY, with all units enabled, and looks on for a while: in a clone, for what
# has become new; in a machine that was resumed as it was, for nothing. It prints TAP
# again, and for the host, which compares clones, lines "# name value".
#
# With arguments it runs the tests that they name, and nothing else.
#
# Wants to be root in a guest (lab clone --systemd) that has a network with a DHCP server:
# it changes the machine's clock, keys and ID, and leaves units behind.

set -u

. "$(dirname "$0")/module.sh"

DIR=/run/system_test
HOOKS=/etc/sysgenid/changed.d
# Where the administrator says more, and where it is noted which machine this is.
CONF=/etc/sysgenid
NOTE=/var/lib/sysgenid/machine
UNITS="sysgenid-clock.service sysgenid-machine-id.service sysgenid-ssh-host-keys.service \
sysgenid-dhcp.service sysgenid-hooks.service"

generation()
{
	sed -n 's/^sysgenid-generation:\t//p' /proc/self/fdinfo/0 <$NODE
}

# That many changes, as fast as can be.
changes()
{
	python3 -c '
import fcntl, sys
with open("/dev/sysgenid") as node:
    for _ in range(int(sys.argv[1])):
        fcntl.ioctl(node, 0xE403, 0)
' "$1"
}

# Waits, for so many seconds, until a command succeeds. What it is waited for needs the processor
# more: it is emulated, and each program that is run takes its time.
wait_until()
{
	read -r now _ </proc/uptime
	end=$((${now%.*} + $1))
	shift
	until "$@"; do
		read -r now _ </proc/uptime
		[ "${now%.*}" -lt $end ] || return 1
		sleep 0.3
	done
}

is_recorded()
{
	[ "$(tail -n 1 $DIR/runs)" = "$(generation)" ]
}

# No run goes on, and none is due.
is_over()
{
	[ ! -e /run/sysgenid-changed ] &&
		[ "$(systemctl is-active sysgenid-changed.service)" = inactive ]
}

# Waits until a run that began after the last change is over, or is held up at its end.
served()
{
	wait_until 120 is_recorded ||
		{ fail "generation $(generation), the last run saw $(tail -n 1 $DIR/runs)"; return; }
	[ -e $DIR/hold ] || wait_until 120 is_over || fail "the run does not end"
}

runs()
{
	wc -l <$DIR/runs
}

change()
{
	changes "${1:-1}" && served
}

# What has been logged since the last call.
take_journal()
{
	journalctl --sync
	journal=$(journalctl --merge ${cursor:+--after-cursor="$cursor"} -n 300 --show-cursor -o cat)
	cursor=$(echo "$journal" | sed -n 's/^-- cursor: //p')
}

logged()
{
	echo "$journal" | grep -qF -- "$1" || fail "the journal lacks: $1"
}

# The states of all units are these, in the order of $UNITS.
check_states()
{
	# shellcheck disable=SC2086 # words
	states=$(systemctl is-failed $UNITS | tr '\n' ' ')
	[ "$states" = "$1 " ] || fail "the units are $states, expected $1"
}

# A unit that records each run, slowly, as the last one of it, and does not end while it is
# held up; and one that has to be restarted.
set_up()
{
	mkdir -p $DIR $HOOKS /etc/ssh/keys
	echo none >$DIR/runs
	cat >$DIR/record <<-EOT
	#!/bin/sh
	sed -n 's/^sysgenid-generation:\t//p' /proc/self/fdinfo/0 <$NODE >>$DIR/runs
	sleep 0.3
	while [ -e $DIR/hold ]; do sleep 0.1; done
	EOT
	cat >$DIR/restarted <<-EOT
	#!/bin/sh
	echo >>$DIR/starts
	exec sleep infinity
	EOT
	chmod +x $DIR/record $DIR/restarted
	cat >/etc/systemd/system/test-recorder.service <<-EOT
	[Unit]
	After=$UNITS
	StartLimitIntervalSec=0
	[Service]
	Type=oneshot
	ExecStart=$DIR/record
	[Install]
	WantedBy=sysgenid-changed.target
	EOT
	cat >/etc/systemd/system/test-restarted.service <<-EOT
	[Unit]
	PartOf=sysgenid-changed.target
	StartLimitIntervalSec=0
	[Service]
	Type=exec
	ExecStart=$DIR/restarted
	EOT
	systemctl --quiet enable test-recorder.service
	systemctl start test-restarted.service
}

module_was_loaded_by_udev()
{
	is_loaded sysgenid || fail "the module is not loaded"
}

modes()
{
	seen=$(stat -c %a $NODE /dev/vmgenid | tr '\n' ' ')
	[ "$seen" = "666 444 " ] || { fail "the modes are $seen"; return; }
	size=$(setpriv --reuid 65534 --clear-groups dd if=/dev/vmgenid bs=16 count=1 2>/dev/null | wc -c)
	[ "$size" -eq 16 ] || fail "nobody reads $size bytes"
}

units_and_rules_are_well_formed()
{
	said=$(systemd-analyze --man=no verify /usr/lib/systemd/system/sysgenid-* 2>&1)
	status=$?
	[ "$status $said" = "0 " ] || { fail "systemd-analyze: $said"; return; }
	said=$(udevadm verify --no-summary /usr/lib/udev/rules.d/60-sysgenid.rules 2>&1) ||
		fail "udevadm: $said"
}

# Neither at once nor by a first boot, which applies the presets.
nothing_is_enabled()
{
	# shellcheck disable=SC2086 # words
	systemctl --quiet --no-reload preset $UNITS || { fail "cannot apply the presets"; return; }
	# shellcheck disable=SC2086 # words
	states=$(systemctl is-enabled $UNITS | sort -u | tr '\n' ' ')
	[ "$states" = "disabled " ] || fail "some units are $states"
}

each_change_is_served()
{
	id=$(cat /etc/machine-id)
	for n in 1 2; do
		before=$(runs)
		starts=$(wc -l <$DIR/starts)
		change || return
		count=$(($(runs) - before))
		[ $count -eq 1 ] || { fail "change $n: $count runs"; return; }
		count=$(($(wc -l <$DIR/starts) - starts))
		[ $count -eq 1 ] ||
			{ fail "change $n: a unit that is part of the target was started $count times"; return; }
	done
	[ "$(cat /etc/machine-id)" = "$id" ] || fail "a unit ran that is not enabled"
}

# In a burst, and while runs are going on and systemd reads its units again.
rapid_changes()
{
	before=$(runs)
	change 50 || return
	count=$(($(runs) - before))
	[ $count -le 10 ] || { fail "$count runs for 50 changes at once"; return; }
	changes 1
	systemctl daemon-reload
	changes 1
	served || return
	# The last one comes while a run goes on that has looked already.
	touch $DIR/hold
	change || return
	changes 1
	wait_until 60 test -e /run/sysgenid-changed || { fail "udev made no file"; return; }
	rm $DIR/hold
	served
}

another_uevent_is_no_change()
{
	wait_until 120 is_over || { fail "the run does not end"; return; }
	before=$(runs)
	udevadm trigger --settle --action=change /sys/class/misc/sysgenid
	systemctl daemon-reload
	sleep 2
	[ "$(runs)" -eq "$before" ] || fail "$(($(runs) - before)) runs"
}

# Nobody listened, as before udev runs; it sees the device when it asks for all of them.
a_change_that_udev_missed()
{
	before=$(runs)
	udev="systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udevd.service"
	# shellcheck disable=SC2086 # words
	systemctl stop $udev
	changes 1
	# shellcheck disable=SC2086 # words
	systemctl start $udev
	udevadm trigger --settle --action=add /sys/class/misc/sysgenid
	served || return
	udevadm trigger --settle --action=add /sys/class/misc/sysgenid
	wait_until 120 is_over || { fail "the run does not end"; return; }
	[ $(($(runs) - before)) -eq 1 ] || fail "$(($(runs) - before)) runs"
}

# --- All units at once ---

add_hook()
{
	cat >$HOOKS/"$1" <<-EOT
	#!/bin/sh
	echo "$1 \$SYSGENID" >>$DIR/hooks
	exit $2
	EOT
	chmod +x $HOOKS/"$1"
}

make_key()
{
	rm -f "$2" "$2.pub"
	ssh-keygen -q -N '' -t "$1" -f "$2"
}

files_of_keys()
{
	cat /etc/ssh/ssh_host_ed25519_key.pub /etc/ssh/keys/ecdsa.pub | cut -d' ' -f1,2 | sort
}

served_keys()
{
	ssh-keyscan -q -t ed25519,ecdsa 127.0.0.1 2>/dev/null | cut -d' ' -f2,3 | sort
}

serves_its_files()
{
	[ "$(served_keys)" = "$(files_of_keys)" ]
}

# Writes a line for each DHCP message: its type, and the ID of the client.
watch_dhcp()
{
	python3 -c '
import socket
ETH_P_ALL, ETH_P_IP, UDP = 3, 0x0800, 17
# A socket for one protocol does not see what is sent.
wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
while True:
    packet, address = wire.recvfrom(65536)
    header = (packet[0] & 15) * 4
    if address[1] != ETH_P_IP or packet[9] != UDP:
        continue
    if int.from_bytes(packet[header + 2:header + 4]) not in (67, 68):
        continue
    dhcp = packet[header + 8:]
    options, position = {}, 240
    while position < len(dhcp) and dhcp[position] != 255:
        length = dhcp[position + 1]
        options[dhcp[position]] = dhcp[position + 2:position + 2 + length]
        position += 2 + length
    print(options[53][0], options.get(61, b"").hex(), flush=True)
' >>$DIR/dhcp &
}

# The types of messages, by RFC 2132.
DISCOVER=1
REQUEST=3
ACK=5
RELEASE=7

has_lease()
{
	grep -q "^$ACK " $DIR/dhcp
}

# The ID by which the server was asked for an address.
client()
{
	sed -n "s/^[$DISCOVER$REQUEST] //p" $DIR/dhcp | tail -n 1
}

remember()
{
	old_generation=$(generation)
	old_runs=$(runs)
	old_id=$(cat /etc/machine-id)
	old_keys=$(files_of_keys)
	old_client=$(client)
	old_daemon=$(wc -l <$DIR/time_daemon)
	: >$DIR/dhcp
	rm -f $DIR/hooks
	take_journal
}

everything_is_set_up()
{
	add_hook 10-first 0
	add_hook 20-fails 3
	add_hook 30-last 0
	add_hook 40-backup~ 0
	add_hook 50-off 0
	chmod -x $HOOKS/50-off

	mkdir -p /var/lib/dbus /run/systemd/system /etc/systemd/network
	cat /etc/machine-id >/var/lib/dbus/machine-id

	cat >/etc/ssh/sshd_config.d/test.conf <<-EOT
	HostKey /etc/ssh/ssh_host_ed25519_key
	HostKey /etc/ssh/keys/ecdsa
	HostKey /etc/ssh/keys/absent
	EOT
	make_key ed25519 /etc/ssh/ssh_host_ed25519_key
	make_key ecdsa /etc/ssh/keys/ecdsa

	cat >/etc/systemd/network/test.network <<-EOT
	[Match]
	Type=ether
	[Network]
	DHCP=ipv4
	LinkLocalAddressing=no
	IPv6AcceptRA=no
	EOT
	watch_dhcp

	# In the place of a time daemon, of which only one thing is wanted.
	cat >/run/systemd/system/chrony.service <<-EOT
	[Service]
	Type=exec
	ExecStart=sh -c 'echo >>$DIR/time_daemon; exec sleep infinity'
	EOT

	# So for a DHCP client: the system's, whose PID is in a file. Python understands -d, too.
	cat >$DIR/dhclient.py <<-EOT
	import os, sys, time
	with open("/run/dhclient.pid", "w") as file:
	    file.write(f"{os.getpid()}\n")
	with open("$DIR/dhclient.starts", "a") as file:
	    print(*sys.argv[1:], file=file)
	while True:
	    time.sleep(1000)
	EOT
	cp "$(realpath "$(command -v python3)")" /usr/sbin/dhclient
	/usr/sbin/dhclient -d $DIR/dhclient.py first second &
	# Anybody can have one that is called so, and says that it is another program.
	cp /usr/bin/sleep $DIR/dhclient
	setpriv --reuid 65534 --clear-groups python3 -c "
import os
os.execv('$DIR/dhclient', ['$DIR/evil', '100000'])" &
	printf '#!/bin/sh\necho >%s/evil.ran\n' $DIR >$DIR/evil
	chmod +x $DIR/evil

	# shellcheck disable=SC2086 # words
	systemctl --quiet enable $UNITS
	systemctl start chrony.service ssh.service systemd-networkd.service ||
		{ fail "a service does not start"; return; }
	wait_until 60 serves_its_files || { fail "sshd serves $(served_keys)"; return; }
	wait_until 60 has_lease || fail "no DHCP server"
}

hour_behind()
{
	date -s "@$(($(date +%s) - 3600))" >/dev/null
}

# By how many seconds the clock is behind the real-time clock.
behind()
{
	echo $(($(cat /sys/class/rtc/rtc0/since_epoch) - $(date +%s)))
}

check_hooks()
{
	seen=$(tr '\n' ' ' <$DIR/hooks)
	[ "$seen" = "$1" ] || fail "hooks: $seen, expected $1"
}

# Two units are left out, and say so. The others run; the one for DHCP not only has networkd to ask.
an_overseer_changes_no_identity()
{
	remember
	change || return
	take_journal
	[ "$(cat /etc/machine-id)" = "$old_id" ] || { fail "the machine ID was replaced"; return; }
	[ "$(files_of_keys)" = "$old_keys" ] || { fail "the host keys were replaced"; return; }
	check_states "inactive inactive inactive inactive failed" || return
	logged "Not run: an overseer has changed the generation" || return
	started=$(cat $DIR/dhclient.starts)
	[ "$started" = "first second
first second" ] || { fail "dhclient was started with $started"; return; }
	[ ! -e $DIR/evil.ran ] || { fail "root ran what a user has named"; return; }
	logged "Left alone, as no file of root's in /run has its PID" || return
	kill "$(cat /run/dhclient.pid)"
	rm /run/dhclient.pid /usr/sbin/dhclient
	logged "$HOOKS/50-off: skipped, it is not executable" || return
	g=$(generation)
	check_hooks "10-first $g 20-fails $g 30-last $g "
}

# Who waits has waited for all that follows, and says what failed; but for what waits for itself.
who_waits_is_told_of_all()
{
	cat >$HOOKS/60-waits <<-EOT
	#!/bin/sh
	sleep 2
	sysgenctl wait --timeout 60s >$DIR/hook_waited && sysgenctl status --json >$DIR/hook_status
	EOT
	chmod +x $HOOKS/60-waits
	said=$(sysgenctl trigger --wait --timeout 5m 2>&1)
	status=$?
	is_over || { fail "the run goes on"; return; }
	rm $HOOKS/60-waits
	grep -q "\"generation\":$(generation)," $DIR/hook_status ||
		{ fail "a hook had not run, or waited for itself: $(cat $DIR/hook_waited)"; return; }
	[ $status -eq 6 ] || { fail "status $status: $said"; return; }
	for line in "sysgenid-machine-id.service: skipped (it says that it is not due)" \
		"sysgenid-dhcp.service: done" "sysgenid-hooks.service: failed (exit-code)" \
		"test-recorder.service: done" "the change has failed: sysgenid-hooks.service; "; do
		case $said in
		*"$line"*)	;;
		*)		fail "it does not say $line: $said"; return ;;
		esac
	done
	said=$(sysgenctl doctor 2>&1)
	status=$?
	[ $status -eq 8 ] || { fail "doctor: status $status: $said"; return; }
	case $said in
	*"sysgenid-hooks.service: failed (exit-code): journalctl"*"; mend: units"*) ;;
	*) fail "doctor says: $said" ;;
	esac
}

# The overseer is listened to here. /etc cannot be written but for the keys, and the machine ID is of
# /run, as systemd leaves it then. Where one key cannot be made, none takes its place. No unit keeps another one
# from running.
failures_are_reported()
{
	touch $CONF/identity-at-trigger
	mkdir -p /mnt/keys /mnt/ssh
	mount --bind /etc/ssh /mnt/ssh
	mount --bind /etc /etc
	mount -o remount,bind,ro /etc
	mount --bind /mnt/ssh /etc/ssh
	mount -t tmpfs tmpfs /mnt/keys
	make_key ed25519 /mnt/keys/last
	mount -o remount,ro /mnt/keys
	echo "HostKey /mnt/keys/last" >>/etc/ssh/sshd_config.d/test.conf
	# As systemd leaves it where /etc cannot be written at boot.
	cat /etc/machine-id >/run/machine-id
	mount --bind /run/machine-id /etc/machine-id
	mount -o remount,bind,ro /etc/machine-id
	systemctl stop systemd-networkd.service systemd-networkd.socket
	# Since the boot it may have gone wrong by more than the unit bears.
	hwclock --hctosys
	remember
	change
	status=$?
	take_journal
	seen=$(cat /etc/machine-id)
	umount /etc/machine-id /etc/ssh /etc /mnt/ssh /mnt/keys
	rm $CONF/identity-at-trigger
	sed -i '$d' /etc/ssh/sshd_config.d/test.conf
	[ $status -eq 0 ] || return
	check_states "inactive inactive failed failed failed" || return
	logged "Agrees with the real-time clock" || return
	logged "None of systemd-networkd, NetworkManager, dhcpcd and dhclient runs here" || return
	[ "$seen" != "$old_id" ] || { fail "the machine ID was not replaced in /run"; return; }
	[ "$(files_of_keys)" = "$old_keys" ] || { fail "half of the keys are new"; return; }
	left=$(find /etc/ssh -name '*.sysgenid*')
	[ -z "$left" ] || { fail "left behind: $left"; return; }
	serves_its_files || { fail "sshd serves $(served_keys)"; return; }
	g=$(generation)
	check_hooks "10-first $g 20-fails $g 30-last $g " || return
	logged "$HOOKS/10-first: done" || return
	logged "$HOOKS/20-fails: failed, exit status 3"
}

# --- The fence ---

# Nothing serves SSH, and what is asked to does not start.
is_fenced()
{
	for file in /run/sysgenid/ssh-fence /var/lib/sysgenid/ssh-fence; do
		[ -e $file ] || { fail "there is no $file"; return; }
	done
	[ -z "$(served_keys)" ] || { fail "sshd serves $(served_keys)"; return; }
	! systemctl start ssh.service 2>/dev/null || { fail "sshd was started"; return; }
	[ -z "$(served_keys)" ] || fail "sshd serves $(served_keys)"
}

is_served_anew()
{
	for file in /run/sysgenid/ssh-fence /var/lib/sysgenid/ssh-fence; do
		[ ! -e $file ] || { fail "there still is $file"; return; }
	done
	wait_until 60 serves_its_files || fail "sshd serves $(served_keys)"
}

# Whoever is logged in stays so. There is no PAM here, and so no session but a process of sshd's.
log_in()
{
	sed -i 's,^\(root:.*:\)[^:]*$,\1/bin/sh,' /etc/passwd
	echo "UsePAM no" >>/etc/ssh/sshd_config.d/test.conf
	systemctl restart ssh.service || { fail "sshd does not start"; return; }
	wait_until 60 serves_its_files || { fail "sshd serves $(served_keys)"; return; }
	mkdir -p /root/.ssh
	chmod 700 /root /root/.ssh
	make_key ed25519 $DIR/id
	cp $DIR/id.pub /root/.ssh/authorized_keys
	rm -f $DIR/logged-in
	ssh -n -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i $DIR/id \
		root@127.0.0.1 "touch $DIR/logged-in; sleep 1000" &
	session=$!
	wait_until 60 test -e $DIR/logged-in || fail "nobody can log in"
}

# A key cannot be replaced, and the administrator has chosen that those of the template are
# not served then. A run that is skipped raises nothing and lifts nothing; one that succeeds lifts it.
a_fence_until_the_keys_are_new()
{
	log_in || return
	systemctl --quiet enable sysgenid-ssh-fence.service || { fail "it cannot be enabled"; return; }
	mkdir -p /mnt/keys
	mount -t tmpfs tmpfs /mnt/keys
	make_key ed25519 /mnt/keys/last
	mount -o remount,ro /mnt/keys
	echo "HostKey /mnt/keys/last" >>/etc/ssh/sshd_config.d/test.conf
	remember
	change || return
	is_served_anew || return
	touch $CONF/identity-at-trigger
	change || return
	rm $CONF/identity-at-trigger
	is_fenced || return
	change || return
	is_fenced || return
	umount /mnt/keys
	sed -i '$d' /etc/ssh/sshd_config.d/test.conf
	take_journal
	logged "SSH is not served here until sysgenid-ssh-host-keys.service has succeeded" || return
	systemctl start sysgenid-ssh-host-keys.service || { fail "the keys are not replaced"; return; }
	[ "$(files_of_keys)" != "$old_keys" ] || { fail "the keys are the old ones"; return; }
	is_served_anew || return
	kill -0 "$session" || fail "whoever was logged in is out"
}

# It has no time left; and the fence is lifted by hand.
a_fence_when_time_is_up()
{
	mkdir -p /run/systemd/system/sysgenid-ssh-host-keys.service.d
	printf '[Service]\nTimeoutStartSec=1\nExecStart=\nExecStart=sleep 1000\n' \
		>/run/systemd/system/sysgenid-ssh-host-keys.service.d/test.conf
	systemctl daemon-reload
	! systemctl start sysgenid-ssh-host-keys.service 2>/dev/null || { fail "it has not failed"; return; }
	wait_until 60 no_jobs || { fail "the fence is not raised"; return; }
	rm -r /run/systemd/system/sysgenid-ssh-host-keys.service.d
	systemctl daemon-reload
	is_fenced || return
	/usr/lib/sysgenid/ssh-fence lift >/dev/null || { fail "it cannot be lifted"; return; }
	systemctl reset-failed sysgenid-ssh-host-keys.service
	systemctl --quiet disable sysgenid-ssh-fence.service
	is_served_anew || return
	kill "$session"
}

# The disk is another machine's, by the note on it: it gets an identity, once. What is asked for at boot
# is asked for here.
a_copy_is_served()
{
	/usr/lib/sysgenid/cold-clone template
	systemctl --quiet enable sysgenid-cold-clone.service || { fail "it cannot be enabled"; return; }
	remember
	systemctl start sysgenid-cold-clone.service || { fail "it does not start"; return; }
	wait_until 120 is_noted || { fail "the note is $(cat $NOTE)"; return; }
	wait_until 120 no_jobs || { fail "the run does not end"; return; }
	take_journal
	logged "This machine is a copy of the one that was noted" || return
	[ "$(cat /etc/machine-id)" != "$old_id" ] || { fail "the machine ID is the old one"; return; }
	[ "$(files_of_keys)" != "$old_keys" ] || { fail "the host keys are the old ones"; return; }
	systemctl restart sysgenid-cold-clone.service
	take_journal
	logged "This is the machine that was noted"
}

no_jobs()
{
	[ -z "$(systemctl --no-legend list-jobs 'sysgenid-*')" ]
}

# By the hypervisor's IDs, as they are now.
is_noted()
{
	grep -q '^uuid 5e2f4a7c91b04d3e8a6d0c1b2f3e4d5c$' $NOTE || return
	[ "$(sed -n 's/^vmgenid //p' $NOTE)" = "$(dd if=/dev/vmgenid bs=16 count=1 2>/dev/null |
		od -An -v -tx1 | tr -d ' \n')" ]
}

# --- After READY ---

# When it ends, there is nothing left to wait for.
post_is_over_when_all_is()
{
	[ "$post_status" -eq 0 ] || { fail "status $post_status: $(cat $DIR/post)"; return; }
	$over || { fail "it goes on: $(cat $DIR/post)"; return; }
	grep -q "^sysgenid-ssh-host-keys.service: done$" $DIR/post || fail "it says: $(cat $DIR/post)"
}

new_generation()
{
	[ "$(generation)" != "$old_generation" ]
}

all_units_did_their_work()
{
	check_states "inactive inactive inactive inactive inactive" || return
	count=$(($(runs) - old_runs))
	[ $count -eq 1 ] || fail "$count runs"
}

clock()
{
	off=$(behind)
	[ "${off#-}" -le 2 ] || { fail "the clock is $off s behind the real-time clock"; return; }
	logged "Stepped by 36" || return
	[ "$(wc -l <$DIR/time_daemon)" -gt "$old_daemon" ] || fail "the time daemon was not restarted"
}

# The machine's ID has changed to another one, everywhere.
machine_id()
{
	id=$(cat /etc/machine-id)
	case $id in
	"$old_id")	fail "it is still $id"; return ;;
	*[!0-9a-f]*)	fail "it is $id"; return ;;
	esac
	[ ${#id} -eq 32 ] || { fail "it is $id"; return; }
	[ "$(cat /var/lib/dbus/machine-id)" = "$id" ] || { fail "D-Bus has another one"; return; }
	[ "$(stat -c %a /etc/machine-id)" = 444 ] || { fail "its mode has changed"; return; }
	[ -d /run/log/journal/"$id" ] || [ -d /var/log/journal/"$id" ] ||
		fail "the journal is still the old machine's"
}

ssh_host_keys()
{
	for key in $(echo "$old_keys" | cut -d' ' -f2); do
		! files_of_keys | grep -qF "$key" || { fail "a key is still the old one"; return; }
	done
	wait_until 60 serves_its_files || { fail "sshd serves $(served_keys)"; return; }
	for key in /etc/ssh/ssh_host_ed25519_key /etc/ssh/keys/ecdsa; do
		[ "$(ssh-keygen -y -f $key | cut -d' ' -f2)" = "$(cut -d' ' -f2 $key.pub)" ] ||
			{ fail "$key.pub is another key's"; return; }
		[ "$(stat -c '%a %U' $key)" = "600 root" ] || { fail "$key has another mode"; return; }
	done
}

# A lease was asked for by another ID, and given; and the old one is still whoever's has it.
dhcp()
{
	wait_until 60 has_lease || { fail "no lease; messages: $(cat $DIR/dhcp)"; return; }
	case $(client) in
	"" | "$old_client")	fail "asked by the old ID; messages: $(cat $DIR/dhcp)"; return ;;
	esac
	! grep -q "^$RELEASE " $DIR/dhcp || fail "the old lease was given back"
}

hooks()
{
	check_hooks "10-first $(generation) 30-last $(generation) "
}

nothing_ran()
{
	is_over || { fail "a run goes on"; return; }
	[ "$(runs)" -eq "$old_runs" ] || { fail "the target was started"; return; }
	[ "$(cat /etc/machine-id)" = "$old_id" ] || { fail "the machine ID is new"; return; }
	[ "$(files_of_keys)" = "$old_keys" ] || { fail "the host keys are new"; return; }
	[ ! -e $DIR/hooks ] || { fail "hooks ran"; return; }
	[ "$(behind)" -gt 3000 ] || fail "the clock was set"
}

note_identity()
{
	echo "# machine-id $(cat /etc/machine-id)"
	files_of_keys | sed 's/^/# host-key /'
	echo "# client $(client)"
}

set_up

if [ $# -gt 0 ]; then
	run_tests "$@"
	exit
fi

run_tests module_was_loaded_by_udev modes units_and_rules_are_well_formed nothing_is_enabled \
	each_change_is_served rapid_changes another_uevent_is_no_change \
	a_change_that_udev_missed everything_is_set_up an_overseer_changes_no_identity \
	who_waits_is_told_of_all failures_are_reported a_fence_until_the_keys_are_new \
	a_fence_when_time_is_up a_copy_is_served
status=$?

rm $HOOKS/20-fails
systemctl start systemd-networkd.service
wait_until 60 has_lease
note_identity
remember
# The machine stands still for an hour.
hour_behind
echo READY

if wait_until 10 new_generation; then
	sysgenctl snapshot-hooks post --timeout 5m >$DIR/post 2>&1
	post_status=$?
	over=false
	is_over && over=true
	take_journal
	run_tests post_is_over_when_all_is all_units_did_their_work clock machine_id ssh_host_keys dhcp hooks is_noted || status=1
	note_identity
	echo "# time $(date +%s)"
else
	run_tests nothing_ran || status=1
fi
[ $status -eq 0 ]
