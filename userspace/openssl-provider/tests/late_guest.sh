#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# late_guest.sh MODULE: a program that was started before the module is loaded. Prints TAP.

export OPENSSL_CONF=/etc/ssl/sysgenid.cnf SYSGENID_OPENSSL_DEBUG=1

. "$(dirname "$0")/result.sh"

a_device_that_comes_later_is_heeded() {
	mkfifo /tmp/go
	/openssl_provider_test --late </tmp/go >/tmp/out 2>/tmp/err &
	exec 3>/tmp/go
	until grep -q '^waiting$' /tmp/out; do sleep 0.1; done
	insmod "$1"
	exec 3>&-
	wait $! && grep -q ': on, for the device is there now$' /tmp/err
}

echo 'TAP version 13'
: >/tmp/out
: >/tmp/err
a_device_that_comes_later_is_heeded "$1"
result $? a_device_that_comes_later_is_heeded
echo "1..$number"
