#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The overseer's demo says of itself whether what it claims has held. Prints TAP.
#
# usage: LAB=/path/to/lab overseer_test.sh
set -u

. "$(dirname "$0")/../lab/tests/tap.sh"

echo "TAP version 13"
says "the claims of the overseer's demo hold" 0 "All of it held" "" \
	demo-overseer
end_tests
