#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A machine with Debian's QEMU guest agent, by which its hypervisor freezes it before it is saved, and
# thaws each of two clones. Prints TAP.
#
# usage: LAB=/path/to/lab FILES=DIR SCRATCH=DIR fsfreeze.sh (DIR/packages has the packages, DIR/kernel
#        those of the stock kernel, and DIR/guest-agent is the program that speaks to the agent)
set -u

. "$(dirname "$0")/systems.sh"

agent=org.qemu.guest_agent.0

# reported WHO PREFIX: what one of the programs says whose lines begin so, each test as one here
reported() {
	who=$1
	: >"$SCRATCH/tests"
	awk -v prefix="$2" 'index($0, prefix) == 1 { print substr($0, length(prefix) + 1) }' \
		"$SCRATCH/out" >"$SCRATCH/said"
	while read -r line; do
		case $line in
		"ok "*) result 0 "$who: ${line#ok * }" ;;
		"not ok "*) result 1 "$who: ${line#not ok * }" ;;
		1..*) echo "${line#1..}" >>"$SCRATCH/tests" ;;
		"# "*) echo "$line" ;;
		esac
	done <"$SCRATCH/said"
	[ "$(cat "$SCRATCH/tests")" = "$(grep -cE '^(not )?ok ' "$SCRATCH/said")" ]
	result $? "$who: all of it ran"
}

echo "TAP version 13"
made "a disk with the packages and the agent" \
	plain_system --image "$disk" --size 3G -- \
	sh -ec "apt-get install --yes --no-install-recommends /packages/sysgenid_*.deb \
			/packages/sysgenid-modules-*.deb
		rm -r /packages" || { end_tests; exit; }

# shellcheck disable=SC2016 # the shell at the port knows it
machine clone --clones 2 --add "$tests/../../selftests/sysgenctl_common.py:/common/sysgenctl_common.py" \
	--port "$agent=exec \"\$FILES/guest-agent\"" -- \
	env PYTHONPATH=/common python3 /tests/fsfreeze.py >"$SCRATCH/out" 2>"$SCRATCH/err" </dev/null ||
	{ diagnose "$SCRATCH/err"; false; }
result $? "it is saved, and its clones come to an end"
reported "guest" ""
reported "host" "$agent| "
for clone in clone1 clone2; do
	reported "guest, $clone" "$clone| "
	reported "host, $clone" "$clone| $agent| "
done
end_tests
