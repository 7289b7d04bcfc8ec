#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# How the tests of the provider in a guest say what came of them; they source it.

number=0

# result STATUS NAME: prints a line of TAP for the test NAME, and if STATUS is not 0 then before it what
# the test wrote to /tmp/out and /tmp/err.
result() {
	number=$((number + 1))
	if [ "$1" = 0 ]; then
		echo "ok $number $2"
	else
		sed 's/^/# /' /tmp/out /tmp/err
		echo "not ok $number $2"
	fi
}
