#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The DKMS package in a Debian system with a kernel of the backports, its headers, and what DKMS
# builds with: installed, upgraded, with other kernels, removed and purged. It runs as root, in a
# system that nobody needs afterwards. Prints TAP.
#
# usage: dkms.sh PACKAGES (a directory with our packages, those of the system's kernel, and those of
#        a kernel of another series, which is not installed yet)
set -u

. "$(dirname "$0")/common.sh"

version=$(dpkg-deb -f "$packages"/sysgenid-dkms_*.deb Version)
architecture=$(dpkg --print-architecture)

# The kernel that the system has, and the other one.
first=$(basename /lib/modules/*)
for package in "$packages"/linux-lib-rust-*; do
	release=${package##*/linux-lib-rust-}
	release=${release%%_*}
	[ "$release" = "$first" ] || second=$release
done

is_built_for() {
	finds_module "$1" dkms/ || { dkms status | diagnose; return 1; }
	[ "$(modinfo -k "$1" -F vermagic sysgenid | cut -d ' ' -f 1)" = "$1" ]
}

is_not_built_for() {
	! modinfo -k "$1" sysgenid >"$work/found" 2>&1 || { diagnose "$work/found"; return 1; }
}

# repacked VERSION COMMAND...: the DKMS package as another version has it, after the command was
# run where the source is
repacked() {
	new=$1
	shift
	rm -rf "$work/package"
	dpkg-deb -R "$packages"/sysgenid-dkms_*.deb "$work/package" &&
		mv "$work/package/usr/src/sysgenid-$version" "$work/package/usr/src/sysgenid-$new" &&
		sed -i "s/$version/$new/" "$work/package/DEBIAN/control" "$work/package/DEBIAN/prerm" \
			"$work/package/DEBIAN/postinst" "$work/package/usr/src/sysgenid-$new/dkms.conf" &&
		rm "$work/package/DEBIAN/md5sums" && (cd "$work/package/usr/src/sysgenid-$new" && "$@") &&
		dpkg-deb -b "$work/package" "$work/sysgenid-dkms_${new}_all.deb" >"$log" 2>&1
}

installs() {
	succeeds apt install "$packages"/sysgenid_*.deb "$packages"/sysgenid-dkms_*.deb \
		"$packages"/libsysgenid*.deb "$packages"/openssl-provider-sysgenid_*.deb \
		"$packages/linux-lib-rust-$first"_*.deb && is_built_for "$first"
}

# Without metadata a kernel is skipped, and all goes on.
skips_without_metadata() {
	succeeds apt install "linux-image-$second/trixie-backports" "linux-headers-$second/trixie-backports" &&
		is_not_built_for "$second" &&
		said "sysgenid is not built for kernel $second: its headers have no metadata" \
			"linux-lib-rust-$second of version" linux-source-
}

builds_when_it_comes() {
	succeeds apt install "$packages/linux-lib-rust-$second"_*.deb &&
		said "the module is built for kernel $second" && is_built_for "$second" && is_built_for "$first"
}

installed() {
	dpkg-query -W -f '${Package}\n' | LC_ALL=C sort
}

module_of() { # module_of KERNEL
	find "/lib/modules/$1/updates/dkms" -name 'sysgenid.ko*'
}

# The remedies that are told are enough, one after the other, and the module is the same as before.
makes_metadata_of_the_source() {
	series=${second%"${second#*.*.}"}
	series=${series%.}
	cp "$(module_of "$second")" "$work/module" && installed >"$work/had" || return
	succeeds apt purge "linux-lib-rust-$second" || return
	dkms remove -m sysgenid -v "$version" -k "$second" >"$log" 2>&1 && is_not_built_for "$second" || return
	dkms install -m sysgenid -v "$version" -k "$second" >"$log" 2>&1
	[ $? = 77 ] || { diagnose "$log"; return 1; }
	succeeds apt install "linux-source-$series/trixie-backports" &&
		said "these packages are missing for making it:" && is_not_built_for "$second" || return
	# dpkg's terminal ends lines its own way.
	missing=$(tr -d '\r' <"$log" | sed -n 's/.*these packages are missing for making it://p')
	# shellcheck disable=SC2086 # a list
	succeeds apt install $missing && said "the module is built for kernel $second" &&
		is_built_for "$second" || return
	cmp "$work/module" "$(module_of "$second")" || return
	# Not by autoremove, which leaves what others suggest.
	# shellcheck disable=SC2046
	succeeds apt purge $(installed | comm -13 "$work/had" -)
}

# Debian's own kernel of that release is built without Rust.
skips_without_rust() {
	third=$(apt-cache pkgnames linux-headers-6.12 | sed -n "s/^linux-headers-\(.*-cloud-$architecture\)$/\1/p" |
		sort -V | tail -n 1)
	succeeds apt install "linux-image-$third" "linux-headers-$third" && is_not_built_for "$third" &&
		said "sysgenid is not built for kernel $third: that kernel is built without support for Rust" &&
		has "/var/lib/sysgenid-dkms/skipped/$third" CONFIG_RUST
}

forgets_a_removed_kernel() {
	succeeds apt purge "linux-image-$third" "linux-headers-$third" || return
	[ ! -e "/var/lib/sysgenid-dkms/skipped/$third" ] || { echo "# it is still noted as skipped"; return 1; }
}

# A kernel that goes takes its module along, and the metadata that was made for it.
removes_a_kernel() {
	succeeds apt purge "linux-image-$second" "linux-headers-$second" || return
	[ -z "$(find "/lib/modules/$second" /var/lib/dkms /var/lib/sysgenid-dkms -path "*$second*" \( -name 'sysgenid*' -o -name 'linux-lib-rust*' \) 2>/dev/null)" ]
}

upgrades() {
	repacked "$version+1" true && succeeds apt install "$work/sysgenid-dkms_$version+1_all.deb" &&
		is_built_for "$first" || return
	[ "$(dkms status)" = "sysgenid/$version+1, $first, $(uname -m): installed" ] ||
		{ dkms status | diagnose; return 1; }
}

# It is another thing if the module cannot be built that ought to be.
fails_if_the_build_fails() {
	repacked "$version+2" sh -c 'echo "fn is not Rust" >>sysgenid.rs' || return
	if apt install "$work/sysgenid-dkms_$version+2_all.deb"; then
		echo "# apt did not say so"
		return 1
	fi
	said "Bad return status for module build"
}

recovers() {
	repacked "$version+3" true && succeeds apt install "$work/sysgenid-dkms_$version+3_all.deb" &&
		is_built_for "$first"
}

ours="sysgenid sysgenid-dkms libsysgenid-dev openssl-provider-sysgenid $(
	for package in "$packages"/libsysgenid[0-9]*.deb; do dpkg-deb -f "$package" Package; done)"

removes() {
	# shellcheck disable=SC2086 # a list
	succeeds apt remove $ours && is_not_built_for "$first" || return
	[ -z "$(dkms status)" ] || { dkms status | diagnose; return 1; }
}

purges() {
	# Those that have no configuration are gone already.
	known=$(for package in $ours; do dpkg-query -W -f '${Package}\n' "$package" 2>/dev/null; done)
	# shellcheck disable=SC2086
	succeeds apt purge $known "linux-lib-rust-$first" && succeeds apt autoremove --purge || return
	everything "$second" "$third" >"$work/after"
	diff "$work/before" "$work/after" >"$work/diff" || { diagnose "$work/diff"; return 1; }
}

echo "TAP version 13"
succeeds apt update || exit
everything >"$work/before"
installs
result $? "apt installs all, and the module is built"
skips_without_metadata
result $? "a kernel of another series, without metadata, is installed and skipped"
builds_when_it_comes
result $? "it is built for that one when the metadata comes"
makes_metadata_of_the_source
result $? "the metadata is made of the kernel's source, with the tools that are told"
skips_without_rust
result $? "a kernel without Rust is installed and skipped"
forgets_a_removed_kernel
result $? "what was noted of a kernel goes with it"
removes_a_kernel
result $? "a kernel's module goes with it"
upgrades
result $? "an upgrade builds the new version, and removes the old one"
fails_if_the_build_fails
result $? "a module that cannot be compiled is an error"
recovers
result $? "the next version mends that"
removes
result $? "removed, no module is left"
purges
result $? "purged, nothing is left"
end_tests
