#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A machine that boots from a disk with Debian, two kernels of the backports, and our packages, of
# which DKMS has built the module: it comes by itself. Prints TAP.
#
# usage: LAB=/path/to/lab FILES=DIR SCRATCH=DIR machine.sh (DIR/packages has the packages,
#        DIR/kernel those of the stock kernel, and DIR/other those of another one)
set -u

. "$(dirname "$0")/systems.sh"

other=$(release_of "$FILES/other")

echo "TAP version 13"
made "a disk with the DKMS package and two kernels" \
	compiler_system --add "$FILES/other:/packages" --image "$disk" -- \
	sh -ec "apt-get update
		apt-get install --yes --no-install-recommends linux-image-$other/$backports \
			linux-headers-$other/$backports
		apt-get install --yes --no-install-recommends /packages/sysgenid_*.deb \
			/packages/sysgenid-dkms_*.deb /packages/openssl-provider-sysgenid_*.deb \
			/packages/linux-lib-rust-*.deb
		rm -r /packages" || { end_tests; exit; }
# What loads modules by their names is switched off: so it is the device that brings ours.
for kernel in $(release_of "$FILES/kernel") "$other"; do
	boots "$kernel" --disk-kernel "$kernel" --append systemd.mask=systemd-modules-load.service -- \
		/tests/booted.sh updates/dkms
done
# The system is degraded then, for a unit cannot load a module that is installed.
shown "DKMS's key is unknown" machine run --append module.sig_enforce=1 -- /tests/refused.sh signed
end_tests
