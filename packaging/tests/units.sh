#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What the programs in libexec do to a system, which is a directory here, with programs in the place
# of systemd's and others' that only write down that they were called. Prints TAP. The tests of the
# whole system do it with real ones, as far as the lab has them.
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

libexec=$(cd "$(dirname "$0")/.." && pwd)/libexec
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT
SYSGENID_ROOT=$work/root
root=$SYSGENID_ROOT
export SYSGENID_ROOT
bin=$work/bin
real=$PATH
PATH=$bin:$PATH
conf=$root/etc/sysgenid
mkdir "$bin"

# program NAME: reads what it does; it writes down its arguments first.
program() {
	{
		printf '#!/bin/sh\nwork=%s root=%s real=%s\n' "$work" "$root" "$real"
		# shellcheck disable=SC2016
		echo 'echo "${0##*/} $*" >>$work/calls'
		cat
	} >"$bin/$1"
	chmod +x "$bin/$1"
}

program systemctl <<'END'
case "$*" in
*list-units*)
	[ ! -e $work/mute ] || exit 1
	while read -r unit; do
		for pattern; do
			case $unit in
			$pattern) echo "$unit loaded active running what it does" ;;
			esac
		done
	done <$work/active
	echo "sshd@.service loaded inactive dead nothing" ;;
*AssertResult*)
	[ ! -e $work/mute ] || exit 1
	# A template is no unit.
	case $* in *@.*) exit 1 ;; esac
	while read -r unit; do
		printf 'Id=%s\nAssertResult=no\nAssertTimestampMonotonic=12\n\n' "$unit"
	done <$work/refused
	printf 'Id=never.service\nAssertResult=no\nAssertTimestampMonotonic=0\n\n'
	printf 'Id=other.service\nAssertResult=yes\nAssertTimestampMonotonic=12\n' ;;
*" stop "*)
	for unit; do
		# One that is stopped later, or not at all.
		n=$(sed -n "s/^$unit //p" $work/lingering 2>/dev/null)
		[ "${n:-0}" -eq 0 ] || { echo "$unit $((n - 1))" >$work/lingering; continue; }
		[ ! -e $root/run/sysgenid/ssh-fence ] || sed -i "/^$unit$/d" $work/active
	done ;;
*" start "*)
	! [ -e $root/run/sysgenid/ssh-fence ] && ! [ -e $root/var/lib/sysgenid/ssh-fence ] || exit 1
	for unit; do
		! grep -qxF "$unit" $work/unstartable 2>/dev/null || exit 1
		case $unit in *.s*) echo "$unit" >>$work/active ;; esac
	done ;;
*Wants*) cat $work/wanted ;;
*LoadState*) cat "$work/shown.${*##* }" 2>/dev/null || echo ConditionTimestampMonotonic=0 ;;
*is-active*) grep -qxF "${*##* }" $work/active 2>/dev/null ;;
*is-failed*) grep -qxF "${*##* }" $work/failing 2>/dev/null ;;
*list-jobs*) cat $work/jobs 2>/dev/null; rm -f $work/jobs ;;
*restart*)
	# It refuses as often as the file says.
	n=$(cat $work/refusals 2>/dev/null || echo 0)
	[ "$n" -eq 0 ] || { echo $((n - 1)) >$work/refusals; exit 1; }
	cat $root/run/sysgenid/cause >>$work/causes 2>/dev/null
	[ ! -x $work/meanwhile ] || $work/meanwhile
	! grep -qxF "${*##* }" $work/failing 2>/dev/null ;;
esac
END
program systemd-id128 <<'END'
echo ffeeddccbbaa99887766554433221100
END
program mountpoint <<'END'
grep -qxF "$2" $work/mounts 2>/dev/null
END
for name in sync mv; do
	program $name <<-'END'
	PATH=$real
	exec "${0##*/}" "$@"
	END
done
program restorecon </dev/null
program udevadm </dev/null
program deb-systemd-invoke </dev/null
program sleep </dev/null

# system: a new one, in which nothing was changed yet
system() {
	rm -rf "$root" "$work/active" "$work/failing" "$work/jobs" "$work/refusals" "$work/causes" \
		"$work/meanwhile" "$work/mounts"
	mkdir -p "$root/etc/sysgenid" "$root/run" "$root/var/lib/dbus" "$root/dev" \
		"$root/proc/self/fdinfo" "$root/sys/class/misc/sysgenid" "$root/sys/class/dmi/id"
	echo 00112233445566778899aabbccddeeff >"$root/etc/machine-id"
	: >"$root/dev/sysgenid"
	generation 0 0 none
	: >"$work/calls"
	echo "sysgenid-clock.service sysgenid-machine-id.service sysgenid-ssh-host-keys.service" >"$work/wanted"
}

# generation GENERATION EPOCH SOURCE: what the driver says
generation() {
	printf 'sysgenid-generation:\t%s\nsysgenid-epoch:\t%s\nsysgenid-source:\t%s\n' "$@" \
		>"$root/proc/self/fdinfo/0"
}

because() { # because CAUSE: the run that goes on
	mkdir -p "$root/run/sysgenid"
	echo "$1" >"$root/run/sysgenid/cause"
}

# run PROGRAM ARGUMENTS...: what it says goes to the log
run() {
	program=$1
	shift
	"$libexec/$program" "$@" >"$work/log" 2>&1
}

succeeds() {
	run "$@" || { echo "# $1: exit status $?"; diagnose "$work/log"; return 1; }
}

fails() {
	! run "$@" || { echo "# $1 succeeds"; diagnose "$work/log"; return 1; }
}

said() {
	has "$work/log" "$1" || { echo "# it does not say: $1"; diagnose "$work/log"; return 1; }
}

called() { # called TEXT...: these calls were made, in this order
	rest=$(cat "$work/calls")
	for text; do
		case $rest in
		*"$text"*) rest=${rest#*"$text"} ;;
		*) echo "# not called, or not then: $text"; diagnose "$work/calls"; return 1 ;;
		esac
	done
}

not_called() {
	! has "$work/calls" "$1" || { echo "# called: $1"; return 1; }
}

is() { # is WHAT SEEN EXPECTED
	[ "$2" = "$3" ] || { echo "# $1: $2, expected $3"; diagnose "$work/log"; return 1; }
}

# --- Whose change it is ---------------------------------------------------------

identity_of_the_hypervisor_only() {
	because hypervisor
	succeeds identity "$conf" || return
	because copied
	succeeds identity "$conf" || return
	because overseer
	fails identity "$conf" && said "an overseer has changed the generation" || return
	: >"$conf/identity-at-trigger"
	succeeds identity "$conf" || return
	# By hand.
	rm "$root/run/sysgenid/cause" "$conf/identity-at-trigger"
	succeeds identity "$conf"
}

no_template_keeps_its_identity() {
	: >"$conf/no-template"
	: >"$conf/identity-at-trigger"
	for cause in hypervisor copied overseer; do
		because $cause
		fails identity "$conf" && said "$conf/no-template says that this machine is no template" || return
	done
}

# Each unit that gives an identity asks first.
units_ask() {
	for unit in machine-id ssh-host-keys; do
		grep -q '^ExecCondition=@LIBEXECDIR@/identity @SYSCONFDIR@/sysgenid$' \
			"$libexec/../systemd/sysgenid-$unit.service.in" ||
			{ echo "# sysgenid-$unit.service does not ask"; return 1; }
	done
}

# --- Each change once -----------------------------------------------------------

# runs CAUSE...: these have been begun, since the system was made
runs() {
	: >>"$work/causes"
	is runs "$(tr '\n' ' ' <"$work/causes")" "${*}${1+ }"
}

pending() {
	: >"$root/run/sysgenid-changed"
	succeeds changed
}

each_change_is_served_once() {
	# The device is seen first.
	pending && runs || return
	generation 1 1 vmgenid
	pending && pending && runs hypervisor || return
	generation 2 2 ioctl
	pending && pending && runs hypervisor overseer || return
	[ ! -e "$root/run/sysgenid-changed" ] || { echo "# the file is still there"; return 1; }
	[ ! -e "$root/run/sysgenid/cause" ] || { echo "# the run has no end"; return 1; }
}

a_change_before_udev_listens_counts() {
	generation 3 3 vmfork
	pending && runs hypervisor
}

# A driver that is loaded again counts from 0, and what it did before is no change.
a_driver_that_is_loaded_again() {
	generation 1 1 ioctl
	pending && runs overseer || return
	rmdir "$root/sys/class/misc/sysgenid"
	mkdir "$root/sys/class/misc/other" "$root/sys/class/misc/sysgenid"
	generation 0 0 none
	: >"$root/run/sysgenid-hypervisor.1"
	pending && runs overseer || return
	generation 1 1 ioctl
	rm "$root/run/sysgenid-hypervisor.1"
	pending && runs overseer overseer
}

# In a system that runs, with changes that are older than what is installed, or that an earlier version
# has served and not noted.
an_installation_is_no_change() {
	generation 3 3 vmgenid
	installed && pending && runs || return
	# What comes later counts, and so does what had come.
	generation 4 4 vmgenid
	pending && runs hypervisor || return
	generation 5 5 vmgenid
	installed && pending && runs hypervisor hypervisor || return
	generation 6 6 ioctl
	: >"$root/run/sysgenid-changed"
	rm "$root/run/sysgenid/served"
	installed && succeeds changed && runs hypervisor hypervisor overseer || return
	# Removed, and installed again after a change that nobody waited for.
	script prerm remove && generation 7 7 vmgenid || return
	installed && pending && runs hypervisor hypervisor overseer || return
	# Without a driver, or one that tells nothing, there is nothing to note.
	script prerm remove && : >"$root/proc/self/fdinfo/0" && installed &&
		rm "$root/dev/sysgenid" && installed && [ ! -e "$root/run/sysgenid/served" ] || return
	fails changed nothing
}

# As packages do it.
installed() {
	script postinst configure && called "udevadm settle" "udevadm trigger"
}

# script NAME ARGUMENT: one of Debian's, in this system
script() {
	mkdir -p "$root/run/systemd/system" "$root/run/udev" "$root/usr/lib"
	[ -S "$root/run/udev/control" ] || python3 -c 'import socket, sys
socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$root/run/udev/control"
	[ -L "$root/usr/lib/sysgenid" ] || ln -s "$libexec" "$root/usr/lib/sysgenid"
	: >"$work/calls"
	sed "s,\([ \t]\)/\(run\|usr\|dev\|var\)/,\1$root/\2/,g" "$libexec/../debian/sysgenid.$1" >"$work/script"
	sh "$work/script" "$2" >"$work/log" 2>&1 || { diagnose "$work/log"; return 1; }
}

# The driver only knows the last one's source.
the_hypervisors_change_below_another_one() {
	generation 2 2 ioctl
	: >"$root/run/sysgenid-hypervisor.1"
	pending && pending && runs hypervisor || return
	# udev comes late with one that was served, and one that was not.
	: >"$root/run/sysgenid-hypervisor.1"
	pending && runs hypervisor || return
	generation 4 4 ioctl
	pending && runs hypervisor overseer || return
	: >"$root/run/sysgenid-hypervisor.3"
	pending && pending && runs hypervisor overseer hypervisor
}

a_change_that_comes_meanwhile() {
	generation 1 1 ioctl
	printf '#!/bin/sh\nprintf "sysgenid-generation:\\t2\\nsysgenid-epoch:\\t2\\nsysgenid-source:\\tioctl\\n" >%s\n' \
		"$root/proc/self/fdinfo/0" >"$work/meanwhile"
	chmod +x "$work/meanwhile"
	pending || return
	[ -e "$root/run/sysgenid-changed" ] || { echo "# the second one is lost"; return 1; }
	rm "$work/meanwhile"
	succeeds changed && runs overseer overseer
}

systemd_that_does_not_listen() {
	generation 1 1 ioctl
	echo 3 >"$work/refusals"
	pending && runs overseer && said "trying again" || return
	# Ended while it tries: the next one serves it.
	generation 2 2 ioctl
	echo 1000000 >"$work/refusals"
	: >"$root/run/sysgenid-changed"
	timeout 1 "$libexec/changed" >"$work/log" 2>&1
	[ -e "$root/run/sysgenid-changed" ] || { echo "# the change is lost"; return 1; }
	rm "$work/refusals"
	succeeds changed && runs overseer overseer
}

a_run_waits_for_the_one_before() {
	generation 1 1 ioctl
	echo "12 sysgenid-changed.target restart running" >"$work/jobs"
	pending && called list-jobs sleep list-jobs "restart sysgenid-changed.target"
}

without_a_driver() {
	rm "$root/dev/sysgenid"
	pending && said "nothing is served" && runs && [ ! -e "$root/run/sysgenid-changed" ] || return
	# One that tells nothing.
	: >"$root/dev/sysgenid"
	: >"$root/proc/self/fdinfo/0"
	pending && said "nothing is served" && runs
}

# --- The machine ID -------------------------------------------------------------

new=ffeeddccbbaa99887766554433221100

machine_id_everywhere() {
	# Left behind by one that was ended.
	ln -s "$work/elsewhere" "$root/etc/machine-id.sysgenid"
	cp "$root/etc/machine-id" "$root/var/lib/dbus/machine-id"
	succeeds machine-id && is ID "$(cat "$root/etc/machine-id")" $new &&
		is "D-Bus's ID" "$(cat "$root/var/lib/dbus/machine-id")" $new &&
		is mode "$(stat -c %a "$root/etc/machine-id")" 444 && [ -e "$root/run/sysgenid/identity.machine-id" ] &&
		called "sync $root/etc/machine-id.sysgenid" "mv -f $root/etc/machine-id.sysgenid" \
			"sync $root/etc" "sync $root/var/lib/dbus/machine-id.sysgenid" "restart systemd-journald.service" &&
		not_called restorecon && [ ! -e "$work/elsewhere" ]
}

machine_id_labelled() {
	mkdir -p "$root/sys/fs/selinux"
	: >"$root/sys/fs/selinux/enforce"
	succeeds machine-id && called "mv -f" "restorecon $root/etc/machine-id"
}

# As systemd leaves it where /etc cannot be written.
machine_id_of_run() {
	ln "$root/etc/machine-id" "$root/run/machine-id"
	echo "$root/etc/machine-id" >"$work/mounts"
	inode=$(stat -c %i "$root/etc/machine-id")
	succeeds machine-id && is ID "$(cat "$root/etc/machine-id")" $new &&
		is inode "$(stat -c %i "$root/etc/machine-id")" "$inode"
}

# Something else is mounted there, and /run/machine-id is another file.
machine_id_that_is_mounted() {
	echo "$root/etc/machine-id" >"$work/mounts"
	old=$(cat "$root/etc/machine-id")
	echo "$old" >"$root/run/machine-id"
	succeeds machine-id && is ID "$(cat "$root/etc/machine-id")" $new || return
	# No file of this kind can be written, whoever tries.
	: >"$work/calls"
	rm "$root/etc/machine-id"
	ln -s /proc/sys/kernel/random/boot_id "$root/etc/machine-id"
	rm "$root/run/sysgenid/identity.machine-id"
	fails machine-id && [ ! -e "$root/run/sysgenid/identity.machine-id" ] && said "another file is mounted over" &&
		said "the machine ID is still $(cat /proc/sys/kernel/random/boot_id)" && not_called restart &&
		is "the other file" "$(cat "$root/run/machine-id")" "$old"
}

machine_id_that_does_not_stay() {
	# What takes its place is gone again.
	program mv <<-'END'
	exit 0
	END
	fails machine-id
	status=$?
	program mv <<-'END'
	PATH=$real
	exec "${0##*/}" "$@"
	END
	[ $status = 0 ] && said "was written, and is not read" && not_called restart
}

machine_id_of_a_first_boot() {
	mkdir -p "$root/run/systemd"
	: >"$root/run/systemd/first-boot"
	old=$(cat "$root/etc/machine-id")
	because copied
	succeeds machine-id && said "made at this boot" && is ID "$(cat "$root/etc/machine-id")" "$old" || return
	because hypervisor
	succeeds machine-id && is ID "$(cat "$root/etc/machine-id")" $new
}

# An empty file is no first boot's, and the ID that systemd has put there can be the firmware's.
machine_id_of_an_empty_file() {
	because copied
	succeeds machine-id && is ID "$(cat "$root/etc/machine-id")" $new
}

# What systemd has encrypted under the old ID is lost under a new one: not by a program.
machine_id_with_credentials() {
	old=$(cat "$root/etc/machine-id")
	mkdir -p "$root/var/lib/systemd" "$root/usr/lib/systemd/system/a.service.d" "$root/etc/credstore.encrypted"
	: >"$root/var/lib/systemd/credential.secret"
	echo "LoadCredential=plain" >"$root/usr/lib/systemd/system/a.service"
	succeeds machine-id && said "lies where systemd does not look" && is ID "$(cat "$root/etc/machine-id")" $new || return
	echo "$old" >"$root/etc/machine-id.old"
	for file in etc/credstore.encrypted/a run/credstore.encrypted/b usr/lib/credstore.encrypted/c; do
		cp "$root/etc/machine-id.old" "$root/etc/machine-id"
		mkdir -p "$root/${file%/*}"
		: >"$root/$file"
		refuses_for "$file" || return
	done
	for file in etc/systemd/system/linked.service run/systemd/transient/d.service \
		usr/lib/systemd/system/a.service.d/e.conf; do
		mkdir -p "$root/${file%/*}"
		printf '[Service]\n LoadCredentialEncrypted=f:/srv/f\n' >"$work/unit"
		ln -sf "$work/unit" "$root/$file"
		refuses_for "$file" || return
	done
	printf '[Service]\nSetCredentialEncrypted=g: \\\n  Whxq\n' >"$root/run/systemd/transient/d.service"
	refuses_for run/systemd/transient/d.service || return
	# Nothing needs a secret that is not there.
	: >"$root/etc/credstore.encrypted/a"
	rm "$root/var/lib/systemd/credential.secret"
	succeeds machine-id && is ID "$(cat "$root/etc/machine-id")" $new
}

refuses_for() { # refuses_for FILE
	: >"$work/calls"
	fails machine-id && said "$root/$1" && said "systemctl start sysgenid-machine-id.service" &&
		is ID "$(cat "$root/etc/machine-id")" "$old" && not_called restart || return
	rm "$root/$1"
}

# Nothing keeps the unit from trying.
units_try_where_etc_is_read_only() {
	! grep -n ConditionPathIsReadWrite "$libexec"/../systemd/*
}

# --- The clock ------------------------------------------------------------------

# The clock is a file, and so is the real-time clock.
program date <<'END'
case $1 in
+%s)
	cat $work/clock
	# Time passes while somebody looks.
	[ ! -e $work/slow ] || echo $(($(cat $work/clock) + 8)) >$work/clock.new
	[ ! -e $work/slow ] || mv $work/clock.new $work/clock
	;;
+%s.%N) echo "$(cat $work/clock).5" ;;
-s) [ -e $work/stuck ] || { set=${2#@}; echo ${set%.*} >$work/clock; } ;;
*) TZ=$(cat $work/zone 2>/dev/null) PATH=$real exec date "$@" ;;
esac
END
rtc() { # rtc SECONDS
	mkdir -p "$root/sys/class/rtc/rtc0"
	echo "$1" >"$root/sys/class/rtc/rtc0/since_epoch"
}
off_by_an_hour() {
	rm -f "$work/slow" "$work/stuck" "$work/zone" "$bin/hwclock" "$bin/phc_ctl"
	echo 1700000000 >"$work/clock"
	rtc 1700003600
}
clock_is() {
	is clock "$(cat "$work/clock")" "$1"
}
with_hwclock() { # with_hwclock EXIT-STATUS
	program hwclock <<-END
	[ $1 -ne 0 ] || cat \$root/sys/class/rtc/rtc0/since_epoch >\$work/clock
	exit $1
	END
}

clock_by_the_real_time_clock() {
	off_by_an_hour
	with_hwclock 0
	echo chrony.service >"$work/active"
	succeeds clock && said "Stepped by 3600 s, to the real-time clock" && said "Restarted chrony.service" &&
		clock_is 1700003600 || return
	succeeds clock && said "Agrees with the real-time clock"
}

clock_without_hwclock() {
	for status in none 1; do
		off_by_an_hour
		[ $status = none ] || with_hwclock $status
		succeeds clock && said "Stepped by 3600 s" && clock_is 1700003600 || return
	done
}

# A look can take seconds, by which the clock is not off.
clock_that_is_looked_at_slowly() {
	off_by_an_hour
	rtc 1700000004
	: >"$work/slow"
	succeeds clock && said "Agrees with"
}

# A step that was not made is not told, and keeps nothing else from being done.
clock_that_cannot_be_set() {
	off_by_an_hour
	: >"$work/stuck"
	with_hwclock 1
	echo chrony.service >"$work/active"
	fails clock && said "is off by 3600 s from the real-time clock, and cannot be set" &&
		called "restart chrony.service" || return
	! has "$work/log" Stepped
}

clock_that_cannot_be_read() {
	off_by_an_hour
	echo >"$root/sys/class/rtc/rtc0/since_epoch"
	rm "$root/sys/class/rtc/rtc0/since_epoch"
	mkdir "$root/sys/class/rtc/rtc0/since_epoch"
	echo chrony.service >"$work/active"
	fails clock && said "cannot be read" && called "restart chrony.service" && clock_is 1700000000
}

clock_of_local_time() {
	off_by_an_hour
	printf '0\n0\nLOCAL\n' >"$root/etc/adjtime"
	echo UTC-2 >"$work/zone"
	rtc 1700007200
	succeeds clock && said "Agrees with"
}

clock_of_the_hypervisor() {
	off_by_an_hour
	mkdir -p "$root/sys/class/ptp/ptp0" "$root/sys/class/ptp/ptp1"
	echo "a network card" >"$root/sys/class/ptp/ptp0/clock_name"
	echo "KVM virtual PTP" >"$root/sys/class/ptp/ptp1/clock_name"
	rtc 1
	succeeds clock && said "no phc_ctl" && clock_is 1 || return
	# Nor one of which it depends on the kernel what it shows.
	echo vmclock0 >"$root/sys/class/ptp/ptp0/clock_name"
	off_by_an_hour
	program phc_ctl <<-'END'
	[ "$1 $2" = "/dev/ptp1 get" ] && echo "phc_ctl[12.345]: clock time is 1700000777.123456789 or Tue Nov 14 22:26:17 2023"
	END
	rtc 1
	succeeds clock && said "Stepped by 777 s, to the hypervisor's PTP clock, /dev/ptp1" && clock_is 1700000777 || return
	# It fails: the other one is there.
	off_by_an_hour
	program phc_ctl <<-'END'
	exit 1
	END
	succeeds clock && said "/dev/ptp1 cannot be read" && said "to the real-time clock" && clock_is 1700003600
}

clock_by_others_alone() {
	off_by_an_hour
	rm -r "$root/sys/class/rtc"
	for unit in chronyd ntpsec ntp ntpd openntpd systemd-timesyncd; do
		echo $unit.service >"$work/active"
		succeeds clock && said "Restarted $unit.service" || return
	done
	echo openntpd.service >"$work/failing"
	echo openntpd.service >"$work/active"
	fails clock && said "openntpd.service cannot be restarted" || return
	rm "$work/active"
	fails clock && said "no clock of the hypervisor's"
}

# --- Addresses ------------------------------------------------------------------

program systemd-run <<'END'
[ ! -e $work/refused ]
END

process() { # process PID COMMAND ARGUMENTS...: of root's, and of this system
	mkdir -p "$root/proc/$1" "$root/usr/sbin"
	pid=$1
	echo "$2" >"$root/proc/$pid/comm"
	printf 'Name:\t%s\nUid:\t0\t0\t0\t0\nNSpid:\t%s\n' "$2" "$pid" >"$root/proc/$pid/status"
	ln -sf "$root/usr/sbin/$2" "$root/proc/$pid/exe"
	printf '#!/bin/sh\n' >"$root/usr/sbin/$2"
	chmod +x "$root/usr/sbin/$2"
	shift
	printf '%s\0' "$@" >"$root/proc/$pid/cmdline"
}

dhcp_of_services() {
	for unit in systemd-networkd NetworkManager; do
		echo $unit.service >"$work/active"
		succeeds dhcp && called "restart $unit.service" || return
	done
	echo NetworkManager.service >"$work/failing"
	fails dhcp && said "NetworkManager.service cannot be restarted" || return
	# Its clients are its own affair.
	rm "$work/failing"
	process 70 dhclient -d eth0
	echo 70 >"$root/run/dhclient.pid"
	succeeds dhcp && not_called systemd-run
}

dhcp_of_dhcpcd() {
	mkdir -p "$root/run/dhcpcd"
	process 71 dhcpcd
	echo 71 >"$root/run/dhcpcd/pid"
	succeeds dhcp && called "systemd-run --quiet --collect --service-type=oneshot dhcpcd --rebind" || return
	# One for each link, as ifupdown has it. One is left of a process that is gone.
	rm "$root/run/dhcpcd/pid"
	echo 71 >"$root/run/dhcpcd/eth0.pid"
	echo 71 >"$root/run/dhcpcd/eth1-4.pid"
	echo 72 >"$root/run/dhcpcd/eth2.pid"
	echo 71 >"$root/run/dhcpcd/-fmine.pid"
	echo ../run/dhcpcd >"$root/run/dhcpcd/eth3.pid"
	succeeds dhcp && called "dhcpcd --rebind eth0" "dhcpcd -4 --rebind eth1" && not_called eth2 &&
		not_called mine && not_called eth3 || return
	: >"$work/refused"
	fails dhcp && said "dhcpcd fails"
	status=$?
	rm "$work/refused"
	return $status
}

dhcp_of_dhclient() {
	process 73 dhclient -4 -v -i -pf "/run/dhclient.eth0.pid" eth0
	echo 73 >"$root/run/dhclient.eth0.pid"
	mkdir -p "$root/var/run"
	echo 73 >"$root/var/run/dhclient.eth0.pid"
	succeeds dhcp && called "--service-type=oneshot kill -KILL 73" \
		"systemd-run --quiet --collect --service-type=forking $root/usr/sbin/dhclient -4 -v -i -pf /run/dhclient.eth0.pid eth0" &&
		said "Started again: dhclient -4" && is kills "$(grep -c 'kill -KILL' "$work/calls")" 1 || return
	! has "$work/log" "Left alone" || return
	# What it calls itself is not what is run. Upgraded since, and one for each protocol and link.
	rm -r "$root/proc/73"
	for name in dhclient dhclient6 dhclient-eth1; do
		: >"$work/calls"
		rm -f "$root"/run/dhclient*.pid
		process 74 dhclient -d eth0
		printf '/tmp/evil\0-d\0eth0\0' >"$root/proc/74/cmdline"
		ln -sf "$root/usr/sbin/dhclient (deleted)" "$root/proc/74/exe"
		echo 74 >"$root/run/$name.pid"
		succeeds dhcp && called "kill -KILL 74" "--service-type=exec $root/usr/sbin/dhclient -d eth0" &&
			not_called evil || return
	done
}

# Others can have processes of that name: users, and containers.
dhcp_of_somebody() {
	# Nobody but itself says that it is one.
	process 75 dhclient -sf /tmp/evil eth0
	is_left_alone || return
	# A file of others', or by which another one is meant.
	echo 75 >"$work/pid"
	ln -s "$work/pid" "$root/run/dhclient.pid"
	is_left_alone || return
	rm "$root/run/dhclient.pid"
	for mode in 666 664; do
		echo 75 >"$root/run/dhclient.pid"
		chmod $mode "$root/run/dhclient.pid"
		is_left_alone || return
	done
	chmod 644 "$root/run/dhclient.pid"
	if [ "$(id -u)" = 0 ] && chown 12345 "$root/run/dhclient.pid"; then
		is_left_alone && chown 0 "$root/run/dhclient.pid" || return
	fi
	for text in "" 75/../75 "75 76" -75; do
		echo "$text" >"$root/run/dhclient.pid"
		is_left_alone || return
	done
	# The number is another one's now: a user's; one by a program that gives root's rights; one in
	# another namespace for PIDs; root's own, which was given the name.
	echo 75 >"$root/run/dhclient.pid"
	for uid in "1000 1000 1000 1000" "1000 0 0 0" "0 1000 0 0"; do
		printf 'Uid:\t%s\nNSpid:\t75\n' "$uid" | tr ' ' '\t' >"$root/proc/75/status"
		is_left_alone || return
	done
	printf 'Uid:\t0\t0\t0\t0\nNSpid:\t75\t3\n' >"$root/proc/75/status"
	is_left_alone || return
	process 75 dhclient -sf /tmp/evil eth0
	ln -sf /usr/bin/sudo "$root/proc/75/exe"
	is_left_alone || return
	process 75 dhclient eth0
	rm "$root/usr/sbin/dhclient"
	fails dhcp && said "dhclient cannot be started again" && not_called systemd-run || return
	# And with all that it is one.
	process 75 dhclient eth0
	succeeds dhcp && called "kill -KILL 75"
}

is_left_alone() {
	: >"$work/calls"
	fails dhcp && said "Left alone" && said "dhclient, 75" && not_called systemd-run
}

dhcp_of_nobody() {
	fails dhcp && said "None of systemd-networkd, NetworkManager, dhcpcd and dhclient runs here" || return
}

# A copy that boots: what asks is not interrupted, be it on its way already.
dhcp_of_a_copy() {
	because copied
	succeeds dhcp || return
	echo systemd-networkd.service >"$work/active"
	process 76 dhclient eth0
	echo 76 >"$root/run/dhclient.eth0.pid"
	succeeds dhcp && said "Nothing is done" && not_called restart && not_called systemd-run
}

# --- The fence ------------------------------------------------------------------

# A machine on which these run, and whatever serves SSH has the drop-in.
serving() { # serving UNIT...
	for unit in ssh.service sshd.service ssh.socket sshd.socket ssh@.service sshd-.socket; do
		mkdir -p "$root/usr/lib/systemd/system/$unit.d"
		cp "$libexec/../systemd/ssh-fence.conf" \
			"$root/usr/lib/systemd/system/$unit.d/zz-sysgenid-ssh-fence.conf"
	done
	printf '%s\n' "$@" >"$work/active"
	: >"$work/refused"
	rm -f "$work/mute" "$work/lingering" "$work/unstartable"
}

serves() { # serves UNIT...: these run, and no more
	is "what runs" "$(sort "$work/active" | tr '\n' ' ')" "${*}${1+ }"
}

# The files that the drop-ins name, below the root.
fence_is() { # fence_is up|down
	sed -n 's/^AssertPathExists=!//p' "$libexec/../systemd/ssh-fence.conf" >"$work/files"
	while read -r file; do
		[ "$1" = down ] || [ -e "$root$file" ] || { echo "# there is no $file"; return 1; }
		[ "$1" = up ] || [ ! -e "$root$file" ] || { echo "# there still is $file"; return 1; }
	done <"$work/files"
	[ -s "$work/files" ]
}

fence_stops_what_serves() {
	serving cron.service ssh.service ssh.socket ssh@7-10.0.0.1:22-10.0.0.2:4711.service sshd-vsock.socket
	echo "ssh.service 3" >"$work/lingering"
	succeeds ssh-fence raise && fence_is up && said "Stopped: ssh.service ssh.socket sshd-vsock.socket" &&
		serves cron.service ssh@7-10.0.0.1:22-10.0.0.2:4711.service &&
		called "sync $root/var/lib/sysgenid/ssh-fence.new" "sync $root/var/lib/sysgenid" \
			"--no-block stop" || return
	# Once more: what is noted stays.
	succeeds ssh-fence raise && fence_is up && said "Stopped: ssh.service ssh.socket sshd-vsock.socket" || return
	: >"$work/calls"
	succeeds ssh-fence replaced && fence_is down &&
		called "--no-block start ssh.socket" "start sshd-vsock.socket" "start ssh.service" &&
		serves cron.service ssh.service ssh.socket ssh@7-10.0.0.1:22-10.0.0.2:4711.service sshd-vsock.socket
}

# Where nobody wants it, it does nothing; and where no fence is, nothing is lifted.
fence_that_is_not_up() {
	serving cron.service
	echo ssh.service >"$work/refused"
	succeeds ssh-fence replaced && [ ! -s "$work/log" ] && fence_is down && serves cron.service || return
	succeeds ssh-fence lift && said "There is no fence" && serves cron.service
}

# While that boots, nothing serves yet. What is to be started comes later, and is refused.
fence_at_boot() {
	serving cron.service
	succeeds ssh-fence raise && fence_is up || return
	echo ssh.service >"$work/refused"
	succeeds ssh-fence lift && fence_is down && serves cron.service ssh.service || return
	# Over a reboot, one file is left.
	serving cron.service
	succeeds ssh-fence raise && rm "$root/run/sysgenid/ssh-fence" || return
	echo sshd.service >"$work/refused"
	succeeds ssh-fence replaced && fence_is down && serves cron.service sshd.service
}

# Nothing is half done: what was stopped already runs again.
fence_that_cannot_be_raised() {
	serving ssh.service ssh.socket
	echo "ssh.service 1000000" >"$work/lingering"
	fails ssh-fence raise && said "Not stopped: ssh.service" && said "nothing is changed" && fence_is down || return
	sort -u "$work/active" >"$work/active.new"
	mv "$work/active.new" "$work/active"
	serves ssh.service ssh.socket || return
	# Ended by systemd, after its time.
	serving ssh.service ssh.socket
	echo "ssh.service 1000000" >"$work/lingering"
	program sleep <<-'END'
	kill -TERM $PPID
	END
	fails ssh-fence raise
	status=$?
	program sleep </dev/null
	sort -u "$work/active" >"$work/active.new"
	mv "$work/active.new" "$work/active"
	[ $status = 0 ] && said "nothing is changed" && fence_is down && serves ssh.service ssh.socket || return
	# systemd does not tell what runs.
	serving ssh.service
	: >"$work/mute"
	fails ssh-fence raise && said "systemd does not tell what runs" && fence_is down || return
	# One that is up already stays up.
	serving ssh.service
	succeeds ssh-fence raise || return
	echo ssh.service >"$work/active"
	echo "ssh.service 1000000" >"$work/lingering"
	fails ssh-fence raise && said "Not stopped: ssh.service" && fence_is up || return
	rm -r "$root/usr/lib/systemd"
	fails ssh-fence raise && said "there is no fence"
}

fence_on_a_disk_that_cannot_be_written() {
	serving ssh.service
	rm -rf "$root/var/lib/sysgenid"
	: >"$root/var/lib/sysgenid"
	succeeds ssh-fence raise && said "until the next boot only" && serves || return
	succeeds ssh-fence replaced && serves ssh.service && [ ! -e "$root/run/sysgenid/ssh-fence" ] || return
	# Nor removed: then all of it stays.
	rm "$root/var/lib/sysgenid"
	mkdir -p "$root/var/lib/sysgenid/ssh-fence/something"
	succeeds ssh-fence raise && serves && fails ssh-fence replaced && fence_is up && serves
}

# The keys are new, and so there is no fence, whatever becomes of a server.
fence_around_what_cannot_be_started() {
	for verb in replaced lift; do
		serving ssh.service ssh.socket gone.service
		mkdir -p "$root/etc/systemd/system/gone.service.d"
		ln -sf /usr/lib/sysgenid/ssh-fence.conf "$root/etc/systemd/system/gone.service.d/sysgenid-ssh-fence.conf"
		succeeds ssh-fence raise && serves || return
		echo gone.service >"$work/unstartable"
		succeeds ssh-fence $verb && said "Not started: gone.service" && fence_is down &&
			serves ssh.service ssh.socket || return
	done
	# systemd does not tell what it has refused.
	serving ssh.service
	succeeds ssh-fence raise || return
	: >"$work/mute"
	succeeds ssh-fence replaced && said "systemd does not tell" && fence_is down && serves ssh.service
}

# The administrator's own server, by a link.
fence_of_another_server() {
	serving internal.service ssh.service
	mkdir -p "$root/etc/systemd/system/internal.service.d"
	ln -s /usr/lib/sysgenid/ssh-fence.conf \
		"$root/etc/systemd/system/internal.service.d/zz-sysgenid-ssh-fence.conf"
	succeeds ssh-fence raise && serves && succeeds ssh-fence lift && serves internal.service ssh.service
}

# The boot waits for what gives a copy an identity, and not from its own beginning on.
boot_waits() {
	unit=$libexec/../systemd/sysgenid-cold-clone.target
	! grep -n '^Job[A-Za-z]*Timeout' "$unit" || return
	units=$(sed -n 's/^After=//p' "$unit")
	[ -n "$units" ] || return
	for name in $units; do
		grep -q '^TimeoutStartSec=[1-9]' "$libexec/../systemd/$name.in" ||
			{ echo "# $name has no limit"; return 1; }
	done
}

# A drop-in that is ours is taken back, and none that somebody else has written.
what_was_tracked_starts_without() {
	units=$root/etc/systemd/system
	mkdir -p "$units/one.service.d" "$units/two.service.d" "$units/three.service.d" || return
	for unit in one two; do
		printf '# Written by sysgenctl unit --track, and more\n[Service]\n' \
			>"$units/$unit.service.d/zz-sysgenid-track.conf"
	done
	echo "[Service]" | tee "$units/two.service.d/mine.conf" >"$units/three.service.d/zz-sysgenid-track.conf"
	"$libexec/untrack" >"$work/out" 2>&1 || { diagnose "$work/out"; return 1; }
	printf '%s.service is not started by sysgenctl exec any more\n' one two | sort | cmp - "$work/out" || return
	[ ! -e "$units/one.service.d" ] && [ "$(ls "$units/two.service.d")" = mine.conf ] &&
		[ -e "$units/three.service.d/zz-sysgenid-track.conf" ] || return
	# And where there is nothing to take back.
	rm -r "$units"/*.service.d
	"$libexec/untrack"
}

# Whoever removes the package has SSH served again.
fence_of_a_package_that_is_removed() {
	serving ssh.service
	succeeds ssh-fence raise && serves && script prerm remove && fence_is down && serves ssh.service || return
	# Not by an upgrade, which keeps the units.
	succeeds ssh-fence raise && script prerm upgrade && fence_is up && serves
}

# unit NAME LINE...: it has each of them
unit() {
	file=$libexec/../systemd/$1
	shift
	for line; do
		grep -qxF "$line" "$file" || { echo "# ${file##*/} lacks $line"; return 1; }
	done
}

# Any failure raises it, where it is enabled: also one of time. What is skipped does neither.
fence_and_its_units() {
	unit sysgenid-ssh-host-keys.service.in OnFailure=sysgenid-ssh-host-keys-failed.target \
		"ExecStartPost=@LIBEXECDIR@/ssh-fence replaced" TimeoutStartSec=3min &&
		unit sysgenid-ssh-fence.service.in WantedBy=sysgenid-ssh-host-keys-failed.target \
			"ExecStart=@LIBEXECDIR@/ssh-fence raise" &&
		unit 90-sysgenid.preset "disable sysgenid-ssh-fence.service" || return
	! grep -E '^(Wants|Requires|OnFailure|WantedBy|OnSuccess)=.*ssh-fence' "$libexec"/../systemd/*
}

# --- Hooks ----------------------------------------------------------------------

hook() { # hook NAME EXIT-STATUS
	# shellcheck disable=SC2016
	printf '#!/bin/sh\necho "%s $SYSGENID $SYSGENID_CAUSE" >>%s\nexit %s\n' "$1" "$work/hooks" "$2" \
		>"$conf/changed.d/$1"
	chmod 755 "$conf/changed.d/$1"
}

hooks_of_these() {
	is hooks "$(cut -d ' ' -f 1 "$work/hooks" 2>/dev/null | tr '\n' ' ')" "$1 "
}

with_hooks() {
	mkdir -p "$conf/changed.d"
	chmod 755 "$conf/changed.d"
	rm -f "$work/hooks"
	generation 7 7 vmgenid
	because hypervisor
}

hooks_and_their_names() {
	with_hooks
	hook 10-db.sh 0
	hook 20_it.service 3
	hook 30-last 0
	for leftover in .hidden 40~ 40.dpkg-old 40.rpmnew 40.rpmsave 40.bak 40.orig 40.swp 40.disabled; do
		hook $leftover 0
	done
	hook 50-off 0
	chmod -x "$conf/changed.d/50-off"
	mkdir "$conf/changed.d/60-directory"
	fails hooks "$conf/changed.d" && hooks_of_these "10-db.sh 20_it.service 30-last" &&
		said "50-off: skipped, it is not executable" && said "60-directory: skipped, it is no file" &&
		said "20_it.service: failed, exit status 3" || return
	has "$work/hooks" "10-db.sh 7 hypervisor" || { diagnose "$work/hooks"; return 1; }
	! has "$work/log" "40"
}

hooks_that_others_can_write() {
	with_hooks
	hook 10-safe 0
	hook 20-group 0
	hook 30-others 0
	chmod 775 "$conf/changed.d/20-group"
	chmod 757 "$conf/changed.d/30-others"
	hook target 0
	chmod 777 "$conf/changed.d/target"
	mv "$conf/changed.d/target" "$root/target"
	ln -s "$root/target" "$conf/changed.d/40-link"
	# What counts is the file, and not the link, which everybody may write by its mode.
	hook good 0
	mv "$conf/changed.d/good" "$root/good"
	ln -s "$root/good" "$conf/changed.d/50-good"
	fails hooks "$conf/changed.d" && hooks_of_these "10-safe good" &&
		said "20-group: refused" && said "30-others: refused" && said "40-link: refused" || return
	if [ "$(id -u)" = 0 ]; then
		chmod 755 "$conf/changed.d/20-group"
		chown 12345 "$conf/changed.d/20-group" 2>/dev/null && {
			fails hooks "$conf/changed.d" && said "20-group: refused" || return
		}
	fi
	rm -f "$work/hooks"
	chmod 777 "$conf/changed.d"
	fails hooks "$conf/changed.d" && said "changed.d: refused" && [ ! -e "$work/hooks" ]
}

# In a machine that has another one's disk.
hooks_without_a_driver() {
	with_hooks
	rm "$root/dev/sysgenid"
	because copied
	hook 10-fails 3
	hook 20-last 0
	fails hooks "$conf/changed.d" && said "without a driver" &&
		is hooks "$(tr '\n' ',' <"$work/hooks")" "10-fails  copied,20-last  copied,"
}

no_hooks_at_all() {
	with_hooks
	succeeds hooks "$conf/changed.d" && [ ! -s "$work/log" ]
}

# --- A machine with another one's disk ------------------------------------------

note=var/lib/sysgenid/machine

vmgenid() { # vmgenid CHARACTER: an ID of that 16 times
	printf '%016d' 0 | tr 0 "$1" >"$root/dev/vmgenid"
}

uuid() { # uuid DIGIT
	printf '%08d-%04d-%04d-%04d-%012d\n' 0 0 0 0 0 | tr 0 "$1" >"$root/sys/class/dmi/id/product_uuid"
}

boots_as() { # boots_as first|same|copy
	: >"$work/calls"
	rm -f "$work/causes"
	succeeds cold-clone boot "$conf" || return
	case $1 in
	first) said "nothing was noted before" && runs ;;
	same) said "the machine that was noted" && runs ;;
	copy) said "is a copy" && runs copied ;;
	esac
}

# What follows is over, and has noted.
served_as_copy() {
	have_run machine-id ssh-host-keys
	succeeds cold-clone note "$conf" || return
	succeeds cold-clone over
	[ ! -e "$root/run/sysgenid/cause" ] || { echo "# the run has no end"; return 1; }
}

have_run() { # have_run NAME...: of the units that give an identity, these have succeeded
	for name; do
		: >"$root/run/sysgenid/identity.$name"
	done
}

cold_clones_of_a_template() {
	vmgenid A
	uuid 1
	boots_as first && called "sync $root/$note.new" "mv -f $root/$note.new $root/$note" \
		"sync $root/var/lib/sysgenid" && is mode "$(stat -c %a "$root/$note")" 600 && boots_as same || return
	vmgenid B
	uuid 2
	boots_as copy || return
	# The power fails before it has an identity.
	boots_as copy && served_as_copy && boots_as same
}

# What changes for other reasons, and one ID at a time.
no_cold_clones() {
	vmgenid A
	uuid 1
	boots_as first || return
	# Switched off and on with QEMU's guid=auto, or gone back to a snapshot.
	vmgenid B
	boots_as same || return
	vmgenid C
	boots_as same || return
	# The UUID becomes another one: now both have changed since the beginning, but never at once.
	uuid 3
	boots_as same || return
	# The module is not there for once, and then it is.
	rm "$root/dev/vmgenid"
	boots_as same || return
	vmgenid C
	uuid 4
	boots_as same
}

cold_clones_with_one_id() {
	uuid 1
	boots_as first && boots_as same || return
	uuid 2
	boots_as copy && served_as_copy || return
	rm "$root/sys/class/dmi/id/product_uuid"
	# Nothing in common: better no new identity than one without need.
	vmgenid A
	boots_as same || return
	vmgenid B
	boots_as copy
}

# As QEMU has it without -uuid.
cold_clones_without_a_uuid() {
	uuid 0
	vmgenid A
	boots_as first && is note "$(cat "$root/$note")" "vmgenid 41414141414141414141414141414141" &&
		boots_as same || return
	vmgenid B
	boots_as copy && served_as_copy && boots_as same || return
	succeeds cold-clone template && boots_as copy && served_as_copy && boots_as same || return
	# It gets one later.
	uuid 1
	boots_as same || return
	vmgenid C
	uuid 0
	boots_as copy
}

# A clone that was resumed has its template's firmware until it boots.
a_clone_that_boots_later() {
	vmgenid A
	uuid 1
	boots_as first || return
	vmgenid B
	because hypervisor
	have_run machine-id ssh-host-keys
	succeeds cold-clone note "$conf" || return
	uuid 2
	boots_as same
}

ids_that_are_none() {
	for id in 00000000-0000-0000-0000-000000000000 FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF \
		03000200-0400-0500-0006-000700080009 00020003-0004-0005-0006-000700080009 "Not Settable"; do
		echo "$id" >"$root/sys/class/dmi/id/product_uuid"
		fails cold-clone boot "$conf" && said "gives this machine no ID" || return
	done
	[ ! -e "$root/$note" ] || { echo "# it is noted"; return 1; }
	# Elsewhere, as on pseries.
	mkdir -p "$root/proc/device-tree"
	printf '12345678-1234-1234-1234-123456789ABC' >"$root/proc/device-tree/vm,uuid"
	rm "$root/sys/class/dmi/id/product_uuid"
	boots_as first && is note "$(cat "$root/$note")" "uuid 12345678123412341234123456789abc"
}

a_prepared_template() {
	uuid 1
	succeeds cold-clone template && boots_as copy && served_as_copy && boots_as same
}

# What the administrator's guide says, in a machine whose units have never run: wherever it has the unit
# for cold clones enabled, a command follows by which the next boot is a copy's.
a_template_by_the_guide() {
	guide=$libexec/../../Documentation/admin-guide/sysgenid.rst
	sed -n '/systemctl enable.*sysgenid-clock/,/^Where the hypervisor gives no ID/p' "$guide" |
		grep -E '^  (.*/cold-clone .*|poweroff|touch .*no-template)$' | sed 's/^ *//' >"$work/commands"
	is commands "$(tr '\n' ',' <"$work/commands")" \
		"/usr/lib/sysgenid/cold-clone template,poweroff,touch /etc/sysgenid/no-template," || return
	uuid 1
	# shellcheck disable=SC2046 # words
	succeeds cold-clone $(sed -n 's,^/usr/lib/sysgenid/cold-clone ,,p' "$work/commands") || return
	uuid 2
	boots_as copy && served_as_copy || return
	# In production, and restored.
	: >"$conf/no-template"
	uuid 3
	succeeds cold-clone boot "$conf" && runs copied && because hypervisor && fails identity "$conf"
}

# A hypervisor that gives no ID.
a_prepared_template_without_ids() {
	succeeds cold-clone template && boots_as copy || return
	# Not before it has an identity, and then once.
	fails cold-clone note "$conf" && boots_as copy && served_as_copy || return
	: >"$work/calls"
	fails cold-clone boot "$conf" && said "gives this machine no ID" && not_called restart || return
	succeeds cold-clone template && : >"$conf/no-template" && succeeds cold-clone boot "$conf" &&
		said "it is no template" && rm "$conf/no-template" && fails cold-clone boot "$conf" || return
	# It has one later.
	uuid 1
	boots_as first && boots_as same
}

# The first three fields of a UUID stand in memory in one of two orders.
a_uuid_the_other_way_round() {
	echo 00112233-4455-6677-8899-AABBCCDDEEFF >"$root/sys/class/dmi/id/product_uuid"
	boots_as first || return
	echo 33221100-5544-7766-8899-aabbccddeeff >"$root/sys/class/dmi/id/product_uuid"
	boots_as same && is note "$(cat "$root/$note")" "uuid 33221100554477668899aabbccddeeff" || return
	echo 00112233-4455-6677-8899-aabbccddeeff >"$root/sys/class/dmi/id/product_uuid"
	boots_as same || return
	echo 00112233-4455-6677-9988-aabbccddeeff >"$root/sys/class/dmi/id/product_uuid"
	boots_as copy
}

cold_clone_that_is_no_template() {
	uuid 1
	boots_as first || return
	uuid 2
	: >"$conf/no-template"
	succeeds cold-clone boot "$conf" && said "no-template says that it is no template" && runs || return
	rm "$conf/no-template"
	boots_as same
}

cold_clone_whose_units_fail() {
	uuid 1
	boots_as first || return
	uuid 2
	boots_as copy || return
	have_run machine-id
	fails cold-clone note "$conf" && said "sysgenid-ssh-host-keys.service has not succeeded" || return
	succeeds cold-clone over
	# An overseer's change, by which they are left out.
	because overseer
	succeeds cold-clone note "$conf" && said "Not run" || return
	succeeds cold-clone over && [ -e "$root/run/sysgenid/cause" ] || return
	rm "$root/run/sysgenid/cause"
	boots_as copy || return
	# What had succeeded was in another run.
	fails cold-clone note "$conf" && said "sysgenid-machine-id.service has not succeeded" || return
	boots_as copy && served_as_copy && boots_as same || return
	# One that is not wanted is not waited for.
	uuid 3
	echo sysgenid-machine-id.service >"$work/wanted"
	boots_as copy && have_run machine-id && succeeds cold-clone note "$conf" && boots_as same || return
	# Nor is one that the administrator has left out; but one is that was started, or will be.
	echo "sysgenid-machine-id.service sysgenid-ssh-host-keys.service" >"$work/wanted"
	shown=$work/shown.sysgenid-machine-id.service
	number=4
	for leaves_out in "LoadState=masked" "LoadState=loaded ConditionTimestampMonotonic=7 ConditionResult=no"; do
		uuid $number
		boots_as copy && have_run ssh-host-keys || return
		for waited_for in "ConditionTimestampMonotonic=0 ConditionResult=no" \
			"ConditionTimestampMonotonic=7 ConditionResult=yes"; do
			echo "LoadState=loaded $waited_for" | tr ' ' '\n' >"$shown"
			fails cold-clone note "$conf" || return
		done
		echo "$leaves_out" | tr ' ' '\n' >"$shown"
		succeeds cold-clone note "$conf" && boots_as same || return
		number=$((number + 1))
	done
	rm "$shown"
	echo sysgenid-machine-id.service >"$work/wanted"
	# An overseer who is listened to, and an administrator who has mended it by hand.
	uuid 6
	boots_as copy || return
	: >"$conf/identity-at-trigger"
	because overseer
	fails cold-clone note "$conf" && have_run machine-id && succeeds cold-clone note "$conf" && boots_as same
}

# Nothing but what it announces takes the mark away.
a_mark_stays_until_it_is_served() {
	uuid 1
	boots_as first && succeeds cold-clone template || return
	because overseer
	succeeds cold-clone note "$conf" && is note "$(cat "$root/$note")" template || return
	: >"$conf/no-template"
	because hypervisor
	succeeds cold-clone note "$conf" && is note "$(cat "$root/$note")" template || return
	rm "$conf/no-template"
	fails cold-clone note "$conf" && is note "$(cat "$root/$note")" template || return
	boots_as copy && served_as_copy && boots_as same
}

# A run that is over is over without a driver, too.
the_end_of_a_copys_run() {
	uuid 1
	boots_as first || return
	uuid 2
	boots_as copy && called "--no-block restart sysgenid-changed.target" \
		"--no-block start sysgenid-cold-clone-over.service" || return
	echo "12 sysgenid-changed.target restart running" >"$work/jobs"
	succeeds cold-clone over && called list-jobs sleep list-jobs || return
	[ ! -e "$root/run/sysgenid/cause" ] || { echo "# the run has no end"; return 1; }
	unit sysgenid-cold-clone-over.service.in After=sysgenid-changed.target \
		"ExecStart=@LIBEXECDIR@/cold-clone over"
}

test_of() { # test_of FUNCTION NAME
	system
	"$1"
	result $? "$2"
}

echo "TAP version 13"
test_of identity_of_the_hypervisor_only "an identity is replaced at the hypervisor's changes only, unless told"
test_of no_template_keeps_its_identity "a machine that is no template keeps its identity"
test_of units_ask "the units for an identity ask whether it is to be replaced"
test_of each_change_is_served_once "each change is served, and once"
test_of a_change_before_udev_listens_counts "a change before udev listens counts"
test_of a_driver_that_is_loaded_again "a driver that is loaded again has not changed"
test_of an_installation_is_no_change "an installation into a system that runs is no change"
test_of the_hypervisors_change_below_another_one "the hypervisor's change counts as such below an overseer's"
test_of a_change_that_comes_meanwhile "a change that comes meanwhile begins another run"
test_of systemd_that_does_not_listen "no change is lost while systemd does not listen"
test_of a_run_waits_for_the_one_before "a run waits for the one before"
test_of without_a_driver "without a driver nothing is served"
test_of machine_id_everywhere "machine ID: new everywhere, and on the disk before it takes its place"
test_of machine_id_labelled "machine ID: labelled for SELinux"
test_of machine_id_of_run "machine ID: written into the file of /run that is mounted there"
test_of machine_id_that_is_mounted "machine ID: another file that is mounted there is written, or that is said"
test_of machine_id_that_does_not_stay "machine ID: what is not there afterwards is an error"
test_of machine_id_of_a_first_boot "machine ID: the one of a first boot stays in a copy"
test_of machine_id_of_an_empty_file "machine ID: in a copy, an ID that is no first boot's is replaced"
test_of machine_id_with_credentials "machine ID: it stays where systemd could not read its credentials any more"
test_of units_try_where_etc_is_read_only "no unit is left out where /etc is read-only"
test_of clock_by_the_real_time_clock "clock: the real-time clock, by hwclock"
test_of clock_without_hwclock "clock: without hwclock, and with one that fails"
test_of clock_that_is_looked_at_slowly "clock: a slow look is no difference"
test_of clock_that_cannot_be_set "clock: a step that is not made is not told"
test_of clock_that_cannot_be_read "clock: chrony is restarted though the real-time clock fails"
test_of clock_of_local_time "clock: a real-time clock with local time"
test_of clock_of_the_hypervisor "clock: the hypervisor's PTP clock comes first"
test_of clock_by_others_alone "clock: whatever asks others for the time"
test_of dhcp_of_services "DHCP: networkd and NetworkManager"
test_of dhcp_of_dhcpcd "DHCP: dhcpcd"
test_of dhcp_of_dhclient "DHCP: dhclient"
test_of dhcp_of_somebody "DHCP: a dhclient that is not this system's is left alone"
test_of dhcp_of_nobody "DHCP: nobody asks"
test_of dhcp_of_a_copy "DHCP: nothing is done in a copy that boots"
test_of fence_stops_what_serves "fence: what listens is stopped, and runs again when it is lifted"
test_of fence_that_is_not_up "fence: none is lifted where there is none"
test_of fence_at_boot "fence: what was to be started is started when it is lifted"
test_of fence_that_cannot_be_raised "fence: up or down, and never in between"
test_of fence_on_a_disk_that_cannot_be_written "fence: until the next boot, where nothing can be written"
test_of fence_around_what_cannot_be_started "fence: what cannot be started does not keep it up"
test_of fence_of_another_server "fence: the administrator's own server"
test_of what_was_tracked_starts_without "track: a unit starts without sysgenctl when that is gone"
test_of fence_of_a_package_that_is_removed "fence: lifted when the package is removed"
test_of fence_and_its_units "fence: raised by a failure, and only where that is enabled"
test_of hooks_and_their_names "hooks: which are run, and what is said of others"
test_of hooks_that_others_can_write "hooks: none that others can write"
test_of hooks_without_a_driver "hooks: without a driver"
test_of no_hooks_at_all "hooks: none"
test_of cold_clones_of_a_template "cold clones: the first boot notes, a copy is served, and then no more"
test_of no_cold_clones "cold clones: one ID that changes is none"
test_of cold_clones_with_one_id "cold clones: with one ID"
test_of cold_clones_without_a_uuid "cold clones: without a UUID"
test_of a_clone_that_boots_later "cold clones: a clone that was resumed is none when it boots"
test_of ids_that_are_none "cold clones: what many machines have is no ID"
test_of boot_waits "cold clones: the boot waits for each unit, as long as that may take"
test_of a_prepared_template "cold clones: a template can be prepared"
test_of a_template_by_the_guide "cold clones: a template as the administrator's guide has it"
test_of a_prepared_template_without_ids "cold clones: a template can be prepared where there is no ID"
test_of a_uuid_the_other_way_round "cold clones: a UUID in the other order of bytes is the same"
test_of cold_clone_that_is_no_template "cold clones: a machine that is no template"
test_of cold_clone_whose_units_fail "cold clones: tried again where a unit has failed"
test_of a_mark_stays_until_it_is_served "cold clones: a mark stays until it is served"
test_of the_end_of_a_copys_run "cold clones: their run has an end"
end_tests
