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
SYSGENID_ROOT=$work/root
export SYSGENID_ROOT
mkdir -p "$work/bin" "$work/root/run/sysgenid"
# By which it is noted which machine this is.
identity=$work/root/run/sysgenid/identity.ssh-host-keys
cat >"$work/bin/sshd" <<END
#!/bin/sh
[ "\$1" != -G ] || [ ! -e $work/older ] || { echo "unknown option -- G" >&2; exit 1; }
# The older way wants the directory that a service has.
[ "\$1" != -T ] || [ -d $work/root/run/sshd ] || { echo "Missing privilege separation directory" >&2; exit 255; }
cat $work/configuration
END
printf '#!/bin/sh\necho "sync $*" >>%s/asked\n' "$work" >"$work/bin/sync"
printf '#!/bin/sh\necho "mv $*" >>%s/asked\n[ -e %s/immovable ] || exec /bin/mv "$@"\n' "$work" "$work" >"$work/bin/mv"
printf '#!/bin/sh\necho "$@" >>%s/asked\n[ ! -e %s/refuses ] || case $* in *reload*) exit 1 ;; esac\n' \
	"$work" "$work" >"$work/bin/systemctl"
chmod +x "$work"/bin/*

# is_new NUMBER: it is another key, and both of its halves are
is_new() {
	! cmp -s "$work/old$1" "$work/key$1.pub" || return
	ssh-keygen -y -f "$work/key$1" | cut -d ' ' -f 1,2 >"$work/public"
	cut -d ' ' -f 1,2 "$work/key$1.pub" | cmp -s - "$work/public"
}

# replaces KEYWORD: the two keys that are there, and not the third one
replaces() {
	rm -f "$work"/key* "$work/asked" "$identity"
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
	has "$work/log" "Skipped: there is no $work/key3" || { diagnose "$work/log"; return 1; }
	[ -e "$identity" ] || { echo "# it does not say that this machine has its own"; return 1; }
	[ ! -e "$work/key3" ] && ssh-keygen -l -f "$work/key2" | grep -q '^384 .*(ECDSA)$' &&
		has "$work/asked" "reload-or-restart ssh.service"
}

# Each half is on the disk before it takes its place.
is_synced() {
	replaces hostkey || return
	grep "$work/key1.sysgenid\|$work\$" "$work/asked" >"$work/order"
	printf '%s\n' "sync $work/key1.sysgenid" "mv -f $work/key1.sysgenid $work/key1" "sync $work" \
		"sync $work/key1.sysgenid.pub" "mv -f $work/key1.sysgenid.pub $work/key1.pub" "sync $work" >"$work/expected"
	head -n 6 "$work/order" | diff "$work/expected" - >"$work/diff" || { diagnose "$work/diff"; return 1; }
}

of_older_versions() {
	: >"$work/older"
	replaces hostkey
	status=$?
	rm "$work/older"
	return $status
}

# What takes a key's place is gone again.
that_does_not_stay() {
	: >"$work/immovable"
	! replaces hostkey >/dev/null
	status=$?
	rm "$work/immovable"
	{ [ $status = 0 ] && [ ! -e "$identity" ] && has "$work/log" "was replaced, and still is another one"; } ||
		{ diagnose "$work/log"; return 1; }
}

# All are skipped, so nothing was done: that is an error, but in a copy that boots the first time.
without_keys() {
	echo "hostkey $work/none" >"$work/configuration"
	if PATH=$work/bin:$PATH "$script" >"$work/log" 2>&1; then
		diagnose "$work/log"
		return 1
	fi
	has "$work/log" "none of the files that sshd has its host keys in" || { diagnose "$work/log"; return 1; }
	echo copied >"$work/root/run/sysgenid/cause"
	PATH=$work/bin:$PATH "$script" >"$work/log" 2>&1
	status=$?
	rm "$work/root/run/sysgenid/cause"
	{ [ $status = 0 ] && has "$work/log" "there are no host keys yet"; } || { diagnose "$work/log"; return 1; }
}

# Then sshd serves the old ones, and the next boot tries again.
that_are_not_served() {
	: >"$work/refuses"
	! replaces hostkey >"$work/said"
	result=$?
	rm "$work/refuses"
	[ $result -eq 0 ] && is_new 1 && [ ! -e "$identity" ]
}

# A copy without sshd has what it needs; where a machine that runs has none, it may have lost it.
without_sshd() {
	rm -f "$identity"
	mv "$work/bin/sshd" "$work/sshd"
	# Nothing else that is called so.
	path=$work/bin:$work/few
	mkdir -p "$work/few"
	for program in sh sed cat mkdir rm chmod; do
		ln -sf "$(command -v $program)" "$work/few/$program"
	done
	PATH=$path "$script" >"$work/log" 2>&1
	running=$?
	echo copied >"$work/root/run/sysgenid/cause"
	PATH=$path "$script" >"$work/log" 2>&1
	copied=$?
	rm "$work/root/run/sysgenid/cause"
	mv "$work/sshd" "$work/bin/sshd"
	if [ $running -eq 0 ] || [ $copied -ne 0 ] || [ ! -e "$identity" ]; then
		diagnose "$work/log"
		return 1
	fi
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
of_older_versions
result $? "keys are replaced, with an sshd that knows no -G"
is_synced
result $? "keys are on the disk before they take a place"
that_does_not_stay
result $? "a key that is not replaced is an error"
without_keys
result $? "without keys there is nothing to replace, and that is an error"
that_are_not_served
result $? "where sshd does not take them, this machine has no identity yet"
without_sshd
result $? "a copy without sshd needs no keys"
is_an_error "port 22"
result $? "a configuration that is not understood is an error"
end_tests
