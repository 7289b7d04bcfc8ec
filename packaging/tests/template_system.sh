#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Installs the packages in a system without a compiler, and makes a template of it. Runs as root in
# that system, which does not run itself. Prints TAP.
#
# usage: template_system.sh DIRECTORY (in which the packages are)
set -u

debs=$1
release=$(basename /lib/modules/*)
number=0

check() { # check NAME STATUS
	number=$((number + 1))
	if [ "$2" = 0 ]; then
		echo "ok $number $1"
	else
		sed 's/^/# /' /tmp/log
		echo "not ok $number $1"
	fi
}

apt-get install -y --no-install-recommends "$debs"/sysgenid_*.deb "$debs"/libsysgenid0*.deb \
	"$debs"/openssl-provider-sysgenid_*.deb "$debs/sysgenid-modules-${release}"_*.deb \
	>/tmp/log 2>&1 </dev/null
check "apt installs them" $?
! command -v cc rustc dkms >/tmp/log
check "no compiler comes along" $?
modinfo -k "$release" -n sysgenid >/tmp/log 2>&1
check "the module is found" $?
find /etc/systemd/system -name '*sysgenid*' >/tmp/log
[ ! -s /tmp/log ]
check "no unit is enabled" $?
systemctl enable sysgenid-machine-id.service sysgenid-ssh-host-keys.service >/tmp/log 2>&1
check "units are enabled" $?

# Packages for the upgrade: the same files with a higher version, but for the module, which is told
# from the one before by its build ID.
newer() {
	for deb in "$debs"/sysgenid_*.deb "$debs/sysgenid-modules-${release}"_*.deb; do
		rm -rf /tmp/deb
		dpkg-deb -R "$deb" /tmp/deb &&
			sed -i 's/^Version: .*/&+newer/; s/^\(Provides: .*= [^)]*\)/\1+newer/' /tmp/deb/DEBIAN/control ||
			return
		module=$(find /tmp/deb -name 'sysgenid.ko.xz')
		if [ -n "$module" ]; then
			unxz "$module" && python3 - "${module%.xz}" <<-'END' && xz --check=crc32 "${module%.xz}" || return
			import sys
			image = open(sys.argv[1], "rb").read()
			note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0"
			at = image.index(note) + len(note)
			image = image[:at] + bytes(byte ^ 255 for byte in image[at : at + 20]) + image[at + 20 :]
			open(sys.argv[1], "wb").write(image)
			END
			(cd /tmp/deb && find usr -type f -exec md5sum {} + >DEBIAN/md5sums)
		fi
		dpkg-deb -b -Znone /tmp/deb /root/newer >/tmp/log 2>&1 || return
	done
}
mkdir /root/newer
newer
check "newer packages are made" $?
rm -rf "$debs" /template_system.sh /tmp/deb /tmp/log
