#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Makes a template of a Debian system without a compiler: installs the packages, and enables the units
# that give a clone an identity of its own. It runs as root, in that system.
#
# usage: template.sh PACKAGES (a directory with our packages, and those of the system's kernel)
set -eu

packages=$1
release=$(basename /lib/modules/*)
work=$(mktemp -d)

apt-get install --yes --no-install-recommends "$packages"/sysgenid_*.deb \
	"$packages"/libsysgenid0*.deb "$packages"/openssl-provider-sysgenid_*.deb \
	"$packages/sysgenid-modules-${release}"_*.deb
systemctl enable sysgenid-machine-id.service sysgenid-ssh-host-keys.service sysgenid-cold-clone.service
# It is a template for machines that are switched on, too.
cat /etc/ssh/ssh_host_*_key.pub | sha256sum >/root/keys-of-the-template
/usr/lib/sysgenid/cold-clone template

# Packages for the upgrade: the same files with a higher version, but for the module, which is told
# from the one before by its build ID.
mkdir /root/newer
for package in "$packages"/sysgenid_*.deb "$packages/sysgenid-modules-${release}"_*.deb; do
	tree=$work/tree
	dpkg-deb -R "$package" "$tree"
	sed -i 's/^Version: .*/&+newer/; s/^\(Provides: .*= [^)]*\)/\1+newer/' "$tree/DEBIAN/control"
	module=$(find "$tree" -name 'sysgenid.ko.xz')
	if [ -n "$module" ]; then
		unxz "$module"
		python3 - "${module%.xz}" <<-'END'
			import sys
			image = open(sys.argv[1], "rb").read()
			note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0"
			at = image.index(note) + len(note)
			image = image[:at] + bytes(byte ^ 255 for byte in image[at : at + 20]) + image[at + 20 :]
			open(sys.argv[1], "wb").write(image)
		END
		xz --check=crc32 "${module%.xz}"
		(cd "$tree" && find usr -type f -exec md5sum {} + >DEBIAN/md5sums)
	fi
	dpkg-deb -b -Znone "$tree" /root/newer
	rm -r "$tree"
done
rm -r "$packages" "$work"
