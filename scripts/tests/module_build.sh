#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The front door builds the module for a kernel, and installs it. Prints TAP.
#
# usage: KDIR=/path/to/the/kernel/tree KERNEL_RELEASE=what-uname-r-says module_build.sh
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

: "${KDIR:?}" "${KERNEL_RELEASE:?}"
checkout=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT

front_door() {
	make -C "$checkout" "$@" KDIR="$KDIR" MO="$work/module" >"$work/log" 2>&1 ||
		{ diagnose "$work/log"; return 1; }
}

is_made_for_the_kernel() {
	front_door modules || return
	vermagic=$(modinfo -F vermagic "$work/module/sysgenid.ko") || return
	[ "${vermagic%% *}" = "$KERNEL_RELEASE" ] ||
		{ echo "# vermagic is $vermagic, the kernel is $KERNEL_RELEASE"; return 1; }
}

is_installed() {
	mkdir "$work/installed"
	front_door modules_install INSTALL_MOD_PATH="$work/installed" || return
	find "$work/installed" -name 'sysgenid.ko*' >"$work/found"
	[ "$(wc -l <"$work/found")" -eq 1 ] ||
		{ echo "# installed, where one is expected:"; diagnose "$work/found"; return 1; }
}

echo "TAP version 13"
is_made_for_the_kernel
result $? "the module is made for the packaged kernel"
is_installed
result $? "make modules_install"
end_tests
