#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The Debian systems that the tests of packages take place in, and machines that boot with them.
# Scripts source it.

tests=$(cd "$(dirname "$0")" && pwd)
. "$tests/../../lab/tests/tap.sh"

: "${LAB:?}" "${FILES:?}" "${SCRATCH:?}"
backports=trixie-backports
disk=$SCRATCH/disk

# Each list of packages stands here only: a system is made once for a list.

# compiler_system OPTIONS... -- COMMAND...: as root in a system with the stock kernel, its headers,
# and what DKMS builds with; our packages are in /packages
compiler_system() {
	in_system --package dkms --package rustc --package libc6-dev \
		--package "linux-headers-cloud-amd64/$backports" "$@"
}

# plain_system OPTIONS... -- COMMAND...: the same without any compiler, but for a server
plain_system() {
	in_system --package openssh-server --package python3 --package qemu-guest-agent \
		--package xz-utils "$@"
}

in_system() {
	"$LAB" system --package systemd-sysv --package udev --package initramfs-tools --package dbus \
		--package openssl --package "linux-image-cloud-amd64/$backports" \
		--add "$tests/system:/tests" --add "$tests/../../lab/tests/tap.sh:/tests/tap.sh" \
		--add "$FILES/packages:/packages" --add "$FILES/kernel:/packages" "$@"
}

# machine run|clone OPTIONS... -- COMMAND...: on the machine that boots from the disk
machine() {
	verb=$1
	shift
	"$LAB" "$verb" --disk "$disk" --add "$tests/system:/tests" \
		--add "$tests/../../lab/tests/tap.sh:/tests/tap.sh" "$@"
}

# shown WHAT COMMAND...: one whose own tests count, each as one here, and its end as one more
shown() {
	what=$1
	shift
	"$@" >"$SCRATCH/out" 2>"$SCRATCH/err" </dev/null
	status=$?
	while read -r line; do
		case $line in
		"ok "*) result 0 "$what: ${line#ok * }" ;;
		"not ok "*) result 1 "$what: ${line#not ok * }" ;;
		"#"*) echo "$line" ;;
		esac
	done <"$SCRATCH/out"
	[ "$status" = 0 ] || diagnose "$SCRATCH/err"
	result "$status" "$what: exit status"
	return "$status"
}

# boots WHAT OPTIONS... -- COMMAND...: a machine whose tests succeed, and on which no unit fails
boots() {
	boots=$1
	shift
	shown "$boots" machine run "$@"
	! has "$SCRATCH/err" "units that failed" || { diagnose "$SCRATCH/err"; false; }
	result $? "$boots: no unit fails"
}

# made WHAT COMMAND...: a test that a command succeeds which makes the disk
made() {
	what=$1
	shift
	status=0
	if ! "$@" >"$SCRATCH/out" 2>&1 </dev/null || [ ! -e "$disk" ]; then
		diagnose "$SCRATCH/out"
		status=1
	fi
	result "$status" "$what"
	return "$status"
}

release_of() { # release_of DIRECTORY: of the kernel that its packages belong to
	package=$(echo "$1"/linux-lib-rust-*.deb)
	package=${package##*/linux-lib-rust-}
	echo "${package%%_*}"
}
