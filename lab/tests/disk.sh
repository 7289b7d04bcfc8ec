#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A machine that boots from a disk: a small Debian system with a packaged kernel, and clones of it,
# which write to disks of their own. Prints TAP.
#
# shellcheck disable=SC2016 # the guest's shell expands these
#
# usage: LAB=/path/to/lab SCRATCH=/path/to/directory disk.sh
set -u

. "$(dirname "$0")/tap.sh"

disk=$SCRATCH/disk
echo 'a file' >"$SCRATCH/added"

# One service of it fails, so that somebody has to tell.
make_disk() {
	"$LAB" system --package systemd-sysv --package udev --package initramfs-tools \
		--package linux-image-cloud-amd64/trixie-backports --image "$disk" --size 2G -- \
		sh -ec '
			cat >/etc/systemd/system/broken.service <<-END
				[Service]
				ExecStart=/bin/false
				[Install]
				WantedBy=multi-user.target
			END
			systemctl enable broken.service
			touch /var/tmp/left
			for kernel in /boot/vmlinuz-*; do echo "${kernel#/boot/vmlinuz-}"; done
		' >"$SCRATCH/release" 2>"$SCRATCH/err" || { diagnose "$SCRATCH/err"; false; }
}

echo "TAP version 13"
make_disk
result $? "a system becomes a disk"
[ -e "$disk" ] || {
	end_tests
	exit
}
release=$(cat "$SCRATCH/release")
before=$(sha256sum "$disk")

says "it boots with its own kernel and init, and the command has its exit status" 7 \
	"$release systemd a file 0 word=1$NL" "units that failed: broken.service" \
	run --disk "$disk" --append word=1 --add "$SCRATCH/added:/opt/new/added" -- \
	sh -c 'echo "$(uname -r) $(cat /proc/1/comm) $(cat /opt/new/added)" \
		"$(id -u) $(grep -o word=1 /proc/cmdline)"
	# Nothing is there of what had made it.
	for file in /usr/sbin/policy-rc.d /etc/resolv.conf /etc/apt/apt.conf.d/99mmdebstrap \
		/etc/dpkg/dpkg.cfg.d/99mmdebstrap /var/tmp/left /var/lib/apt/lists/lock; do
		! test -e "$file" || { echo "$file" >&2; exit 1; }
	done
	mount | grep -q "^/dev/vda on / type ext4 (rw" || exit 2
	echo changed >/etc/hostname
	exit 7'

# A report of the kernel fails the clones in the end. Each number is as long as the others.
"$LAB" clone --disk "$disk" -- sh -c '
	cat /etc/hostname
	test -s /etc/machine-id && echo same >/same && sync
	echo READY
	echo 3 >/proc/sys/vm/drop_caches
	cat /same
	mine=$(cat /proc/sys/kernel/random/uuid)
	echo "$mine" >/mine
	head -c 8388608 /dev/urandom >/big
	sum=$(sha256sum /big)
	sync
	echo 3 >/proc/sys/vm/drop_caches
	[ "$(cat /mine)" = "$mine" ] && [ "$(sha256sum /big)" = "$sum" ] && echo "mine $sum"
	echo "<4>WARNING: a test" >/dev/kmsg' >"$SCRATCH/out" 2>"$SCRATCH/err"
status=$?
{
	[ "$(grep -c '^clone[12]| same$' "$SCRATCH/out")" = 2 ] &&
	[ "$(grep '^clone[12]| mine ' "$SCRATCH/out" | sort -u -k 3 | wc -l)" = 2 ] &&
	grep -qx debian "$SCRATCH/out"
} || { diagnose "$SCRATCH/out" "$SCRATCH/err"; false; }
result $? "two clones have what was written before, and write to disks of their own"
{ [ "$status" = 125 ] && has "$SCRATCH/err" "the kernel reports a problem"; } ||
	{ diagnose "$SCRATCH/err"; false; }
result $? "a report of the kernel fails them"

[ "$(sha256sum "$disk")" = "$before" ]
result $? "the disk is as it was"

for option in --kernel=stock --no-module --userspace --systemd --boot; do
	says "$option, which such a machine has not" 2 "" "cannot be used with" \
		run --disk "$disk" "$option" -- true
done
says "a kernel without a disk" 2 "" "--disk" \
	run --disk-kernel 7.3 -- true
says "a kernel that is not on it" 125 "" "there is no kernel 1.0 on the disk; it has $release" \
	run --disk "$disk" --disk-kernel 1.0 -- true
says "a disk that does not exist" 125 "" "--disk /no/such/file" \
	run --disk /no/such/file -- true
says "a file that is no disk" 125 "" "it is no file system of the kind ext4" \
	run --disk "$SCRATCH/added" -- true
end_tests
