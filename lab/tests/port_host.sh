#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# At the other end of the port: it answers what port.sh says. Prints TAP.
set -u

. ./tap.sh

hears() { # hears WORD
	read -r line
	[ "$line" = "$1" ] || { echo "# heard: $line"; return 1; }
}

echo "TAP version 13"
case $MACHINE in
booted)
	hears before
	result $? "the guest speaks before it is saved"
	echo "$VMGENID" >"$SCRATCH/id"
	echo booted >&0
	;;
resumed)
	echo "resumed $VMGENID" >&0
	hears after
	result $? "the guest speaks in the clone"
	[ -s "$SCRATCH/id" ]
	result $? "what the first one has left is there"
	;;
esac
end_tests
