#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Programs without unsafe code that would be unsound if the driver's abstractions let them
# be compiled. Prints TAP.
#
# Each program is a file beside this one. Its head has the errors that the compiler has to
# find, all of them and in their order. With --cfg sound it is the same program, but for what
# is unsound, and has to be compiled: so it is refused for nothing else.
#
# usage: KDIR=/path/to/the/kernel/tree unsound.sh
set -u

. "$(dirname "$0")/../../lab/tests/tap.sh"

: "${KDIR:?}"
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT

ln -s "$here"/*.rs "$here/../../abstractions" "$here/../../abstractions.rs" "$work" || exit
: >"$work/Kbuild" || exit
cat >"$work/common.rs" <<'END' || exit
mod abstractions;

kernel::prelude::module! {
    type: Root,
    name: "root",
    license: "GPL",
}

struct Root;

impl kernel::Module for Root {
    fn init(_module: &'static kernel::ThisModule) -> kernel::error::Result<Self> {
        Ok(Self)
    }
}
END

# compile "FLAG..." NAME...: compiles a module of the abstractions and these programs, as the
# kernel compiles all modules.
compile() {
	flags="-Aunused --error-format=short $1"
	shift
	{ cat "$work/common.rs" && printf 'mod %s;\n' "$@"; } >"$work/root.rs" &&
		make -s -C "$KDIR" M="$work" KRUSTFLAGS="$flags" root.o >"$work/log" 2>&1
}

is_refused() { # is_refused NAME
	sed -n 's,^// error,error,p' "$here/$1.rs" >"$work/expected"
	[ -s "$work/expected" ] || { echo "# its head has no error"; return 1; }
	! compile "" "$1" || { echo "# it was compiled"; return 1; }
	# FILE:LINE:COLUMN: error[CODE]: MESSAGE
	sed -n 's/^[^ ]*:[0-9]*:[0-9]*: \(error.*\)/\1/p' "$work/log" >"$work/found"
	cmp -s "$work/expected" "$work/found" || { diagnose "$work/log"; return 1; }
}

are_compiled() { # are_compiled NAME...
	compile "--cfg sound" "$@" || { diagnose "$work/log"; return 1; }
}

echo "TAP version 13"
set --
for program in "$here"/*.rs; do
	name=$(basename "$program" .rs)
	set -- "$@" "$name"
	is_refused "$name"
	result $? "refused: $name"
done
are_compiled "$@"
result $? "compiled: the same without what is unsound"
end_tests
