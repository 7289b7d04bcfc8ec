#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The packages in Debian systems, natively: no machine boots. Prints TAP.
#
# usage: LAB=/path/to/lab FILES=DIR SCRATCH=DIR system.sh dkms|prebuilt (DIR/packages has the packages,
#        DIR/kernel those of the stock kernel, and DIR/other those of another one, for dkms)
set -u

. "$(dirname "$0")/systems.sh"

case $1 in
dkms) compiler_system --add "$FILES/other:/packages" -- /tests/dkms.sh /packages ;;
prebuilt) plain_system -- /tests/prebuilt.sh /packages ;;
esac
