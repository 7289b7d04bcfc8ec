#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The completions for bash can be loaded, and complete; those for other shells are where these
# look. Prints TAP.
#
# shellcheck disable=SC2016 # bash expands these
#
# usage: FILES=DIR completions.sh (after make install PREFIX=/usr DESTDIR=DIR/installed)
set -u

. "$(dirname "$0")/../../../lab/tests/tap.sh"

share=$FILES/installed/usr/share

is_whole() {
	[ -f "$share/$1" ] || { echo "# there is no $1"; return 1; }
	has "$share/$1" snapshot-hooks || { echo "# $1 is not whole"; return 1; }
}

bash_completes() {
	found=$(bash -c '
		. "$1" || exit
		COMP_WORDS=(sysgenctl snap)
		COMP_CWORD=1
		_sysgenctl sysgenctl snap sysgenctl
		echo "${COMPREPLY[@]}"' bash "$share/bash-completion/completions/sysgenctl") || return
	[ "$found" = snapshot-hooks ] || { echo "# bash completes \"snap\" to \"$found\""; return 1; }
}

echo "TAP version 13"
bash_completes
result $? "completions: bash"
is_whole fish/vendor_completions.d/sysgenctl.fish
result $? "completions: fish"
is_whole zsh/site-functions/_sysgenctl
result $? "completions: zsh"
end_tests
