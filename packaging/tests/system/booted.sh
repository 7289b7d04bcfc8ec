#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A machine in which our packages are installed, and which has booted by itself: nobody has loaded
# the module. Prints TAP.
#
# usage: booted.sh DIRECTORY (below the kernel's modules, from which the module has to come)
set -u

# shellcheck source=../../../lab/tests/tap.sh
. "$(dirname "$0")/tap.sh"

directory=$1
log=$(mktemp) || exit

hexadecimal() {
	od -An -v -tx1 | tr -d ' \n'
}

# The build ID of what is loaded is in the file.
module_is_loaded() {
	file=/lib/modules/$(uname -r)/$directory/sysgenid.ko.xz
	[ "$(realpath "$(modinfo -F filename sysgenid)")" = "$(realpath "$file")" ] ||
		{ modinfo sysgenid | diagnose; return 1; }
	xz -dc "$file" | hexadecimal |
		grep -q "$(hexadecimal </sys/module/sysgenid/notes/.note.gnu.build-id)" ||
		{ echo "# another module is loaded than the one that is installed"; return 1; }
	[ -c /dev/sysgenid ]
}

node_is_opened_to_all() {
	[ "$(stat -c %a /dev/vmgenid)" = 444 ] || { stat /dev/vmgenid | diagnose; return 1; }
}

system_waits_for_changes() {
	[ "$(systemctl is-active sysgenid-changed.path)" = active ] ||
		{ systemctl --no-pager status sysgenid-changed.path 2>&1 | diagnose; return 1; }
}

nothing_else_is_enabled() {
	for unit in clock dhcp hooks machine-id ssh-host-keys; do
		[ "$(systemctl is-enabled "sysgenid-$unit.service")" = disabled ] ||
			{ echo "# sysgenid-$unit.service is enabled"; return 1; }
	done
}

doctor_is_content() {
	sysgenctl doctor >"$log" 2>&1 || { diagnose "$log"; return 1; }
	has "$log" "this system is ready for clones" || { diagnose "$log"; return 1; }
}

# A change reaches systemd, and what an administrator wants to run then.
reacts() {
	cat >/etc/sysgenid/changed.d/50-test <<-'END'
		#!/bin/sh
		echo "$SYSGENID" >/run/hooked
	END
	chmod +x /etc/sysgenid/changed.d/50-test
	{ systemctl --quiet enable sysgenid-hooks.service && sysgenctl trigger; } >"$log" 2>&1 ||
		{ diagnose "$log"; return 1; }
	tries=0
	until [ -s /run/hooked ] || [ "$tries" -ge 300 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
	[ "$(cat /run/hooked)" = 1 ] || { journalctl -u sysgenid-hooks.service | diagnose; return 1; }
}

echo "TAP version 13"
module_is_loaded
result $? "the module is there, from where it was installed"
node_is_opened_to_all
result $? "the rule opens /dev/vmgenid to all"
system_waits_for_changes
result $? "systemd waits for changes"
nothing_else_is_enabled
result $? "nothing that changes the system is enabled"
doctor_is_content
result $? "sysgenctl doctor says that it is ready"
reacts
result $? "a hook runs at a change"
end_tests
