#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A machine on which the packages are installed, without a compiler: it boots, it is upgraded and
# cleaned, and it is a template that is resumed twice. Prints TAP.
#
# usage: LAB=/path/to/lab FILES=DIR SCRATCH=DIR template.sh (DIR/packages has the packages, and
#        DIR/kernel those of the stock kernel)
set -u

: "${LAB:?}" "${FILES:?}" "${SCRATCH:?}"
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../lab/tests/tap.sh"

work=$SCRATCH
disk=$work/disk

# took NAME COMMAND...: a test that the command succeeds, and what it wrote in "$work/out".
took() {
	name=$1
	shift
	"$@" >"$work/out" 2>"$work/err" </dev/null
	status=$?
	[ "$status" = 0 ] || diagnose "$work/out" "$work/err"
	result "$status" "$name"
	return "$status"
}

# shown COMMAND...: one whose own tests count, each as one here, and its end as one more.
shown() {
	what=$1
	shift
	"$@" >"$work/out" 2>"$work/err" </dev/null
	status=$?
	while read -r line; do
		case $line in
		"ok "*) result 0 "$what: ${line#ok * }" ;;
		"not ok "*) result 1 "$what: ${line#not ok * }" ;;
		"#"*) echo "$line" ;;
		esac
	done <"$work/out"
	[ "$status" = 0 ] || diagnose "$work/err"
	result "$status" "$what: exit status"
}

# What the clones say of NAME, one line for each.
said() {
	sed -n "s/^clone[0-9]*| # $1 //p" "$work/out"
}

# in_clones NAME: each of the two has its own, and neither has the template's
in_clones() {
	before=$(sed -n "s/^# $1 //p" "$work/out")
	both=$(said "$1")
	[ -n "$before" ] && [ "$(echo "$both" | wc -l)" = 2 ] &&
		[ "$(printf '%s\n' "$before" "$both" | sort -u | wc -l)" = 3 ]
	result $? "clones: each has its own $1"
}

echo "TAP version 13"
# No compiler, and no recommendation: what is installed is what the packages need.
shown "installed" "$LAB" system --image "$disk" --size 3G \
	--package systemd-sysv --package udev --package dbus --package openssl \
	--package openssh-server --package initramfs-tools --package python3 --package xz-utils \
	--package linux-image-cloud-amd64/trixie-backports \
	--add "$FILES/packages:/debs" --add "$FILES/kernel:/debs" --add "$here/template_system.sh:/template_system.sh" \
	-- sh /template_system.sh /debs
if [ ! -e "$disk" ]; then
	end_tests
	exit 1
fi

# The unit that loads what modules-load.d names is kept from running: udev alone loads the module.
shown "booted" "$LAB" run --disk "$disk" --append systemd.mask=systemd-modules-load.service \
	--add "$here/template_guest.sh:/root/template_guest.sh" -- sh /root/template_guest.sh booted
shown "no device" "$LAB" run --disk "$disk" --no-vmgenid \
	--add "$here/template_guest.sh:/root/template_guest.sh" -- sh /root/template_guest.sh no_device
shown "signatures" "$LAB" run --disk "$disk" --append module.sig_enforce=1 \
	--add "$here/template_guest.sh:/root/template_guest.sh" -- sh /root/template_guest.sh signatures
shown "upgraded" "$LAB" run --disk "$disk" \
	--add "$here/template_guest.sh:/root/template_guest.sh" -- sh /root/template_guest.sh upgraded

took "clones: they are resumed, and come to an end" "$LAB" clone --disk "$disk" --clones 2 \
	--add "$here/template_clone.py:/root/template_clone.py" -- \
	env OPENSSL_CONF=/etc/ssl/sysgenid.cnf python3 /root/template_clone.py
for name in machine-id ssh-host-keys openssl-random; do
	in_clones "$name"
done
[ "$(said disk | wc -l)" = 2 ] && [ "$(said disk | sort -u | wc -l)" = 2 ]
result $? "clones: neither sees what the other one has written"
end_tests
