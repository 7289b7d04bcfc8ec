#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A machine in which our packages are installed, and which has booted by itself: nobody has loaded
# the module, nor told what to load. Prints TAP.
#
# usage: booted.sh DIRECTORY UNIT... (the directory below the kernel's modules from which the module
#        has to come; the units that are enabled, sysgenid-UNIT.service, in the order of the alphabet)
set -u

# shellcheck source=../../../lab/tests/tap.sh
. "$(dirname "$0")/tap.sh"

directory=$1
shift
enabled=$*
log=$(mktemp) || exit

hexadecimal() {
	od -An -v -tx1 | tr -d ' \n'
}

# The build ID of what is loaded is in the file.
module_is_loaded() {
	! systemctl --quiet is-active systemd-modules-load.service ||
		{ echo "# it is loaded by its name, whatever devices there are"; return 1; }
	file=/lib/modules/$(uname -r)/$directory/sysgenid.ko.xz
	[ "$(realpath "$(modinfo -F filename sysgenid)")" = "$(realpath "$file")" ] ||
		{ modinfo sysgenid | diagnose; return 1; }
	xz -dc "$file" | hexadecimal |
		grep -q "$(hexadecimal </sys/module/sysgenid/notes/.note.gnu.build-id)" ||
		{ echo "# another module is loaded than the one that is installed"; return 1; }
	[ -c /dev/sysgenid ]
}

nodes_are_opened_to_all() {
	[ "$(stat -c %a /dev/sysgenid /dev/vmgenid)" = "666${NL}444" ] ||
		{ stat /dev/sysgenid /dev/vmgenid | diagnose; return 1; }
}

system_waits_for_changes() {
	[ "$(systemctl is-active sysgenid-changed.path)" = active ] ||
		{ systemctl --no-pager status sysgenid-changed.path 2>&1 | diagnose; return 1; }
}

nothing_else_is_enabled() {
	for unit in clock cold-clone cold-clone-note dhcp hooks machine-id ssh-fence ssh-host-keys; do
		case " $enabled " in
		*" $unit "*) state=enabled ;;
		*) state=disabled ;;
		esac
		[ "$(systemctl is-enabled "sysgenid-$unit.service")" = $state ] ||
			{ echo "# sysgenid-$unit.service is not $state"; return 1; }
	done
}

# doctor_says STATUS WORDS...
doctor_says() {
	sysgenctl doctor >"$log" 2>&1
	status=$?
	[ $status = "$1" ] || { echo "# its exit status is $status"; diagnose "$log"; return 1; }
	shift
	for words; do
		has "$log" "$words" || { echo "# it does not say: $words"; diagnose "$log"; return 1; }
	done
}

# It is ready as soon as something follows a change.
doctor_is_content() {
	set -- "ok      driver         running" 60-sysgenid.rules
	if [ -z "$enabled" ]; then
		doctor_says 8 "$@" "none that follows a change is enabled" "for clones; mend: units$NL"
		return
	fi
	units=
	for unit in $enabled; do
		# This one follows the boot.
		[ "$unit" != cold-clone ] || continue
		units="$units${units:+, }sysgenid-$unit.service"
	done
	doctor_says 0 "$@" "this system is ready for clones" "waits for a change; enabled: $units"
}

provider_is_there() {
	OPENSSL_CONF=/etc/ssl/sysgenid.cnf openssl list -providers >"$log" 2>&1
	has "$log" sysgenid || { diagnose "$log"; return 1; }
}

# A change reaches systemd, and what an administrator wants to run then; and all that comes to an end.
reacts() {
	cat >/etc/sysgenid/changed.d/50-test <<-'END'
		#!/bin/sh
		echo "$SYSGENID" >/run/hooked
	END
	chmod +x /etc/sysgenid/changed.d/50-test
	{
		systemctl --quiet enable sysgenid-hooks.service &&
			sysgenctl trigger --wait --timeout 3m && sysgenctl doctor
	} >"$log" 2>&1 || { diagnose "$log"; return 1; }
	rm /etc/sysgenid/changed.d/50-test
	[ "$(cat /run/hooked)" = 1 ] || { journalctl -u sysgenid-hooks.service | diagnose; return 1; }
}

# The disk's keys are another machine's: they are replaced before sshd has them, and that is noted.
copy_has_its_own_keys() {
	cat /etc/ssh/ssh_host_*_key.pub >"$log"
	! sha256sum <"$log" | cmp -s - /root/keys-of-the-template ||
		{ echo "# they are the template's"; journalctl -b -u 'sysgenid-*' | diagnose; return 1; }
	replaced=$(systemctl show -P ExecMainExitTimestampMonotonic sysgenid-ssh-host-keys.service)
	began=$(systemctl show -P InactiveExitTimestampMonotonic ssh.service)
	{ [ "$replaced" -gt 0 ] && [ "$began" -gt "$replaced" ]; } ||
		{ echo "# keys at $replaced, sshd at $began"; return 1; }
	grep -q '^vmgenid ' /var/lib/sysgenid/machine ||
		{ diagnose /var/lib/sysgenid/machine; return 1; }
	systemctl restart sysgenid-cold-clone.service || return
	journalctl -b -o cat -u sysgenid-cold-clone.service | grep -q "This is the machine that was noted" ||
		{ journalctl -b -u 'sysgenid-*' | diagnose; return 1; }
}

echo "TAP version 13"
module_is_loaded
result $? "the module is there, from where it was installed"
nodes_are_opened_to_all
result $? "everybody may open the nodes"
system_waits_for_changes
result $? "systemd waits for changes"
nothing_else_is_enabled
result $? "nothing is enabled that changes the system, but by the administrator"
doctor_is_content
result $? "sysgenctl doctor says whether it is ready"
if [ -e /root/keys-of-the-template ]; then
	copy_has_its_own_keys
	result $? "a copy of the disk has host keys of its own before sshd starts"
fi
provider_is_there
result $? "OpenSSL has the provider"
[ -s /usr/share/man/man8/sysgenctl.8.gz ]
result $? "the manual page is there"
reacts
result $? "a hook runs at a change"
end_tests
