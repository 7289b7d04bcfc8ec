#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Says whether a Rust module can be built against a kernel build tree, before the
# compiler says it in many more words.
#
# usage: check-kdir.sh KDIR [RUSTC]
#
# Exits with 0 if it can. Otherwise it prints the first reason why not, and what to
# do about it, on standard error, and exits with 1.

kdir=$1
rustc=${2:-rustc}

# refuse REASON REMEDY...
refuse() {
	echo "cannot build the module: $1" >&2
	shift
	for line in "$@"; do
		echo "  $line" >&2
	done
	exit 1
}

# config NAME: the value of CONFIG_NAME that the tree was prepared with, unquoted
config() {
	sed -n "s/^CONFIG_$1=\"\{0,1\}\([^\"]*\)\"\{0,1\}\$/\1/p" "$kdir/include/config/auto.conf"
}

if [ -z "$kdir" ]; then
	echo "usage: $0 KDIR [RUSTC]" >&2
	exit 2
fi

if [ ! -d "$kdir" ]; then
	refuse "there is no directory $kdir" \
		"Install the headers of the running kernel, or say KDIR=DIR, where DIR is the" \
		"directory in which a kernel with CONFIG_RUST=y was built."
fi

if [ ! -f "$kdir/Makefile" ]; then
	refuse "$kdir is not a kernel build tree (it has no Makefile)" \
		"Say KDIR=DIR, where DIR is the directory in which a kernel was built."
fi

if [ ! -f "$kdir/include/config/auto.conf" ]; then
	if [ ! -d "$kdir/scripts" ] && [ ! -d "$kdir/include" ]; then
		refuse "$kdir is not a kernel build tree (it has a Makefile, but is no kernel)" \
			"Say KDIR=DIR, where DIR is the directory in which a kernel was built."
	fi
	refuse "the kernel tree $kdir is not prepared (it has no include/config/auto.conf)" \
		"Configure it with CONFIG_RUST=y, and run in it: make prepare modules_prepare"
fi

if [ "$(config RUST)" != y ]; then
	refuse "the kernel in $kdir is configured without CONFIG_RUST" \
		"Only a kernel that was itself built with CONFIG_RUST=y can load a Rust module."
fi

wanted=$(config RUSTC_VERSION_TEXT)

if ! found=$("$rustc" --version 2>/dev/null); then
	refuse "there is no Rust compiler ($rustc --version does not work)" \
		"The kernel in $kdir was configured with: $wanted" \
		"Install that one, or say RUSTC=PATH."
fi

# The kernel's Makefile leaves out the same character.
found=$(printf '%s' "$found" | tr -d '#')

if [ "$found" != "$wanted" ]; then
	refuse "the Rust compiler is not the one that the kernel was configured with" \
		"The kernel in $kdir: $wanted" \
		"$rustc: $found" \
		"Metadata of one version cannot be read by another. Say RUSTC=PATH of the right one, or" \
		"prepare the tree again with this one: make olddefconfig prepare modules_prepare"
fi

# Only the compiler knows all that it needs of the tree: it is not the same in each kernel series.
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT
echo 'obj-m := probe.o' >"$work/Kbuild"
cat >"$work/probe.rs" <<'END'
// SPDX-License-Identifier: GPL-2.0

//! Nothing, as a module.

use kernel::prelude::*;

module! {
    type: Probe,
    name: "probe",
    description: "Nothing",
    license: "GPL",
}

struct Probe;

impl kernel::Module for Probe {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}
END

if ! make -C "$kdir" M="$work" MO="$work" RUSTC="$rustc" modules >"$work/log" 2>&1; then
	wrong='^(error|ERROR|WARNING)|not found$|No such file|No rule to make'
	refuse "not even an empty module can be built against $kdir" \
		"$(grep -E "$wrong" "$work/log" | head -n 3 | sed '2,$s/^/  /')" \
		"What is missing there is made from the source of this very kernel, and the headers packages" \
		"of most distributions do not have it. Unpack that source, give it the same .config, and run" \
		"in it: make prepare modules_prepare (with KERNELRELEASE= what uname -r says). Then copy" \
		"Module.symvers from the headers package into it, and say KDIR= that directory."
fi
