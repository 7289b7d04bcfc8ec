#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# rustc for a kernel tree that modules are built against. They need the metadata of the
# kernel's crates, and never their objects, which take most of the compiler's time: an empty
# one stands for each. What runs in the compiler (libraries of procedural macros) is not
# optimised: it has little to do. And where the source lay is kept out of all of it.
#
# METADATA_RUSTC names the compiler, and METADATA_SOURCE the kernel's source.
set -eu

object=
set -- "$@" "--remap-path-prefix=${METADATA_SOURCE:?}/="
for argument; do
	shift
	case $argument in
	--emit=obj=*)
		object=${argument#--emit=obj=}
		# The metadata is the same as with objects.
		set -- "$@" "$argument" -Zno-codegen
		;;
	-O) set -- "$@" -Copt-level=0 ;;
	*) set -- "$@" "$argument" ;;
	esac
done
"${METADATA_RUSTC:?}" "$@"
[ -z "$object" ] || printf '' | gcc -x c -c -o "$object" -
