#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# mandoc has nothing to say against the manual pages that are installed, and each has what people
# look for: the exit status, all arguments, and its neighbours. Prints TAP.
#
# usage: FILES=DIR manual_pages.sh (after make install PREFIX=/usr DESTDIR=DIR/installed)
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

checkout=$(cd "$(dirname "$0")/../.." && pwd)
pages=$FILES/installed/usr/share/man
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT
log=$work/log

are_clean() {
	[ -n "$(find "$pages" -type f)" ] || { echo "# there are no manual pages"; return 1; }
	find "$pages" -type f -exec mandoc -T lint -W warning {} + >"$log" 2>&1
	status=$?
	diagnose "$log"
	[ $status -eq 0 ] && [ ! -s "$log" ]
}

# Each page as people read it, without bold letters, in lines that are not broken: NAME.SECTION
render() {
	mkdir "$work/read" || return
	find "$pages" -type f >"$work/pages"
	while read -r page; do
		mandoc -T ascii -O width=1000 "$page" >"$log" && sed 's/.\x08//g' "$log" >"$work/read/${page##*/}" ||
			return
	done <"$work/pages"
}

# section PAGE NAME: what stands in that section
section() {
	awk -v name="$2" '/^[^ ]/ { inside = ($0 == name); next } inside' "$work/read/$1"
}

# each TEST [PAGES]: whether it is true of each page. It says why not.
each() {
	wrong=0
	for page in "$work"/read/${2:-*}; do
		"$1" "${page##*/}" || wrong=1
	done
	[ $wrong = 0 ]
}

says_how_it_ends() {
	section "$1" "EXIT STATUS" | grep -q . || { echo "# $1 has no EXIT STATUS"; return 1; }
}

# An option as OPTIONS has it, "-h, --help" or "--timeout <TIME>", is "-h|--help" or "--timeout TIME"
# in the synopsis. A word that has to be one of some is "some|others" there.
has_all_arguments() {
	synopsis=$(section "$1" SYNOPSIS | tr -s ' \n' ' ')
	# What explains an option is indented more, or stands behind it.
	section "$1" OPTIONS | sed -nE 's/^ {5,7}((-., )?--[a-z-]+( <[A-Z]+>)?|[[<][A-Z]+[]>]).*/\1/p' >"$work/options"
	[ -s "$work/options" ] || { echo "# $1 has no OPTIONS that are understood"; return 1; }
	lacks=0
	while read -r option; do
		said=$(echo "$option" | sed 's/, /|/; s/[<>]//g')
		case $said/$synopsis in
		-*/*"$said"[\ \]]*) ;;
		[!-]*/*[a-z]\|[a-z]* | [!-]*/*" $said "*) ;;
		*) lacks=1; echo "# the synopsis of $1 lacks $option:$synopsis" ;;
		esac
	done <"$work/options"
	[ $lacks = 0 ]
}

# Our own pages that it names, as NAME(SECTION), without itself.
names() { # names PAGE: of standard input
	grep -oE '\bsysgen(id|ctl)[a-z.-]*\([0-9]\)' | sed 's/(/./; s/)//' | grep -vxF "$1" | sort -u
}

knows_its_neighbours() {
	section "$1" "SEE ALSO" | names "$1" >"$work/also"
	{
		# What acts by itself, and what somebody calls.
		printf '%s\n' sysgenid-changed.target.7 sysgenctl.8 | grep -vxF "$1"
		names "$1" <"$work/read/$1"
	} | sort -u >"$work/named"
	alone=0
	while read -r named; do
		[ -e "$work/read/$named" ] || { alone=1; echo "# $1 names $named, which there is not"; }
		grep -qxF "$named" "$work/also" || { alone=1; echo "# the SEE ALSO of $1 lacks $named"; }
	done <"$work/named"
	[ $alone = 0 ]
}

# Without --merge, a clone that has got a machine ID does not show what was logged before.
shows_the_whole_journal() {
	! grep -rnE "journalctl [^|]*sysgenid" "$checkout/README.md" "$checkout/Documentation" \
		"$checkout/userspace/sysgenctl/man" "$checkout/packaging/README.md" | grep -v -e --merge | diagnose | grep .
}

echo "TAP version 13"
are_clean
result $? "manual pages"
render || exit
each says_how_it_ends '*.8'
result $? "each page of a command says how it ends"
each has_all_arguments '*.8'
result $? "each synopsis has all arguments"
each knows_its_neighbours
result $? "each page names its neighbours"
shows_the_whole_journal
result $? "the journal of a clone is shown from its beginning"
end_tests
