#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A guest with Debian's user space has the programs that it is for. Prints TAP.
#
# usage: LAB=/path/to/lab userspace.sh
set -u

. "$(dirname "$0")/tap.sh"

echo "TAP version 13"
says "OpenSSL, Python and udev run" 0 "42$NL" "" \
	run --userspace -- sh -c \
	"openssl version && python3 -c 'print(6 * 7)' && udevadm --version && cat /proc/uptime"
end_tests
