#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The sample hooks, each in a system that is a directory here, with programs that are made up: what
# they are asked to do is what counts, and that is looked at. Prints TAP.
#
# usage: sample_hooks.sh
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

hooks=$(cd "$(dirname "$0")/../hooks" && pwd)
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT

# program NAME: one that a hook finds, of standard input.
program() {
	{
		echo '#!/bin/sh'
		echo "root=$root state=$work/state"
		cat
	} >"$work/bin/$1" && chmod +x "$work/bin/$1"
}

# without PROGRAMS...: this machine has all that the system of this test has, but for these.
without() {
	for name in "$@"; do
		rm -f "$work/bin/$name"
	done
}

# a_system: a directory, and the programs that every system has. It begins each test.
a_system() {
	root=$work/root
	rm -rf "$root" "${work:?}/bin" "$work/state" "$work/log"
	mkdir -p "$root/etc" "$work/bin" "$work/state" || return
	for name in basename cat chmod chown cmp cut date find grep head mktemp mv printf readlink rm sed \
		sha256sum sh sort sync tail tr wc xargs; do
		ln -s "$(command -v "$name")" "$work/bin/$name" || return
	done
	printf 'exit 3\n' | program systemctl
}

# hook NAME [STATUS]: runs it, and nothing of this machine but what is in $work/bin.
hook() {
	PATH=$work/bin SYSGENID=1 SYSGENID_ROOT=$root "$hooks/$1" >"$work/log" 2>&1
	ended=$?
	[ $ended = "${2:-0}" ] && leaves_nothing && return
	echo "# $1: exit status $ended"
	diagnose "$work/log"
	return 1
}

leaves_nothing() {
	left=$(find "$root" -name '*.sysgenid*')
	[ -z "$left" ] || { echo "# it leaves $left"; return 1; }
}

said() { # said TEXT
	has "$work/log" "$1" || { echo "# it does not say: $1"; diagnose "$work/log"; return 1; }
}

is() { # is FILE TEXT
	[ "$(cat "$1")" = "$2" ] || { echo "# $1 has not \"$2\":"; diagnose "$1"; return 1; }
}

# stays FILE COMMAND...: whatever the command does, the file is the very same file.
stays() {
	file=$1
	shift
	before=$(stat -c '%i %a %Y' "$file"; cat "$file"; echo .)
	"$@" || return
	[ "$before" = "$(stat -c '%i %a %Y' "$file"; cat "$file"; echo .)" ] ||
		{ echo "# $file has changed"; diagnose "$file"; return 1; }
}

# --- hostname -----------------------------------------------------------------

a_host() {
	a_system || return
	mkdir "$root/etc/sysgenid" && printf '# how\n\n  web-????????  \n' >"$root/etc/sysgenid/hostname"
	echo 00000000000000000000000000000001 >"$root/etc/machine-id"
	echo template >"$root/etc/hostname"
	echo template >"$work/state/hostname"
	printf '127.0.0.1\tlocalhost\n127.0.1.1\ttemplate.example.org\ttemplate\n192.0.2.1\ttemplate\n' >"$root/etc/hosts"
	# shellcheck disable=SC2016 # the program expands it
	echo '[ $# = 0 ] || echo "$1" >"$state/hostname"; cat "$state/hostname"' | program hostname
}

has_a_name() { # has_a_name NAME: everywhere
	is "$root/etc/hostname" "$1" && is "$work/state/hostname" "$1" || return
	is "$root/etc/hosts" "$(printf '127.0.0.1\tlocalhost\n127.0.1.1\t%s.example.org\t%s\n192.0.2.1\ttemplate' "$1" "$1")"
}

hostname_is_the_machine_ids() {
	a_host && hook hostname || return
	one=$(cat "$root/etc/hostname")
	case $one in
	web-[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]) ;;
	*) echo "# it is $one"; return 1 ;;
	esac
	has_a_name "$one" && said "The host name was template, and is $one" || return
	# A clone of that one, whose machine ID has changed.
	echo 00000000000000000000000000000002 >"$root/etc/machine-id"
	hook hostname || return
	[ "$(cat "$root/etc/hostname")" != "$one" ] && has_a_name "$(cat "$root/etc/hostname")"
}

hostname_by_hostnamed() {
	a_host || return
	# shellcheck disable=SC2016 # the program expands it
	echo '[ "$1" = set-hostname ] && echo "$2" | tee "$root/etc/hostname" >"$state/hostname"; touch "$state/asked"' |
		program hostnamectl
	ln -s "$(command -v tee)" "$(command -v touch)" "$work/bin"
	hook hostname && [ -e "$work/state/asked" ] && has_a_name "$(cat "$root/etc/hostname")" || return
	# One that does nothing, and says that it has.
	a_host && echo 'exit 0' | program hostnamectl || return
	hook hostname 1 && said "the kernel's host name is template still"
}

hostname_stays_with_the_machine_id() {
	a_host && hook hostname || return
	stays "$root/etc/hostname" hook hostname && said "already, as this machine ID has it" &&
		said "is sysgenid-machine-id.service enabled?"
}

hostname_refuses() {
	a_host && without hostname && stays "$root/etc/hostname" hook hostname 1 &&
		said "there is no program hostname" || return
	a_host && rm "$root/etc/sysgenid/hostname" && stays "$root/etc/hostname" hook hostname 1 &&
		said "which has the pattern" || return
	for wrong in web web-??? -???? 'a b????' 'web-????;id' '????.' \
		a-name-that-is-much-longer-than-any-kernel-would-let-a-machine-have-????; do
		a_host && echo "$wrong" >"$root/etc/sysgenid/hostname" &&
			stays "$root/etc/hostname" hook hostname 1 && said "etc/sysgenid/hostname has" || return
	done
	for wrong in '' uninitialized 0000; do
		a_host && echo "$wrong" >"$root/etc/machine-id" && stays "$root/etc/hostname" hook hostname 1 &&
			said "has no machine ID" || return
	done
}

# --- iscsi-initiator ----------------------------------------------------------

an_initiator() {
	a_system || return
	initiator=$root/etc/iscsi/initiatorname.iscsi
	mkdir "$root/etc/iscsi" && printf '## DO NOT EDIT\nInitiatorName=iqn.1993-08.org.debian:01:0123456789ab\n' >"$initiator" &&
		chmod 600 "$initiator" || return
	# shellcheck disable=SC2016 # the program expands it
	echo 'echo "$2:$$"' | program iscsi-iname
}

initiator_is_another() {
	an_initiator && chmod 640 "$initiator" && hook iscsi-initiator || return
	if ! grep -Eqx 'InitiatorName=iqn\.1993-08\.org\.debian:01:[0-9]+' "$initiator" ||
		! grep -qx '## DO NOT EDIT' "$initiator" || [ "$(stat -c %a "$initiator")" != 640 ]; then
		diagnose "$initiator"
		return 1
	fi
	said "The initiator name was iqn.1993-08.org.debian:01:0123456789ab, and is iqn.1993-08.org.debian:01:" || return
	first=$(cat "$initiator")
	hook iscsi-initiator && [ "$(cat "$initiator")" != "$first" ] || return
	# The daemon reads it when it starts.
	# shellcheck disable=SC2016 # the program expands it
	echo 'echo "$@" >>"$state/asked"' | program systemctl
	hook iscsi-initiator && has "$work/state/asked" "restart iscsid.service"
}

initiator_refuses() {
	an_initiator && without iscsi-iname && stays "$initiator" hook iscsi-initiator 1 &&
		said "there is no program iscsi-iname" || return
	an_initiator && echo 'echo iqn.1993-08.org.debian:01:0123456789ab' | program iscsi-iname &&
		stays "$initiator" hook iscsi-initiator 1 && said "made the old name again" || return
	an_initiator && echo 'echo usage' | program iscsi-iname && stays "$initiator" hook iscsi-initiator 1 &&
		said "which is no name" || return
	an_initiator && echo '# none' >"$initiator" && stays "$initiator" hook iscsi-initiator 1 &&
		said "has no InitiatorName" || return
	an_initiator && echo 'GenerateName=yes' >"$initiator" && stays "$initiator" hook iscsi-initiator &&
		said "has no name yet" || return
	a_system && hook iscsi-initiator && said "is no iSCSI initiator"
}

initiator_names_what_is_left() {
	an_initiator && mkdir -p "$root/sys/class/iscsi_session/session1" || return
	echo iqn.1993-08.org.debian:01:0123456789ab >"$root/sys/class/iscsi_session/session1/initiatorname"
	touch "$root/etc/iscsi/iscsi.initramfs"
	hook iscsi-initiator 1 && said "as those of other clones do: 1" && said "update-initramfs -u" &&
		! grep -q 0123456789ab "$initiator"
}

# --- nvme-host ----------------------------------------------------------------

prefix=nqn.2014-08.org.nvmexpress:uuid:
firmware=0a3fd1bc-11f6-4b6e-8a1c-5a0d5ba70001

an_nvme_host() {
	a_system || return
	mkdir -p "$root/etc/nvme" "$root/sys/class/dmi/id" || return
	echo "$prefix$firmware" >"$root/etc/nvme/hostnqn"
	echo 55555555-0000-4000-8000-000000000000 >"$root/etc/nvme/hostid"
	echo "$firmware" | tr '[:lower:]' '[:upper:]' >"$root/sys/class/dmi/id/product_uuid"
	# As the real one does in a virtual machine.
	echo "echo $prefix$firmware" | program nvme
}

# is_new OLD: the NQN is another one, and the ID is its UUID.
is_new() {
	nqn=$(cat "$root/etc/nvme/hostnqn")
	case $nqn in
	"$1") echo "# it is the old one: $nqn"; return 1 ;;
	"$prefix"????????-????-????-????-????????????) is "$root/etc/nvme/hostid" "${nqn#"$prefix"}" ;;
	*) echo "# it is $nqn"; return 1 ;;
	esac
}

nvme_host_is_not_the_firmwares() {
	an_nvme_host && hook nvme-host && is_new "$prefix$firmware" && said "The host NQN was $prefix$firmware, and is $nqn" || return
	# The second run meets another name, and the firmware says what it always said.
	first=$nqn
	hook nvme-host && is_new "$prefix$firmware" && is_new "$first" || return
	# A firmware that tells nvme what it does not tell others, as a device tree does.
	an_nvme_host && rm "$root/sys/class/dmi/id/product_uuid" && echo "$prefix$first" >"$root/etc/nvme/hostnqn" &&
		hook nvme-host && is_new "$prefix$firmware"
}

nvme_host_of_random_numbers() {
	an_nvme_host || return
	# shellcheck disable=SC2016 # the program expands it
	echo 'n=$(($(cat "$state/n" 2>/dev/null || echo 0) + 1)); echo $n >"$state/n"
		[ "$*" = gen-hostnqn ] && echo "'$prefix'00000000-0000-4000-8000-00000000000$n"' | program nvme
	rm "$root/etc/nvme/hostid" && hook nvme-host && is "$root/etc/nvme/hostnqn" "${prefix}00000000-0000-4000-8000-000000000001" &&
		is "$root/etc/nvme/hostid" 00000000-0000-4000-8000-000000000001 && said "The host ID was none"
}

nvme_host_refuses() {
	an_nvme_host && without nvme && stays "$root/etc/nvme/hostid" stays "$root/etc/nvme/hostnqn" hook nvme-host 1 &&
		said "there is no program nvme" || return
	an_nvme_host && echo 'echo ERROR' | program nvme && stays "$root/etc/nvme/hostid" \
		stays "$root/etc/nvme/hostnqn" hook nvme-host 1 && said "which is no host NQN" || return
	a_system && hook nvme-host && said "is no host of NVMe over Fabrics"
}

nvme_host_names_what_is_left() {
	an_nvme_host && mkdir -p "$root/sys/class/nvme/nvme0" "$root/sys/class/nvme/nvme1" || return
	echo "$prefix$firmware" >"$root/sys/class/nvme/nvme1/hostnqn"
	echo '[ { "hostnqn": "of its own" } ]' >"$root/etc/nvme/config.json"
	hook nvme-host 1 && said "as those of other clones do: 1" && said "config.json as well" && is_new "$prefix$firmware"
}

# --- random-seed --------------------------------------------------------------

a_seed() {
	a_system || return
	seed=$root/var/lib/systemd/random-seed
	mkdir -p "$root/var/lib/systemd" "$root/usr/lib/systemd" && echo template >"$seed" && chmod 600 "$seed" || return
	# shellcheck disable=SC2016 # the program expands it
	echo '[ "$1" = save ] && echo "$$" >"$root/var/lib/systemd/random-seed"' | program systemd-random-seed
	mv "$work/bin/systemd-random-seed" "$root/usr/lib/systemd"
}

seed_is_another() {
	a_seed && hook random-seed && said "There is a new seed in $seed" || return
	first=$(cat "$seed")
	[ "$first" != template ] && hook random-seed && [ "$(cat "$seed")" != "$first" ] || return
	# That of systemd-boot is another one.
	mkdir -p "$root/boot/efi/loader" && echo template >"$root/boot/efi/loader/random-seed" || return
	# shellcheck disable=SC2016 # the program expands it
	echo '[ "$*" = "--quiet random-seed" ] && echo "$$" >"$root/boot/efi/loader/random-seed"' | program bootctl
	hook random-seed && said "There is a new seed in $root/boot/efi/loader/random-seed" &&
		! grep -q template "$root/boot/efi/loader/random-seed"
}

seed_refuses() {
	a_seed && rm "$root/usr/lib/systemd/systemd-random-seed" && stays "$seed" hook random-seed 1 &&
		said "systemd-random-seed, which writes the seed" || return
	a_seed && printf '#!/bin/sh\nexit 0\n' >"$root/usr/lib/systemd/systemd-random-seed" &&
		stays "$seed" hook random-seed 1 && said "is the template's still" || return
	a_seed && mkdir -p "$root/efi/loader" && echo template >"$root/efi/loader/random-seed" &&
		stays "$root/efi/loader/random-seed" hook random-seed 1 && said "there is no program bootctl" || return
	a_system && hook random-seed && said "nothing is changed"
}

# --- credential-secret --------------------------------------------------------

a_secret() {
	a_system || return
	secret=$root/var/lib/systemd/credential.secret
	mkdir -p "$root/var/lib/systemd" "$root/etc/systemd/system" && echo template >"$secret" && chmod 400 "$secret" || return
	# It changes none that is there, as the real one.
	# shellcheck disable=SC2016 # the program expands it
	echo 'file=$root/var/lib/systemd/credential.secret
		[ "$1" = setup ] && { [ -e "$file" ] || echo "$$" >"$file"; }' | program systemd-creds
	printf '[Service]\nLoadCredential=plain\nImportCredential=many.*\n#LoadCredentialEncrypted=no\n' \
		>"$root/etc/systemd/system/a.service"
}

secret_is_another() {
	a_secret && hook credential-secret && said "There is a new secret in $secret" || return
	first=$(cat "$secret")
	[ "$first" != template ] && hook credential-secret && [ "$(cat "$secret")" != "$first" ] || return
	# A run that was interrupted, in either place.
	a_secret && mv "$secret" "$secret.sysgenid" && hook credential-secret && ! grep -q template "$secret" || return
	a_secret && echo older >"$secret.sysgenid" && hook credential-secret && ! grep -q 'template\|older' "$secret"
}

secret_refuses_what_needs_it() {
	for place in etc/credstore.encrypted usr/lib/credstore.encrypted home/user/.config/credstore.encrypted; do
		a_secret && mkdir -p "$root/$place" && echo encrypted >"$root/$place/password" &&
			stays "$secret" hook credential-secret 1 && said "it stays as it is" && said "$place/password" || return
	done
	for line in LoadCredentialEncrypted=password:/srv/password 'SetCredentialEncrypted=password: abc'; do
		a_secret && printf '[Service]\n%s\n' "$line" >"$root/etc/systemd/system/b.service" &&
			stays "$secret" hook credential-secret 1 && said "etc/systemd/system/b.service" || return
	done
	# A unit that is linked to, among links that lead nowhere or to no unit.
	a_secret && mkdir "$root/srv" && echo SetCredentialEncrypted=x:y >"$root/srv/c.service" &&
		ln -s "$root/srv/c.service" "$root/etc/systemd/system" && ln -s /dev/null "$root/etc/systemd/system/d.service" &&
		ln -s nowhere "$root/etc/systemd/system/e.service" && stays "$secret" hook credential-secret 1 &&
		said "etc/systemd/system/c.service" || return
	rm "$root/etc/systemd/system/c.service" && hook credential-secret || return
	# Users' own units count, and not what their links lead to.
	a_secret && mkdir -p "$root/home/user/.config/systemd/user" "$root/srv" &&
		echo SetCredentialEncrypted=x:y >"$root/srv/c.service" &&
		ln -s "$root/srv" "$root/home/user/.config/systemd/user/all" && mkdir -p "$root/home/other/.config" &&
		ln -s "$root/srv" "$root/home/other/.config/systemd" && hook credential-secret || return
	ln -s "$root/srv" "$root/home/other/.config/credstore.encrypted" && stays "$secret" hook credential-secret 1 &&
		said "See $root/home/other/.config/credstore.encrypted " || return
	rm "$root/home/other/.config/credstore.encrypted"
	echo SetCredentialEncrypted=x:y >"$root/home/user/.config/systemd/user/d.service" &&
		stays "$secret" hook credential-secret 1 && said "user/d.service"
}

secret_refuses() {
	a_secret && without systemd-creds && stays "$secret" hook credential-secret 1 &&
		said "there is no program systemd-creds" || return
	a_secret && echo 'exit 1' | program systemd-creds && hook credential-secret 1 &&
		said "the old one is in $secret again" && is "$secret" template || return
	a_system && hook credential-secret && said "it is made when it is needed first"
}

# --- all that are of the identity ---------------------------------------------

# keeps FILE HOOK: this machine is no template, or has not changed for a hypervisor.
keeps() {
	identity=$root/usr/lib/sysgenid/identity
	mkdir -p "${identity%/*}" || return
	# shellcheck disable=SC2016 # the program expands it
	printf '#!/bin/sh\necho "Not run: $1/no-template"\nexit 1\n' >"$identity"
	chmod +x "$identity"
	stays "$1" hook "$2" && said "Not run: $root/etc/sysgenid/no-template" || return
	before=$(cat "$1")
	printf '#!/bin/sh\nexit 0\n' >"$identity"
	hook "$2" && [ "$(cat "$1")" != "$before" ]
}

identity_is_kept() {
	a_host && keeps "$root/etc/hostname" hostname || return
	an_initiator && keeps "$initiator" iscsi-initiator || return
	an_nvme_host && keeps "$root/etc/nvme/hostnqn" nvme-host || return
	a_secret && keeps "$secret" credential-secret
}

echo "TAP version 13"
hostname_is_the_machine_ids
result $? "hostname: made from the machine ID, everywhere"
hostname_by_hostnamed
result $? "hostname: by hostnamectl, whose word is not taken for it"
hostname_stays_with_the_machine_id
result $? "hostname: the same for the same machine ID, which is said"
hostname_refuses
result $? "hostname: refuses what makes no name"
initiator_is_another
result $? "iscsi-initiator: another name each time"
initiator_refuses
result $? "iscsi-initiator: refuses what makes no other name"
initiator_names_what_is_left
result $? "iscsi-initiator: fails where a session has the old name"
nvme_host_is_not_the_firmwares
result $? "nvme-host: not what the firmware has in memory"
nvme_host_of_random_numbers
result $? "nvme-host: what nvme makes, where that is another one each time"
nvme_host_refuses
result $? "nvme-host: refuses what makes no other name"
nvme_host_names_what_is_left
result $? "nvme-host: fails where a connection has the old name"
seed_is_another
result $? "random-seed: another seed each time"
seed_refuses
result $? "random-seed: refuses where the seed would stay"
secret_is_another
result $? "credential-secret: another secret each time"
secret_refuses_what_needs_it
result $? "credential-secret: refuses where something is encrypted with it"
secret_refuses
result $? "credential-secret: loses none"
identity_is_kept
result $? "what keeps a machine's identity keeps these"
end_tests
