#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A machine that boots from a disk with Debian, two kernels of the backports, and our packages, of
# which DKMS has built the module: it comes by itself. Prints TAP.
#
# usage: LAB=/path/to/lab FILES=DIR SCRATCH=DIR machine.sh (DIR/packages has the packages,
#        DIR/kernel those of the stock kernel, and DIR/other those of another one)
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

: "${LAB:?}" "${FILES:?}" "${SCRATCH:?}"
here=$(cd "$(dirname "$0")" && pwd)
disk=$SCRATCH/disk
backports=trixie-backports

# make_disk OPTIONS... -- COMMAND...: one with the stock kernel, after the command, which finds our
# packages in /packages
make_disk() {
	"$LAB" system --package systemd-sysv --package udev --package initramfs-tools --package dbus \
		--package "linux-image-cloud-amd64/$backports" --add "$FILES/packages:/packages" \
		--add "$FILES/kernel:/packages" --image "$disk" "$@" >"$SCRATCH/log" 2>&1 ||
		{ diagnose "$SCRATCH/log"; return 1; }
}

# boots OPTIONS... -- SCRIPT ARGUMENTS...: the script's tests succeed, and no unit fails
boots() {
	"$LAB" run --disk "$disk" --add "$here/system:/tests" \
		--add "$here/../../lab/tests/tap.sh:/tests/tap.sh" "$@" >"$SCRATCH/out" 2>"$SCRATCH/err" ||
		{ diagnose "$SCRATCH/out" "$SCRATCH/err"; return 1; }
	! has "$SCRATCH/err" "units that failed" || { diagnose "$SCRATCH/err"; return 1; }
}

release_of() { # release_of DIRECTORY: of the kernel that its packages belong to
	package=$(echo "$1"/linux-lib-rust-*.deb)
	package=${package##*/linux-lib-rust-}
	echo "${package%%_*}"
}

dkms() {
	other=$(release_of "$FILES/other")
	make_disk --package "linux-headers-cloud-amd64/$backports" --package dkms --package rustc \
		--package libc6-dev --package openssl --add "$FILES/other:/packages" -- \
		sh -ec "apt-get update
			apt-get install --yes --no-install-recommends linux-image-$other/$backports \
				linux-headers-$other/$backports
			apt-get install --yes --no-install-recommends /packages/sysgenid_*.deb \
				/packages/sysgenid-dkms_*.deb /packages/openssl-provider-sysgenid_*.deb openssl \
				/packages/linux-lib-rust-*.deb
			rm -r /packages"
	result $? "a disk with the DKMS package and two kernels"
	[ -e "$disk" ] || return
	# What loads modules by their names is switched off: so it is the device that brings ours.
	for kernel in $(release_of "$FILES/kernel") "$other"; do
		boots --disk-kernel "$kernel" --append systemd.mask=systemd-modules-load.service -- \
			/tests/booted.sh updates/dkms
		result $? "the device brings the module that DKMS has built, in $kernel"
	done
	# The system is degraded then, for a unit cannot load a module that is installed.
	"$LAB" run --disk "$disk" --append module.sig_enforce=1 --add "$here/system:/tests" \
		--add "$here/../../lab/tests/tap.sh:/tests/tap.sh" -- /tests/signed.sh >"$SCRATCH/out" 2>&1 ||
		{ diagnose "$SCRATCH/out"; false; }
	result $? "a kernel that does not know DKMS's key refuses the module, and doctor says so"
}

echo "TAP version 13"
dkms
end_tests
