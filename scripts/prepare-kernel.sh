#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Prepares the source of a packaged kernel for building modules, in Rust, too: what results lies
# in a tree of its own, and has the kernel's structures, because its configuration is the same.
# Module.symvers is not made: it has to be the packaged kernel's.
#
# usage: prepare-kernel.sh SOURCE CONFIG RELEASE TREE
#
# RELEASE is what uname -r says in that kernel. RUSTC names the compiler, if that is not rustc.
set -eu

source=$1 config=$2 release=$3 tree=$4
here=$(cd "$(dirname "$0")" && pwd)
export METADATA_RUSTC="${RUSTC:-rustc}" METADATA_SOURCE="$source"

make_in_tree() {
	make -C "$source" O="$tree" -j"$(nproc)" KERNELRELEASE="$release" \
		RUSTC="$here/rustc-metadata.sh" HOSTRUSTC="$METADATA_RUSTC" "$@"
}

# options CONFIG: but for how the compiler is called, the build's salt, and keys that only the
# distribution has. None of these reaches a module.
options() {
	grep '^CONFIG_' "$1" | grep -vE \
		'^CONFIG_(CC_VERSION_TEXT|BUILD_SALT|MODULE_SIG_ALL|MODULE_SIG_KEY|SYSTEM_TRUSTED_KEYS)=' |
		LC_ALL=C sort
}

mkdir -p "$tree"
cp "$config" "$tree/.config"
options "$config" >"$tree/.wanted"
make_in_tree olddefconfig
# Modules built with another configuration would have other structures than the kernel that loads
# them.
if ! differ=$(options "$tree/.config" | diff "$tree/.wanted" - | sed -n 's/^[<>] //p' | paste -s -d ' ') ||
	[ -n "$differ" ]; then
	echo "the tools here do not reproduce the packaged kernel's configuration; these differ: $differ" >&2
	exit 1
fi
rm "$tree/.wanted"
# Modules get no BTF here: there is no vmlinux that it could refer to, and the tool that would make
# it takes long to build. The configuration stays as it is.
make_in_tree prepare modules_prepare CONFIG_DEBUG_INFO_BTF=
