#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A kernel that loads signed modules only, and what sysgenctl says of it. Prints TAP.
#
#	signed_test.sh sysgenid.ko signed.ko
#
# The first one is not signed, and the second one is the same, signed by the kernel's own key. Wants
# to be root, the parameter module.sig_enforce=1 for the kernel, and that no module is loaded.

set -u

if [ $# -ne 2 ]; then
	echo "Usage: $0 sysgenid.ko signed.ko" >&2
	exit 2
fi

DRIVER=$1
SIGNED=$2
MODULES=/lib/modules/$(uname -r)

. "$(dirname "$0")/module.sh"

# Puts a module where modprobe looks for it.
install_module()
{
	mkdir -p "$MODULES/updates" && cp "$1" "$MODULES/updates/sysgenid.ko" &&
		echo updates/sysgenid.ko: >"$MODULES/modules.dep"
}

# doctor_says TEXT: of the driver, which is not running
doctor_says()
{
	said=$(sysgenctl doctor | grep -E '^fault +driver ')
	case $said in
	*"$1"*) ;;
	*) fail "doctor says: $said" ;;
	esac
}

refused()
{
	! why=$(insmod "$1" 2>&1) || { fail "it was loaded"; return; }
	case $why in
	*"Key was rejected by service"*) ;;
	*) fail "insmod says: $why" ;;
	esac
}

unsigned_is_refused()
{
	[ "$(cat /sys/module/module/parameters/sig_enforce)" = Y ] ||
		{ fail "this kernel loads everything"; return; }
	refused "$DRIVER"
}

doctor_says_that_it_is_not_signed()
{
	install_module "$DRIVER" && doctor_says "installed and not signed, and this kernel loads"
}

# One byte in the middle is another one.
broken_signature_is_refused()
{
	half=$(($(wc -c <"$SIGNED") / 2))
	byte=$(tail -c +$((half + 1)) "$SIGNED" | head -c 1 | od -An -tu1)
	{
		head -c $half "$SIGNED"
		# shellcheck disable=SC2059 # an octal number
		printf "\\$(printf %o $(((byte + 1) % 256)))"
		tail -c +$((half + 2)) "$SIGNED"
	} >/tmp/broken.ko
	[ "$(cmp -l "$SIGNED" /tmp/broken.ko | wc -l)" -eq 1 ] ||
		{ fail "not just one byte is another one"; return; }
	refused /tmp/broken.ko
}

doctor_says_that_it_is_signed()
{
	install_module "$SIGNED" && doctor_says "installed, signed, and not loaded: modprobe sysgenid; if"
}

signed_is_loaded()
{
	insmod "$SIGNED" || { fail "it is refused"; return; }
	sysgenctl doctor | grep -qE '^ok +driver +running$' || fail "doctor says: $(sysgenctl doctor)"
}

run_tests unsigned_is_refused doctor_says_that_it_is_not_signed broken_signature_is_refused \
	doctor_says_that_it_is_signed signed_is_loaded
