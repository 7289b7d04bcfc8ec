#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What the lab says where it cannot work: one line that names what is wrong and what to do,
# and status 125. Prints TAP.
#
# shellcheck disable=SC2016 # the inner shells expand these
#
# usage: refused.sh USER (as root; USER is an ordinary user who can read this checkout)
set -u

. "$(dirname "$0")/tap.sh"

lab=$(cd "$(dirname "$0")/.." && pwd)/lab
user=${1:?usage: refused.sh USER}
[ "$(id -u)" = 0 ] || {
	echo "1..0 # SKIP not root: other namespaces and another user's IDs are needed"
	exit 0
}
work=$(mktemp -d)
chmod 755 "$work"
mkdir -m 1777 "$work/cache"
export SYSGENID_CACHE="$work/cache"
trap 'rm -rf "$work"' EXIT

# refused NAME WORDS COMMAND...: the command ends with 125, and its last line has the words.
refused() {
	name=$1 words=$2
	shift 2
	"$@" >"$work/out" 2>&1
	status=$?
	{ [ "$status" = 125 ] && tail -n 1 "$work/out" | grep -qF -- "$words"; } || {
		echo "# status $status, without '$words':"
		diagnose "$work/out"
		false
	}
	result $? "$name"
}

# A search path without one of the commands in it.
without() {
	rm -rf "${work:?}/bin"
	mkdir "$work/bin"
	for file in /usr/sbin/* /usr/bin/*; do
		[ "${file##*/}" = "$1" ] || ln -sf "$file" "$work/bin/"
	done
	echo "$work/bin"
}

as_user() {
	setpriv --reuid "$user" --regid "$user" --clear-groups \
		env HOME="$work" SYSGENID_CACHE="$work/cache" "$@"
}

# Runs a command where /etc/subuid gives nothing to anybody.
without_ids() {
	unshare --mount sh -c 'mount --bind /dev/null /etc/subuid && exec "$@"' sh "$@"
}

# Runs a command as the user where the kernel lets nobody make a user namespace: in a chroot.
without_namespaces() {
	mkdir "$work/chroot"
	unshare --mount sh -c 'mount --rbind / "$0" && exec chroot --userspec="$1" "$0" "$2" run -- true' \
		"$work/chroot" "$user" "$lab"
}

on_a_small_disk() {
	unshare --mount sh -c 'mount -t tmpfs -o size=200m disk "$SYSGENID_CACHE" && exec "$@"' sh "$@"
}

echo "TAP version 13"
PATH_WITHOUT=$(without mmdebstrap)
refused "an ordinary user without mmdebstrap" "sudo apt-get install mmdebstrap" \
	as_user env PATH="$PATH_WITHOUT" "$lab" run -- true
PATH_WITHOUT=$(without newuidmap)
refused "an ordinary user without newuidmap" "sudo apt-get install uidmap" \
	as_user env PATH="$PATH_WITHOUT" "$lab" run -- true
refused "no subordinate IDs" "no subordinate IDs for $user" \
	without_ids setpriv --reuid "$user" --regid "$user" --clear-groups "$lab" run -- true
refused "no user namespaces" "user namespaces cannot be used here" \
	without_namespaces
refused "root without CAP_SYS_ADMIN" "cannot make a mount namespace" \
	setpriv --bounding-set -sys_admin --inh-caps -sys_admin "$lab" run -- true
refused "a cache that cannot be written" "SYSGENID_CACHE to a directory that you own" \
	as_user env SYSGENID_CACHE=/proc/nowhere "$lab" run -- true
refused "a small disk" "less than 8 GB free" \
	on_a_small_disk "$lab" run -- true
refused "no network" "no network" \
	unshare --net "$lab" run -- true
end_tests
