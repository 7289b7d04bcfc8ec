#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# How a run can end, and what the lab exits with then. Prints TAP.
#
# shellcheck disable=SC2016 # the guest's shell expands these
#
# usage: LAB=/path/to/lab ends.sh
set -u

. "$(dirname "$0")/tap.sh"

echo "TAP version 13"
says "an unknown flag" 2 "" "unexpected argument '--bogus'" \
	run --bogus
says "no command" 2 "" "required" \
	run
says "an --add file that does not exist" 125 "" "/no/such/file: there is no such file" \
	run --add /no/such/file -- true
says "an unknown kernel" 125 "" "no sources for kernel 1.0" \
	run --kernel 1.0 -- true
says "the command's output and exit status" 7 "out$NL" "err$NL" \
	run -- sh -c 'echo out; echo err >&2; exit 7'
says "a command that a signal kills" 137 "" "killed by signal 9" \
	run --no-module -- sh -c 'kill -9 $$'
says "a command that is not there" 127 "" "bring it with --add" \
	run --no-module -- /no/such/command
says "a command that hangs" 124 "" "the console ends with" \
	run --no-module --limit 3 -- sleep 1000
says "a command that never says READY" 125 "NOT READY" "did not print a line READY" \
	clone --no-module -- echo "NOT READY"
says "an argument that QEMU does not know" 125 "" "-bogus: invalid option" \
	run --no-module --qemu-arg=-bogus -- true
end_tests
