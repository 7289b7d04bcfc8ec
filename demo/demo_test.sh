#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The demo says of itself whether what it claims has held. Prints TAP.
#
# usage: LAB=/path/to/lab demo_test.sh
set -u

. "$(dirname "$0")/../lab/tests/tap.sh"

echo "TAP version 13"
says "the demo's claims hold" 0 "All of it held" "" \
	demo
end_tests
