#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What tests of packages in a Debian system have in common; they source it, with the directory of
# the packages as their first argument.

# shellcheck source=../../../lab/tests/tap.sh
. "$(dirname "$0")/tap.sh"

packages=$1
work=$(mktemp -d) || exit
log=$work/log

apt() { # apt ARGUMENTS...: what it says goes to the log
	DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet --no-install-recommends "$@" >"$log" 2>&1
}

succeeds() {
	"$@" || { diagnose "$log"; return 1; }
}

said() { # said WORDS...
	for words; do
		has "$log" "$words" || { echo "# \"$words\" is not in:"; diagnose "$log"; return 1; }
	done
}

# finds_module KERNEL DIRECTORY: by the device that a hypervisor has, and there
finds_module() {
	modprobe --set-version "$1" --show-depends acpi:QEMUVGID:VM_GEN_COUNTER: >"$work/found" 2>&1
	grep -q "^insmod /lib/modules/$1/updates/${2}sysgenid.ko" "$work/found" ||
		{ diagnose "$work/found"; return 1; }
}

# everything KERNEL...: all that there is, but for what apt and dpkg write down, and what belongs to
# these kernels, which come and go. DKMS keeps the key that it signs with.
everything() {
	set -- "$@" none
	# Their packages have files with names that begin like the release.
	for kernel; do
		shift
		set -- "$@" -o -path "*${kernel%%-*}*"
	done
	find / -xdev \( -path "$packages" -o -path "${0%/*}" -o -path "$work" -o -path /proc -o -path /sys \
		-o -path /dev -o -path /run -o -path /tmp -o -path /boot -o -path "/vmlinuz*" \
		-o -path "/initrd.img*" -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/cache \
		-o -path /var/log -o -path "/var/lib/dkms/mok.*" "$@" \) -prune -o -printf '%M %p %l\n' |
		LC_ALL=C sort
}
