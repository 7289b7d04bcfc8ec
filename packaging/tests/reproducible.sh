#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The packages that are built in another directory, by somebody in another time zone, with another
# language and umask, are the same, byte for byte. Prints TAP.
#
# usage: FILES=DIR SCRATCH=DIR KDIR=/path/to/tree KERNEL_RELEASE=what-uname-r-says reproducible.sh
#        (DIR/packages has the packages, DIR/kernel those of the kernel, DIR/headers its headers
#        package, unpacked; KDIR is its tree)
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

: "${FILES:?}" "${SCRATCH:?}" "${KDIR:?}" "${KERNEL_RELEASE:?}"
packaging=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$SCRATCH/some/where" "$SCRATCH/some/kernel" "$SCRATCH/some/module" "$SCRATCH/home"

# elsewhere COMMAND...: as somebody else would do it
elsewhere() {
	(
		umask 077
		TZ=Pacific/Kiritimati LC_ALL=C.UTF-8 LANG=de_DE.UTF-8 HOME=$SCRATCH/home
		export TZ LC_ALL LANG HOME
		"$@"
	) >"$SCRATCH/log" 2>&1 || { tail -n 30 "$SCRATCH/log" | diagnose; return 1; }
}

build_again() {
	tree=$SCRATCH/some/where/else
	"$packaging/source.sh" "$tree" && "$packaging/vendor.sh" "$tree" &&
		"$packaging/build.sh" "$tree" "$SCRATCH/again"
}

# The compressor is the same as ever, and would take longer than all the rest.
build_kernel_again() {
	tree=$SCRATCH/some/kernel/tree
	version=$(dpkg-deb -f "$FILES"/kernel/linux-lib-rust-*.deb Version)
	make -C "$SCRATCH/some/where/else" modules KDIR="$KDIR" MO="$SCRATCH/some/module" &&
		"$packaging/kernel-source.sh" "$tree" "$KERNEL_RELEASE" "$version" "$FILES/headers" "$KDIR" \
			"$SCRATCH/some/module/sysgenid.ko" &&
		DPKG_DEB_COMPRESSOR_TYPE=none "$packaging/build.sh" "$tree" "$SCRATCH/kernel"
}

# each DIRECTORY COMMAND...: the command succeeds for each package there
each() {
	packages=0
	for package in "$1"/*.deb; do
		"$2" "$package" || return
		packages=$((packages + 1))
	done
	[ "$packages" -gt 0 ]
}

is_the_same() {
	! cmp "$1" "$SCRATCH/again/${1##*/}" 2>&1 | diagnose | grep .
}

has_the_same() {
	for part in --ctrl-tarfile --fsys-tarfile; do
		dpkg-deb $part "$SCRATCH/kernel/${1##*/}" >"$SCRATCH/part" || return
		! dpkg-deb $part "$1" | cmp - "$SCRATCH/part" 2>&1 | diagnose | grep . ||
			{ echo "# in ${1##*/}"; return 1; }
	done
}

echo "TAP version 13"
elsewhere build_again && each "$FILES/packages" is_the_same
result $? "the same packages are built elsewhere"
elsewhere build_kernel_again && each "$FILES/kernel" has_the_same
result $? "the packages of a kernel that are built elsewhere have the same in them"
end_tests
