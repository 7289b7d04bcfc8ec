#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A machine whose kernel loads signed modules only, and does not know the key of DKMS, which has signed
# ours. Prints TAP.
set -u

# shellcheck source=../../../lab/tests/tap.sh
. "$(dirname "$0")/tap.sh"

log=$(mktemp) || exit

is_signed() {
	modinfo -F signer sysgenid >"$log" 2>&1
	grep -q DKMS "$log"
}

is_refused() {
	! modprobe sysgenid >"$log" 2>&1 && has "$log" "Key was rejected by service"
}

doctor_says_why() {
	sysgenctl doctor >"$log" 2>&1
	[ $? = 8 ] && has "$log" "installed, signed, and not loaded" && has "$log" "mokutil --import"
}

holds() { # holds NAME COMMAND
	"$2"
	status=$?
	[ "$status" = 0 ] || diagnose "$log"
	result "$status" "$1"
}

echo "TAP version 13"
holds "DKMS has signed the module" is_signed
holds "the kernel refuses it" is_refused
holds "doctor says what to do" doctor_says_why
end_tests
