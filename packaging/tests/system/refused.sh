#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A machine whose kernel loads signed modules only, of keys that it knows. Ours is not signed, or by
# DKMS, whose key it does not know. Prints TAP.
#
# usage: refused.sh signed|unsigned (as the module is)
set -u

# shellcheck source=../../../lab/tests/tap.sh
. "$(dirname "$0")/tap.sh"

log=$(mktemp) || exit
case $1 in
signed) state="installed, signed, and not loaded" remedy="mokutil --import" ;;
unsigned) state="installed and not signed, and this kernel loads signed ones only" remedy= ;;
esac

is_as_said() {
	modinfo -F signer sysgenid >"$log" 2>&1 || return
	case $1 in
	signed) grep -q DKMS "$log" ;;
	unsigned) [ ! -s "$log" ] ;;
	esac
}

is_refused() {
	[ ! -e /sys/module/sysgenid ] || return
	! modprobe sysgenid >"$log" 2>&1 && has "$log" "Key was rejected by service"
}

doctor_says_why() {
	sysgenctl doctor >"$log" 2>&1
	[ $? = 8 ] && has "$log" "$state" && has "$log" "$remedy"
}

holds() { # holds NAME COMMAND...
	name=$1
	shift
	"$@"
	status=$?
	[ "$status" = 0 ] || diagnose "$log"
	result "$status" "$name"
}

echo "TAP version 13"
holds "the module is $1" is_as_said "$1"
holds "the kernel refuses it" is_refused
holds "doctor says what to do" doctor_says_why
end_tests
