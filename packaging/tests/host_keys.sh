#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What libexec/ssh-host-keys makes of the configuration of several versions of OpenSSH, with an sshd
# that only prints one. Prints TAP. The tests of the whole system do it with a real sshd.
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

script=$(cd "$(dirname "$0")/.." && pwd)/libexec/ssh-host-keys
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
printf '#!/bin/sh\ncat %s/configuration\n' "$work" >"$work/bin/sshd"
printf '#!/bin/sh\necho "$@" >>%s/asked\n' "$work" >"$work/bin/systemctl"
chmod +x "$work"/bin/*

# is_new NUMBER: it is another key, and both of its halves are
is_new() {
	! cmp -s "$work/old$1" "$work/key$1.pub" || return
	ssh-keygen -y -f "$work/key$1" | cut -d ' ' -f 1,2 >"$work/public"
	cut -d ' ' -f 1,2 "$work/key$1.pub" | cmp -s - "$work/public"
}

# replaces KEYWORD: the two keys that are there, and not the third one
replaces() {
	rm -f "$work"/key* "$work/asked"
	ssh-keygen -q -t ed25519 -N '' -f "$work/key1" && ssh-keygen -q -t ecdsa -b 384 -N '' -f "$work/key2" || return
	cp "$work/key1.pub" "$work/old1" && cp "$work/key2.pub" "$work/old2" || return
	{
		echo "$1agent none"
		for number in 1 2 3; do
			echo "$1 $work/key$number"
		done
		echo "$1algorithms ssh-ed25519"
	} >"$work/configuration"
	PATH=$work/bin:$PATH "$script" >"$work/log" 2>&1 || { diagnose "$work/log"; return 1; }
	for number in 1 2; do
		is_new "$number" || { echo "# key$number is not replaced"; diagnose "$work/log"; return 1; }
	done
	[ ! -e "$work/key3" ] && ssh-keygen -l -f "$work/key2" | grep -q '^384 .*(ECDSA)$' &&
		has "$work/asked" "reload-or-restart ssh.service"
}

is_an_error() { # is_an_error CONFIGURATION: without a host key in it
	echo "$1" >"$work/configuration"
	if PATH=$work/bin:$PATH "$script" >"$work/log" 2>&1; then
		diagnose "$work/log"
		return 1
	fi
	has "$work/log" "names no HostKey"
}

echo "TAP version 13"
replaces hostkey
result $? "keys are replaced, with keywords in small letters"
replaces HostKey
result $? "keys are replaced, with keywords as newer versions write them"
is_an_error "port 22"
result $? "a configuration that is not understood is an error"
end_tests
