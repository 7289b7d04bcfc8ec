#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A machine on which the packages are installed, without a compiler: it boots, it is upgraded and
# cleaned, and it is a template that is resumed twice. Prints TAP.
#
# usage: LAB=/path/to/lab FILES=DIR SCRATCH=DIR template.sh (DIR/packages has the packages, and
#        DIR/kernel those of the stock kernel)
set -u

. "$(dirname "$0")/systems.sh"

# What the clones say of NAME, one line for each.
said() {
	sed -n "s/^clone[0-9]*| # $1 //p" "$SCRATCH/out"
}

# in_clones NAME: each of the two has its own, and neither has the template's
in_clones() {
	before=$(sed -n "s/^# $1 //p" "$SCRATCH/out")
	both=$(said "$1")
	[ -n "$before" ] && [ "$(echo "$both" | wc -l)" = 2 ] &&
		[ "$(printf '%s\n' "$before" "$both" | sort -u | wc -l)" = 3 ]
	result $? "clones: each has its own $1"
}

# Where the module is not there, or no device, a machine is known by this.
firmware="--qemu-arg=-uuid --qemu-arg=5e2f4a7c-91b0-4d3e-8a6d-0c1b2f3e4d5c"

echo "TAP version 13"
made "a disk with the packages" \
	plain_system --image "$disk" --size 3G -- sh /tests/template.sh /packages ||
	{ end_tests; exit; }
# What loads modules by a list of names is switched off: the device brings ours, or the unit that looks
# for a copied disk.
boots "booted" --append systemd.mask=systemd-modules-load.service -- \
	sh -c "/tests/booted.sh updates cold-clone-note cold-clone machine-id ssh-host-keys && /tests/upgraded.sh"
# shellcheck disable=SC2086 # words
boots "no device" --no-vmgenid $firmware -- /tests/no_device.sh
# That unit is what an administrator sees who looks at the boot only.
# shellcheck disable=SC2086
shown "signatures" machine run $firmware --append module.sig_enforce=1 -- /tests/refused.sh unsigned
has "$SCRATCH/err" "units that failed: systemd-modules-load.service$NL" || { diagnose "$SCRATCH/err"; false; }
result $? "signatures: the unit that loads modules fails, and no other one"

machine clone --clones 2 -- env OPENSSL_CONF=/etc/ssl/sysgenid.cnf python3 /tests/clone.py \
	>"$SCRATCH/out" 2>"$SCRATCH/err" </dev/null || { diagnose "$SCRATCH/out" "$SCRATCH/err"; false; }
result $? "clones: they are resumed, and come to an end"
[ "$(said identity)" = "done done done${NL}done done done" ] || { said identity | diagnose; false; }
result $? "clones: who resumes them is answered when the units that give them an identity have ended"
for name in machine-id ssh-host-keys openssl-random; do
	in_clones "$name"
done
[ "$(said disk | wc -l)" = 2 ] && [ "$(said disk | sort -u | wc -l)" = 2 ]
result $? "clones: neither sees what the other one has written"
end_tests
