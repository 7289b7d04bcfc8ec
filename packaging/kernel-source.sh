#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Makes a Debian source tree with what belongs to one packaged kernel: the metadata of its Rust code,
# and our module for it.
#
# usage: kernel-source.sh DIRECTORY RELEASE VERSION ROOT TREE MODULE
#
# RELEASE is what uname -r says, and VERSION that of the kernel's packages. Below ROOT its headers
# package is unpacked, TREE is prepared by scripts/prepare-kernel.sh, and MODULE is built against
# that.
set -eu

if [ $# -ne 6 ] || [ -e "$1" ]; then
	echo "usage: $0 DIRECTORY RELEASE VERSION ROOT TREE MODULE (no DIRECTORY must be there yet)" >&2
	exit 2
fi
to=$1 release=$2 kernel_version=$3 headers=$4/usr/src/linux-headers-$2 tree=$5 module=$6
here=$(cd "$(dirname "$0")" && pwd)
umask 022

ours=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$here/../Cargo.toml" | head -n 1)
version=$ours+$kernel_version
rustc=$(sed -n 's/^CONFIG_RUSTC_VERSION_TEXT="\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$headers/include/config/auto.conf")
name=linux-lib-rust-$release

mkdir -p "$to/debian"
LINKS_TO=/usr/src/linux-headers-$release \
	"$here/dkms/kdir-of-links.sh" "$headers" "$tree" "$to/$name" "/usr/src/$name" "$kernel_version"
chmod -R u=rwX,go=rX "$to/$name"
strip --strip-debug -o "$to/sysgenid.ko" "$module"

fill_in() { # fill_in TEMPLATE NAME
	sed -e "s/@RELEASE@/$release/g; s/@KERNEL_VERSION@/$kernel_version/g; s/@VERSION@/$version/g" \
		-e "s/@RUSTC@/$rustc/" "$here/debian-kernel/$1" >"$to/debian/$2"
}
fill_in control.in control
fill_in modules.postinst "sysgenid-modules-$release.postinst"
fill_in modules.postrm "sysgenid-modules-$release.postrm"
fill_in metadata.lintian-overrides "$name.lintian-overrides"
fill_in modules.lintian-overrides "sysgenid-modules-$release.lintian-overrides"
cp "$here/debian-kernel/copyright" "$here/debian-kernel/rules" "$to/debian"
# Its date is that of our own version, so that the same is built again from the same.
{
	echo "sysgenid-kernel ($version) unstable; urgency=medium"
	echo
	echo "  * sysgenid $ours for version $kernel_version of Linux $release."
	echo
	sed -n '/^ -- /{p;q}' "$here/debian/changelog"
} >"$to/debian/changelog"
