#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# make install and make uninstall, into a system that is a directory here: what was built is made
# up, because nothing may be built. Prints TAP.
#
# usage: install.sh
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

checkout=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT
built=$work/target
system=$work/system

# front_door VERB VARIABLES...: whoever calls a compiler, or what a compiler needs, fails.
front_door() {
	make -C "$checkout" "$@" CARGO=false CBINDGEN=false STRIP=false CARGO_TARGET_DIR="$built" \
		PREFIX="$system/usr/local" SYSCONFDIR="$system/etc" LIBEXECDIR="$system/usr/lib/sysgenid" \
		UDEVDIR="$system/usr/lib/udev" UNITDIR="$system/usr/lib/systemd/system" \
		PRESETDIR="$system/usr/lib/systemd/system-preset" \
		MODULESLOADDIR="$system/usr/lib/modules-load.d" SYSUSERSDIR="$system/usr/lib/sysusers.d" \
		OSSLMODULESDIR="$system/usr/lib/ossl-modules" \
		SYSGENID_ROOT="$system" \
		>"$work/out" 2>"$work/err" || { diagnose "$work/out" "$work/err"; return 1; }
}

listed() { # listed: all that there is, with modes and contents
	find "$system" -printf '%M %P %l\n' | LC_ALL=C sort
	find "$system" -type f -exec sha256sum {} + | LC_ALL=C sort
}

same() { # same BEFORE AFTER
	diff "$1" "$2" >"$work/diff" || { diagnose "$work/diff"; return 1; }
}

# Some of what others have is there, and empty directories among it.
mkdir -p "$system/usr/local/bin" "$system/usr/local/share/man" "$system/etc/systemd/system" \
	"$system/etc/ssl" "$system/usr/lib/udev/rules.d"
# It runs, and its generation has changed before.
mkdir -p "$system/run/systemd/system" "$system/run/sysgenid" "$system/proc/self/fdinfo" "$system/dev" \
	"$system/sys/class/misc/sysgenid" "$system/var/lib/sysgenid"
printf 'sysgenid-generation:\t3\nsysgenid-epoch:\t4\nsysgenid-source:\tvmgenid\n' >"$system/proc/self/fdinfo/0"
: >"$system/dev/sysgenid"
echo other >"$system/usr/local/bin/other"
echo other >"$system/etc/ssl/openssl.cnf"

refuses_what_is_not_built() {
	! front_door install >/dev/null || { echo "# it installed what is not there"; return 1; }
	has "$work/err" "run make userspace first" || { diagnose "$work/err"; return 1; }
	[ ! -e "$system/usr/local/bin/sysgenctl" ]
}

# wants PART PROGRAM PACKAGE VARIABLES...: it cannot be built, and the last word says why.
wants() {
	part=$1 program=$2 package=$3
	shift 3
	! make -C "$checkout/userspace" "$part" CARGO_TARGET_DIR="$work/none" "$@" >"$work/out" 2>"$work/err" ||
		{ echo "# $part is built without $program"; return 1; }
	has "$work/err" "$part wants the program $program, which is not here (on Debian: apt-get install $package" ||
		{ diagnose "$work/err"; return 1; }
}

says_what_a_part_wants() {
	wants sysgenctl no-cargo cargo CARGO=no-cargo &&
		wants openssl-provider no-cargo cargo CARGO=no-cargo || return
	# The header is a part of it.
	! make -C "$checkout/userspace" libsysgenid CARGO_TARGET_DIR="$work/none" CBINDGEN=no-cbindgen \
		>"$work/out" 2>"$work/err" || return
	has "$work/err" "wants the program no-cbindgen" || { diagnose "$work/err"; return 1; }
	# All programs but one.
	mkdir "$work/bin" && ln -s /usr/bin/* "$work/bin" && rm "$work/bin/bindgen" || return
	PATH=$work/bin wants openssl-provider bindgen bindgen CARGO=true || return
	printf '#!/bin/sh\nfalse\n' >"$work/bin/bindgen" && rm "$work/bin/pkg-config" &&
		printf '#!/bin/sh\nfalse\n' >"$work/bin/pkg-config" &&
		chmod +x "$work/bin/bindgen" "$work/bin/pkg-config" || return
	! PATH=$work/bin make -C "$checkout/userspace" openssl-provider CARGO=true >"$work/out" 2>"$work/err" ||
		return
	has "$work/err" "wants the headers of OpenSSL 3 (on Debian: apt-get install libssl-dev)" ||
		{ diagnose "$work/err"; return 1; }
}

build() {
	for file in release/sysgenctl release/libsysgenid_openssl_provider.so linked/libsysgenid.so \
		linked/libsysgenid.a gnutls/gnutls.so include/sysgenid.h manual/man/sysgenctl.8 \
		manual/completions/sysgenctl.bash manual/completions/sysgenctl.fish \
		manual/completions/_sysgenctl; do
		mkdir -p "$built/${file%/*}" && echo "$file" >"$built/$file" || return
	done
}

installs_all() {
	front_door install || return
	for file in usr/local/bin/sysgenctl usr/lib/udev/rules.d/60-sysgenid.rules etc/sysgenid/post.d \
		etc/qemu/fsfreeze-hook.d/sysgenid \
		usr/lib/ossl-modules/sysgenid.so usr/lib/systemd/system/sysgenid-hooks.service \
		usr/lib/systemd/system/sysgenid-serve.service usr/lib/systemd/system/sysgenid-serve.socket \
		usr/lib/systemd/system/ssh.service.d/zz-sysgenid-ssh-fence.conf \
		usr/lib/modules-load.d/sysgenid.conf usr/lib/sysusers.d/sysgenid.conf usr/local/share/sysgenid/hooks/hostname; do
		[ -e "$system/$file" ] || { echo "# there is no $file"; return 1; }
	done
	! grep -r '@[A-Z]*@' "$system" | diagnose | grep . || return
	for words in "systemctl daemon-reload" "udevadm control --reload" "udevadm trigger" ldconfig; do
		has "$work/out" "$words" || { echo "# it does not say: $words"; return 1; }
	done
}

# What has changed before is no reason to act, once the rule is there; and is another day's, once it is gone.
is_no_change() {
	served=$(cat "$system/run/sysgenid/served")
	[ "$served" = "$(stat -c %i "$system/sys/class/misc/sysgenid") 4 3" ] || { echo "# served: $served"; return 1; }
}

# The library's name is the same in the link and in the library, by the version.
has_a_soname() {
	libraries=$(find "$system" -name 'libsysgenid.so*' -printf '%f %l\n' | LC_ALL=C sort)
	version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$checkout/Cargo.toml")
	case $version in
	0.*) soname=libsysgenid.so.${version%.*} ;;
	*) soname=libsysgenid.so.${version%%.*} ;;
	esac
	[ "$libraries" = "libsysgenid.so $soname${NL}$soname libsysgenid.so.$version${NL}libsysgenid.so.$version " ] ||
		{ echo "$libraries" | diagnose; return 1; }
}

keeps_what_was_changed() {
	echo "# mine" >>"$system/etc/ssl/sysgenid.cnf"
	front_door install || return
	has "$work/out" "sysgenid.cnf is not as it was installed" || { diagnose "$work/out"; return 1; }
	[ "$(tail -n 1 "$system/etc/ssl/sysgenid.cnf")" = "# mine" ] &&
		[ -e "$system/etc/ssl/sysgenid.cnf.new" ]
}

# Of an earlier version nothing stays, and what is used is replaced, and not written to.
replaces_an_earlier_version() {
	list=$system/usr/lib/sysgenid/installed
	echo old >"$system/usr/local/bin/old-name"
	echo "file - $system/usr/local/bin/old-name" >>"$list"
	inode=$(stat -c %i "$system/usr/local/bin/sysgenctl")
	front_door install || return
	[ ! -e "$system/usr/local/bin/old-name" ] || { echo "# it is still there"; return 1; }
	[ "$(stat -c %i "$system/usr/local/bin/sysgenctl")" != "$inode" ] ||
		{ echo "# the file was written to"; return 1; }
}

# Each file is on the disk before it takes its place, and then all directories are.
waits_for_the_disk() {
	mkdir "$work/recording" || return
	for name in sync mv; do
		# shellcheck disable=SC2016 # the program's own words
		printf '#!/bin/sh\necho "%s $*" >>%s/asked\nexec %s "$@"\n' $name "$work" "$(command -v $name)" \
			>"$work/recording/$name" && chmod +x "$work/recording/$name" || return
	done
	# It is asked what the fence keeps from being served, too.
	printf '#!/bin/sh\n' >"$work/recording/systemctl" && chmod +x "$work/recording/systemctl" || return
	PATH=$work/recording:$PATH front_door install || return
	awk '$1 == "file" { print $3 }' "$system/usr/lib/sysgenid/installed" >"$work/files"
	echo "$system/usr/lib/sysgenid/installed" >>"$work/files"
	while read -r file; do
		# One that was changed here stays, beside the new one.
		if [ -L "$file" ] || [ -e "$file.new" ]; then
			continue
		fi
		synced=$(grep -nxF "sync $file.part" "$work/asked" | cut -d : -f 1 | tail -n 1)
		moved=$(grep -nE "^mv -fT? $file.part $file\$" "$work/asked" | cut -d : -f 1)
		directory=$(grep -n "^sync .*${file%/*}\( \|\$\)" "$work/asked" | cut -d : -f 1 | tail -n 1)
		{ [ "${synced:-0}" -gt 0 ] && [ "${moved:-0}" -gt "$synced" ] && [ "${directory:-0}" -gt "$moved" ]; } ||
			{ echo "# $file: on the disk at ${synced:-no time}, moved at ${moved:-no time}," \
				"its directory at ${directory:-no time}"; return 1; }
	done <"$work/files"
}

removes_what_it_made() {
	units=$system/etc/systemd/system
	mkdir "$units/sysgenid-changed.target.wants" "$units/sysgenid-ssh-host-keys-failed.target.wants"
	ln -s "$system/usr/lib/systemd/system/sysgenid-clock.service" "$units/sysgenid-changed.target.wants"
	ln -s "$system/usr/lib/systemd/system/sysgenid-ssh-fence.service" \
		"$units/sysgenid-ssh-host-keys-failed.target.wants"
	echo >"$system/var/lib/sysgenid/ssh-fence"
	mkdir "$units/one.service.d"
	echo "# Written by sysgenctl unit --track" >"$units/one.service.d/zz-sysgenid-track.conf"
	# It does not matter with what variables it was installed.
	PATH=$work/recording:$PATH front_door uninstall || return
	listed >"$work/after"
	same "$work/before" "$work/after"
}

leaves_what_it_did_not_make() {
	front_door install || return
	echo hook >"$system/etc/sysgenid/changed.d/50-mine"
	front_door uninstall || return
	[ "$(cat "$system/etc/sysgenid/changed.d/50-mine")" = hook ] || return
	rm -r "$system/etc/sysgenid"
	listed >"$work/after"
	same "$work/before" "$work/after"
}

refuses_what_was_not_installed() {
	! front_door uninstall >/dev/null || { echo "# there was nothing to remove"; return 1; }
	has "$work/err" "has installed nothing here" || { diagnose "$work/err"; return 1; }
}

makes_a_package() {
	front_door install DESTDIR="$work/package" || return
	[ -e "$work/package$system/usr/local/bin/sysgenctl" ] || { echo "# not below DESTDIR"; return 1; }
	[ -z "$(find "$work/package" -name installed)" ] || { echo "# with a list of files"; return 1; }
	! has "$work/out" "udevadm" || { echo "# it says what to run, for a system that is not there"; return 1; }
	listed >"$work/after"
	same "$work/before" "$work/after"
}

echo "TAP version 13"
listed >"$work/before"
refuses_what_is_not_built
result $? "make install builds nothing, and says what is missing"
says_what_a_part_wants
result $? "a part is built alone, and says what it wants"
build || exit
installs_all
result $? "make install"
is_no_change
result $? "make install into a system that runs is no change"
has_a_soname
result $? "the library's soname"
keeps_what_was_changed
result $? "configuration that was changed stays"
replaces_an_earlier_version
result $? "an earlier version is replaced"
waits_for_the_disk
result $? "a file is on the disk before it takes its place"
removes_what_it_made
result $? "make uninstall leaves nothing"
leaves_what_it_did_not_make
result $? "make uninstall removes nothing else"
refuses_what_was_not_installed
result $? "make uninstall without make install"
makes_a_package
result $? "make install DESTDIR="
end_tests
