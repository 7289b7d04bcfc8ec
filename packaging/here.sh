#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Installs a tree into the running system, and keeps a list of what it made, so that no more and
# no less than that is removed again: not a directory that was there before, nor a file that
# somebody put into one.
#
# usage: here.sh install LIST SYSCONFDIR TREE
#        here.sh uninstall LIST SYSCONFDIR
#
# A line of the list is "directory - PATH" or "file CHECKSUM PATH".
set -eu

list=$2 sysconfdir=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -e "$list" ]; then
	cp "$list" "$work/old"
else
	: >"$work/old"
fi

checksum() { # checksum FILE
	sha256sum <"$1" | cut -d ' ' -f 1
}

# recorded KIND PATH: its checksum when it was installed, or nothing if it was not
recorded() {
	awk -v kind="$1" -v path="$2" '$1 == kind && $3 == path { print $2 }' "$work/old"
}

# is_changed PATH: whether it is configuration, and somebody's own by now
is_changed() {
	case $1 in
	"$sysconfdir"/*) [ -e "$1" ] && [ "$(checksum "$1")" != "$(recorded file "$1")" ] ;;
	*) return 1 ;;
	esac
}

# put FROM TO: in one step, so that a program that runs keeps the file that it has, and not before it
# is on the disk: after a loss of power there is the old one or the new one, and whole
put() {
	cp --no-dereference --preserve=mode "$1" "$2.part"
	[ -L "$2.part" ] || sync "$2.part"
	mv -fT "$2.part" "$2"
	sum=-
	[ -L "$1" ] || sum=$(checksum "$1")
	echo "file $sum $2" >>"$work/new"
}

install_tree() { # install_tree TREE
	# Before udev has the rule: no change that is older than this is to be acted on.
	if [ -d "${SYSGENID_ROOT-}/run/systemd/system" ]; then
		# /tmp may be a place where nothing is executed.
		sh "$1${list%/*}/changed" adopt ||
			echo "It is not noted that changes until now are none to act on" >&2
	fi
	: >"$work/new"
	find "$1" -mindepth 1 -type d -printf '/%P\n' | LC_ALL=C sort >"$work/directories"
	find "$1" ! -type d -printf '/%P\n' | LC_ALL=C sort >"$work/files"
	while read -r path; do
		if [ ! -d "$path" ]; then
			mkdir -m 755 "$path"
		elif [ -z "$(recorded directory "$path")" ]; then
			continue
		fi
		echo "directory - $path" >>"$work/new"
	done <"$work/directories"
	while read -r path; do
		if is_changed "$path" && ! cmp -s "$1$path" "$path"; then
			echo "$path is not as it was installed, and stays; the new one is $path.new"
			put "$1$path" "$path.new"
			sum=$(recorded file "$path")
			[ -z "$sum" ] || echo "file $sum $path" >>"$work/new"
		else
			put "$1$path" "$path"
		fi
	done <"$work/files"
	cp "$work/new" "$list.part"
	chmod 644 "$list.part"
	sync "$list.part"
	mv -f "$list.part" "$list"
	{ awk '{ print $3 }' "$work/new"; echo "$list"; } | sed 's,/[^/]*$,,' | sort -u | xargs sync
	# What an earlier version had, and this one has not.
	awk 'NR == FNR { new[$3] = 1; next } $1 == "file" && !($3 in new) { print $3 }' \
		"$work/new" "$work/old" | xargs -r rm -f
}

uninstall() {
	if [ ! -e "$list" ]; then
		echo "make install has installed nothing here: there is no $list, its list of files" \
			"(which lies in LIBEXECDIR, if that was given)" >&2
		exit 1
	fi
	# What serves SSH is not kept from it by what is gone.
	if [ -x "${list%/*}/ssh-fence" ]; then
		"${list%/*}/ssh-fence" lift >/dev/null ||
			echo "The fence around SSH host keys could not be lifted: sysgenid-changed.target(7)" >&2
	fi
	# Nor is any other unit kept from starting.
	if [ -x "${list%/*}/untrack" ]; then
		"${list%/*}/untrack"
	fi
	awk '$1 == "file" { print $3 }' "$work/old" | xargs -r rm -f
	# Whatever was enabled here is a link to a unit that is gone.
	find "$sysconfdir/systemd" -type l -lname '*/sysgenid-*' ! -exec test -e {} \; -delete \
		2>/dev/null || :
	rmdir "$sysconfdir/systemd/system/sysgenid-changed.target.wants" \
		"$sysconfdir/systemd/system/sysgenid-ssh-host-keys-failed.target.wants" 2>/dev/null || :
	rm "$list"
	# Whoever installs it again begins anew.
	rm -f "${SYSGENID_ROOT-}/run/sysgenid/served" "${SYSGENID_ROOT-}/run/sysgenid/cause"
	awk '$1 == "directory" { print $3 }' "$work/old" | tac | while read -r path; do
		[ ! -d "$path" ] || rmdir --ignore-fail-on-non-empty "$path"
	done
}

case $1 in
install) install_tree "$4" ;;
uninstall) uninstall ;;
esac
