#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A machine in which our packages are installed, and whose hypervisor has no VMGenID: modules-load.d
# names the module. Prints TAP.
set -u

# shellcheck source=../../../lab/tests/tap.sh
. "$(dirname "$0")/tap.sh"

log=$(mktemp) || exit

succeeds() {
	"$@" >"$log" 2>&1 || { diagnose "$log"; return 1; }
}

echo "TAP version 13"
[ -d /sys/module/sysgenid ] && [ -c /dev/sysgenid ]
result $? "the module is loaded"
[ ! -e /dev/vmgenid ]
result $? "there is no ID"
succeeds sysgenctl trigger
result $? "somebody else can change the generation"
succeeds sysgenctl doctor
result $? "doctor has remarks at most"
end_tests
