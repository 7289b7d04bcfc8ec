#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Reports of the kernel fail a run, whatever the command says. Prints TAP.
#
# usage: LAB=/path/to/lab reports.sh
set -u

. "$(dirname "$0")/tap.sh"

report="the kernel reports a problem"

echo "TAP version 13"
says "a warning" 125 "fine" "$report" \
	run --no-module -- sh -c "echo '<4>WARNING: a test' > /dev/kmsg; echo fine"
says "a panic" 125 "" "$report" \
	run --no-module -- sh -c "echo c > /proc/sysrq-trigger; sleep 60"
end_tests
