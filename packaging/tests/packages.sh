#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What is in Debian's packages, and what lintian says of them. Prints TAP.
#
# usage: FILES=DIR KERNEL_RELEASE=what-uname-r-says packages.sh (DIR/packages has the packages, and
#        DIR/kernel those of the kernel)
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

: "${FILES:?}" "${KERNEL_RELEASE:?}"
checkout=$(cd "$(dirname "$0")/../.." && pwd)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$checkout/Cargo.toml")
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT

field() { # field PACKAGE NAME
	dpkg-deb -f "$FILES"/packages/"$1"_*.deb "$2"
}

kernel_field() {
	dpkg-deb -f "$FILES"/kernel/"$1"_*.deb "$2"
}

unpacked() { # unpacked: all that belongs to no kernel, in $work/root
	[ -e "$work/root" ] || for package in "$FILES"/packages/*.deb; do
		dpkg-deb -x "$package" "$work/root" || return
	done
}

are_clean() { # are_clean DIRECTORY
	lintian --allow-root --display-info --pedantic --tag-display-limit 0 \
		--fail-on error,warning,info,pedantic "$1"/*.deb >"$work/log" 2>&1 ||
		{ diagnose "$work/log"; return 1; }
}

have_the_version() {
	for package in "$FILES"/packages/*.deb; do
		[ "$(dpkg-deb -f "$package" Version)" = "$version" ] ||
			{ echo "# ${package##*/} has another version than Cargo.toml, $version"; return 1; }
	done
}

# They can all be installed together.
share_no_file() {
	for package in "$FILES"/packages/*.deb "$FILES"/kernel/*.deb; do
		dpkg-deb -c "$package" | awk '$1 !~ /^d/ { print $6 }'
	done | LC_ALL=C sort | uniq -d >"$work/twice"
	[ ! -s "$work/twice" ] || { diagnose "$work/twice"; return 1; }
}

# Before 1.0 each minor version has a package and a soname of its own.
library_has_a_soname() {
	unpacked || return
	case $version in
	0.*) abi=${version%.*} ;;
	*) abi=${version%%.*} ;;
	esac
	library=$(echo "$work"/root/usr/lib/*/libsysgenid.so."$version")
	readelf -d "$library" | grep -q "SONAME.*\[libsysgenid\.so\.$abi\]" ||
		{ readelf -d "$library" | grep SONAME | diagnose; return 1; }
	[ -e "$FILES/packages/libsysgenid${abi}_${version}_$(dpkg --print-architecture).deb" ] ||
		{ echo "# the package is not called libsysgenid$abi"; return 1; }
	[ "$(field libsysgenid-dev Depends)" = "libsysgenid$abi (= $version)" ]
}

# Whoever builds with it gets by with what it says itself, and depends on the version that is needed.
library_has_symbols() {
	dpkg-deb -e "$FILES"/packages/libsysgenid[0-9]*.deb "$work/control" || return
	# A version is a symbol as well, and then one of its own.
	nm -D --defined-only --format=just-symbols "$work"/root/usr/lib/*/libsysgenid.so."$version" |
		sed 's/@@/@/; s/^LIBSYSGENID_.*/&@&/' | LC_ALL=C sort >"$work/defined"
	sed -n 's/^ \(.*\) .*/\1/p' "$work/control/symbols" | LC_ALL=C sort >"$work/listed"
	diff "$work/listed" "$work/defined" >"$work/diff" || { diagnose "$work/diff"; return 1; }
}

are_for_one_kernel() {
	version_of_headers=$(kernel_field "linux-lib-rust-$KERNEL_RELEASE" Version)
	has_dependency linux-lib-rust "linux-headers-$KERNEL_RELEASE (= $version_of_headers)" &&
		has_dependency sysgenid-modules "linux-image-$KERNEL_RELEASE (= $version_of_headers)"
}

has_dependency() { # has_dependency PACKAGE DEPENDENCY
	case ", $(kernel_field "$1-$KERNEL_RELEASE" Depends)," in
	*", $2,"*) ;;
	*) kernel_field "$1-$KERNEL_RELEASE" Depends | diagnose; return 1 ;;
	esac
}

# The module is for that kernel, and nothing of the one that built it is in the package besides.
module_is_for_the_kernel() {
	dpkg-deb -x "$FILES"/kernel/sysgenid-modules-*.deb "$work/kernel" || return
	module=$(find "$work/kernel" -name 'sysgenid.ko*')
	[ "$(modinfo -F vermagic "$module" | cut -d ' ' -f 1)" = "$KERNEL_RELEASE" ]
}

# Debian's copyright file names whatever is linked, with its licence.
crates_are_named() {
	unpacked || return
	for crate in clap rustix serde_json; do
		grep -qx "Files: vendor/$crate/\*" "$work/root/usr/share/doc/sysgenid/copyright" ||
			{ echo "# there is no $crate"; return 1; }
	done
	# Whose they are begins with a year or a name, of which two are in small letters. Where nobody
	# has said, it is "the authors of".
	! sed -n '/^Files: vendor/,$p' "$work/root/usr/share/doc/sysgenid/copyright" |
		sed -n '/^Copyright:/,/^License:/p' |
		grep -E '^(Copyright:)? [a-z]' | grep -v '^Copyright: the authors of ' |
		grep -vxE '(Copyright:)? (fsyncd|rust-vsock)' | diagnose | grep .
}

# An administrator enables what changes the system, and nobody else.
nothing_is_enabled() {
	unpacked || return
	find "$work/root" -path '*.wants/*' -o -path '*.requires/*' | grep . | diagnose | grep . && return 1
	dpkg-deb -e "$FILES"/packages/sysgenid_*.deb "$work/scripts" || return
	! grep -E 'deb-systemd-invoke (re)?start|systemctl (re)?start' "$work"/scripts/* | diagnose | grep .
}

# Whoever has changed it keeps it, and the agent can call it.
hook_is_configuration() {
	unpacked || return
	hook=etc/qemu/fsfreeze-hook.d/sysgenid
	dpkg-deb -I "$FILES"/packages/sysgenid_*.deb conffiles >"$work/conffiles" || return
	grep -qx "/$hook" "$work/conffiles" || { diagnose "$work/conffiles"; return 1; }
	# When the package is gone, it may be left, and keeps nobody from freezing.
	mkdir -p "$work/empty" && PATH=$work/empty "$work/root/$hook" freeze
}

echo "TAP version 13"
are_clean "$FILES/packages"
result $? "lintian has nothing to say"
are_clean "$FILES/kernel"
result $? "lintian has nothing to say of the packages for a kernel"
have_the_version
result $? "the version is that of Cargo.toml"
share_no_file
result $? "no file is in two packages"
library_has_a_soname
result $? "the library's package and soname"
library_has_symbols
result $? "the library's symbols are listed"
are_for_one_kernel
result $? "what belongs to a kernel depends on its version"
module_is_for_the_kernel
result $? "the module is for its kernel"
crates_are_named
result $? "the copyright of crates is told"
hook_is_configuration
result $? "the hook of the QEMU guest agent is configuration"
nothing_is_enabled
result $? "nothing is enabled or started"
end_tests
